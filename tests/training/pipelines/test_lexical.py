"""The words of a catalogue as a registered version, and what is offered of what people search for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.data.lakes import write_lake
from tests.training.pipelines.conftest import GiveRegistry, context
from training.context import TrainingContext
from training.models.lexical import LexicalIndex, PopularQueries
from training.pipelines.lexical import NoWords, searches, train_lexical
from training.registry import Registry
from validation.lake import Lake

END = datetime(2026, 3, 1, tzinfo=UTC)
TOPIC = 7


def frames(queries: list[tuple[int, str | None, float]]) -> dict[str, pd.DataFrame]:
    """A catalogue of four pins, and one action each (user, query, days before END)."""
    times = [END - timedelta(days=days) for _, _, days in queries]
    return {
        "pins": pd.DataFrame(
            {
                "pin_id": [4, 3, 2, 1],
                "created_at": pd.Series([END - timedelta(days=400)] * 4),
                "title": ["Oak bench", None, "", "Cake"],
                "description": ["for two", "of oak", None, None],
                "topics": [[TOPIC], None, [TOPIC], [8]],
            }
        ),
        "topics": pd.DataFrame({"topic_id": [TOPIC], "name": ["Garden furniture"]}),
        "actions": pd.DataFrame(
            {
                "event_id": np.arange(1, len(queries) + 1),
                "user_id": [user for user, _, _ in queries],
                "pin_id": 1,
                "action": 1,
                "timestamp": pd.Series(times),
                "query": [query for _, query, _ in queries],
            }
        ),
    }


QUERIES = [
    *[(user, "Oak  bench", 1.5) for user in (1, 2, 3)],
    (4, "oak bench", 0.5),
    *[(user, "cake pops", 60.5) for user in (1, 2, 3)],
    *[(9, "my own address", 1.5)] * 50,
    *[(user, "two of us", 2.5) for user in (1, 2)],
    *[(user, "long ago", 120.5) for user in range(1, 9)],
    (5, None, 0.5),
]


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory, give_registry: GiveRegistry) -> TrainingContext:
    root = tmp_path_factory.mktemp("lexical")
    give_registry(root)
    write_lake(root / "lake", frames(QUERIES))
    return context(root)


def test_titles_descriptions_and_topic_names_are_indexed_once(
    ctx: TrainingContext,
) -> None:
    part = train_lexical(ctx)
    assert (part.model, part.version, part.space) == ("lexical", 1, None)
    assert part.metrics["with_words"] == 1.0 and part.metrics["pins"] == 4
    files = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts).download("lexical", 1)
    index = LexicalIndex.load(files)
    assert sorted(index.search("oak", 9)[0].tolist()) == [3, 4]
    assert sorted(index.search("garden", 9)[0].tolist()) == [2, 4]
    assert train_lexical(ctx) == part
    assert train_lexical(ctx, force=True).version == 2


def test_what_too_few_people_made_is_not_offered(ctx: TrainingContext) -> None:
    files = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts).download("lexical", train_lexical(ctx).version)
    popular = PopularQueries.load(files)
    assert popular.users == {"oak bench": 4, "cake pops": 3}
    assert popular.starting("OAK ", 5) == [("oak bench", 4)]
    assert popular.starting("be", 5) == [("oak bench", 4)], "a later word"
    assert popular.starting("", 1) == [("oak bench", 4)]
    assert popular.starting("zz", 5) == []


def test_searches_end_where_the_run_does(ctx: TrainingContext) -> None:
    known = searches(Lake(ctx.lake), END - timedelta(days=2), END - timedelta(days=1))
    assert set(known["query"]) == {"Oak  bench", "my own address"}


def test_a_catalogue_without_words_is_left_out(tmp_path: Path, give_registry: GiveRegistry) -> None:
    give_registry(tmp_path)
    made = frames(QUERIES)
    made["pins"] = made["pins"].assign(title=None, description=None, topics=None)
    write_lake(tmp_path / "lake", made)
    with pytest.raises(NoWords, match="no pin has a word"):
        train_lexical(context(tmp_path))
