"""What pages are made by once a ranker has spoken: what actions are worth, and how much is given for variety.

One file holds both, and changes without training or restarting anything:

    weights: {save: 1, click: 0.3, hide: -5}
    diversity: {theta: 0.7, topic_cap: 3}
    search: {theta: 0.95}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from pydantic import Field, ValidationError

from training.models.diversity import DiversityConfig
from training.models.settings_file import Unreadable, first_fault, read_settings
from training.models.utility import UtilityError, UtilityWeights
from validation.tables import Vocabulary


class SearchDiversity(DiversityConfig):
    """Results of one query are alike, as it asked: near repeats give way, and nothing is capped."""

    theta: float = Field(0.95, ge=0, le=1)
    topic_cap: int = Field(0, ge=0, le=1000)
    board_cap: int = Field(0, ge=0, le=1000)


class PagePolicy(UtilityWeights):
    """Utility weights, and the diversity of pages ordered by them."""

    diversity: DiversityConfig = DiversityConfig()
    search: SearchDiversity = SearchDiversity()
    """The same of pages of search results."""

    @cached_property
    def digest(self) -> str:
        """Eight hex digits that every change of a number changes."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.blake2s(content.encode(), digest_size=4).hexdigest()


def read_policy(file: Path, vocabulary: Vocabulary, heads: Sequence[str] = ()) -> PagePolicy:
    """The policy of a YAML or JSON file, checked against the data set and, where `heads` are given, a ranker.

    What the file leaves out is the default: the data set's weights, DiversityConfig's numbers. Raises
    UtilityError for a file that is absent, does not parse, or does not fit.
    """
    try:
        content = read_settings(file)
        if isinstance(content, dict):
            content = {"weights": UtilityWeights.default(vocabulary).weights, **content}
        policy = PagePolicy.model_validate(content).check(vocabulary)
        if heads:
            policy.vector(heads)
        return policy
    except Unreadable as error:
        raise UtilityError(str(error)) from error
    except ValidationError as error:
        raise UtilityError(
            f"{file}: {first_fault(error)}; a file of weights looks like `weights: {{save: 1, hide: -5}}`"
        ) from error
    except UtilityError as error:
        raise UtilityError(f"{file}: {error}") from error
