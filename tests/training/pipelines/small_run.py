"""A whole training run whose networks take seconds, and every part of which is served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.training.pipelines.test_interests import CONFIG as INTERESTS
from tests.training.pipelines.test_interests import TOWERS
from tests.training.pipelines.test_pinnerformer import CONFIG as FORMER
from tests.training.pipelines.test_pinsage import CONFIG as PINSAGE
from tests.training.pipelines.test_searchsage import CONFIG as SEARCHSAGE
from tests.training.small_networks import SMALL_TRANSACT
from training.pipelines import pinsage as pinsage_module
from training.pipelines import retrievers as retrievers_module
from training.pipelines import searchsage as searchsage_module
from training.pipelines import train as train_module
from training.pipelines.interests import train_conditional, train_dcm
from training.pipelines.pinnerformer import train_pinnerformer
from training.pipelines.pinsage import train_pinsage
from training.pipelines.pinsage_world import PinSagePipeline
from training.pipelines.searchsage import train_searchsage
from training.pipelines.transact import train_transact
from training.pipelines.two_tower import train_two_tower

SMALL_PINSAGE = PINSAGE.model_copy(update={"held_out_days": PinSagePipeline().held_out_days})
"""Networks that take seconds, on the days that the pipelines' own settings learn from."""
SMALL_SEARCHSAGE, SMALL_INTERESTS, SMALL_TOWERS, SMALL_FORMER = (
    config.model_copy(update={"held_out_days": None}) for config in (SEARCHSAGE, INTERESTS, TOWERS, FORMER)
)
SMALL = {
    retrievers_module.PINNERFORMER: partial(train_pinnerformer, config=SMALL_FORMER),
    retrievers_module.DCM: partial(train_dcm, config=SMALL_INTERESTS),
    retrievers_module.CONDITIONAL: partial(train_conditional, config=SMALL_INTERESTS),
    retrievers_module.TWO_TOWER: partial(train_two_tower, config=SMALL_TOWERS),
}
DIM = SMALL_PINSAGE.network.dim
"""Of PinSage and of every learned retriever."""


class Lines(list[str]):
    """Progress kept, to be asked what happened."""

    def __call__(self, line: str) -> None:
        self.append(line)

    def told(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self)


@contextmanager
def small_steps() -> Iterator[None]:
    """All are served here, though a world of 150 users is too little for PinSage to know more than content."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pinsage_module, "shortfall", lambda part: None)
        patch.setattr(retrievers_module, "shortfall", lambda part: None)
        patch.setattr(searchsage_module, "shortfall", lambda part: None)
        patch.setattr(train_module, "RETRIEVERS", SMALL)
        patch.setattr(train_module, "train_pinsage", partial(train_pinsage, config=SMALL_PINSAGE))
        patch.setattr(train_module, "train_searchsage", partial(train_searchsage, config=SMALL_SEARCHSAGE))
        patch.setattr(train_module, "train_transact", partial(train_transact, config=SMALL_TRANSACT))
        yield
