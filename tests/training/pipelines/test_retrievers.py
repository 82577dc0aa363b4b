"""Learned retrievers as pipelines: nothing of the tested days in the weights, measured as they serve, kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_repo.sequence import SEQUENCE_LENGTH
from tests.training.pipelines.conftest import GiveRegistry, context
from tests.training.pipelines.test_interests import CONFIG as INTERESTS
from tests.training.pipelines.test_interests import TOWERS
from tests.training.pipelines.test_pinnerformer import CONFIG as FORMER
from training.context import TrainingContext
from training.evaluation.histories import Histories
from training.evaluation.measured import K
from training.evaluation.retrieval import hold_out_last
from training.evaluation.served import (
    AtCut,
    Served,
    conditional_serves,
    dcm_serves,
    pinnerformer_serves,
    two_tower_pins_of,
    two_tower_serves,
)
from training.interests.engagements import followed_topics
from training.light.replay import Sources, replay
from training.models.interactions import Pins, polarity_signs
from training.models.interests import (
    InterestNetwork,
    history,
    profile_codes,
    retrieve,
    sample_followed,
    topic_embeddings,
    user_embeddings,
)
from training.models.interests.features import PROFILE
from training.models.pinnerformer import PinnerFormer
from training.models.two_tower import TwoTower, user_vectors
from training.pipelines.catalogues import catalogue_of, space_part
from training.pipelines.clock import run_end
from training.pipelines.content import load_catalogue, train_content
from training.pipelines.interests import train_conditional, train_dcm
from training.pipelines.pinnerformer import train_pinnerformer
from training.pipelines.pinnerformer_users import daily_user_vectors
from training.pipelines.retrievers import LEARNED, NothingServed, retriever_part, shortfall
from training.pipelines.two_tower import train_two_tower
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part

UNTIED = {"held_out_days": None}


def train_them(ctx: TrainingContext, content: Part, *models: str) -> dict[str, Part]:
    """Small versions of the learned retrievers, on whatever days releases do not test on."""
    interests, towers, former = (c.model_copy(update=UNTIED) for c in (INTERESTS, TOWERS, FORMER))
    makers: dict[str, Callable[[], Part]] = {
        "pinnerformer": lambda: train_pinnerformer(ctx, content, former),
        "dcm": lambda: train_dcm(ctx, content, interests),
        "conditional": lambda: train_conditional(ctx, content, interests),
        "two_tower": lambda: train_two_tower(ctx, content, towers),
    }
    return {name: makers[name]() for name in models or LEARNED}


@pytest.fixture(scope="module")
def mine(home: Path, tmp_path_factory: pytest.TempPathFactory, give_registry: GiveRegistry) -> TrainingContext:
    """The session's lake with a registry of this module's own: keeping weights looks at the newest version."""
    root = tmp_path_factory.mktemp("retrievers")
    give_registry(root)
    return replace(context(root), lake=home / "lake")


@pytest.fixture(scope="module")
def content(mine: TrainingContext) -> Part:
    return train_content(mine)


@pytest.fixture(scope="module")
def parts(mine: TrainingContext, content: Part) -> dict[str, Part]:
    return train_them(mine, content)


@pytest.fixture(scope="module")
def at(mine: TrainingContext, content: Part) -> AtCut:
    lake = Lake(mine.lake)
    past = Histories.before(lake, hold_out_last(lake, run_end(mine)))
    return AtCut.read(lake, load_catalogue(mine, content), past)


def registry_of(ctx: TrainingContext) -> Registry:
    return Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)


def files(ctx: TrainingContext, part: Part) -> Path:
    return registry_of(ctx).download(part.model, part.version)


def weights(ctx: TrainingContext, part: Part) -> bytes:
    return next(files(ctx, part).glob("*.safetensors")).read_bytes()


def test_weights_know_nothing_of_the_days_that_releases_test_on(
    mine: TrainingContext, content: Part, parts: dict[str, Part], tmp_path: Path
) -> None:
    """The same weights where the tested days hold other pins, and other ones where the day before does."""
    cut = hold_out_last(Lake(mine.lake), run_end(mine)).cut
    for day, same in ((cut, True), (cut - timedelta(days=1), False)):
        root = tmp_path / f"{day:%d}"
        shutil.copytree(mine.lake, root / "lake")
        shuffle_pins(Lake(root / "lake"), day, same)
        other = train_them(replace(mine, lake=root / "lake", training_sets=root), content)
        for name in LEARNED:
            assert registry_of(mine).learned_until(name, other[name].version) == cut
            assert other[name].version != parts[name].version, "the data differ, so it is another version"
            assert (weights(mine, other[name]) == weights(mine, parts[name])) is same, name


def shuffle_pins(lake: Lake, start: datetime, on: bool) -> None:
    """Give the actions of `start` (and those of later days, with `on`) one another's pins."""
    rng = np.random.default_rng(0)
    for day in lake.days("actions"):
        if day == start.date() or (on and day > start.date()):
            table = pq.read_table(lake.file("actions", day))
            order = pa.array(rng.permutation(len(table)))
            place = table.schema.get_field_index("pin_id")
            shuffled = table.set_column(place, table.schema.field("pin_id"), table["pin_id"].take(order))
            pq.write_table(shuffled, lake.file("actions", day))


def stored(at: AtCut, user: int, pins: Pins) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]]:
    """A user as the online store holds them at the cut: vectors of the sequence's pins in a space, signs,
    times (newest first), profile codes.
    """
    sequence = at.past.sequence(user)
    places = np.searchsorted(pins.ids, sequence.pin_ids)
    signs = polarity_signs(at.lake.contract().vocabulary)[sequence.actions]
    users = at.lake.read("users", ["user_id", *PROFILE]).set_index("user_id")
    profile = profile_codes([users.at[user, name] for name in PROFILE])
    return pins.vectors[places], signs, sequence.timestamps_ms, tuple(profile)


def searcher(at: AtCut, pins: Pins, user: int, carrying: int | None = None) -> Callable[..., np.ndarray]:
    """Exact search, pin by pin, over what was there and new to the user at the cut."""
    allowed = (pins.created_at_ms < at.past.cut_ms) & ~np.isin(pins.ids, at.past.known(user))
    if carrying is not None:
        allowed &= (pins.topics == carrying).any(axis=1)

    def search(query: np.ndarray, k: int) -> np.ndarray:
        scores = np.where(allowed, pins.vectors @ query, -np.inf)
        best = np.argsort(-scores, kind="stable")[:k]
        return pins.ids[best[np.isfinite(scores[best])]]

    return search


def recommended(served: Served, user: int) -> list[int]:
    row = served.recommended[np.flatnonzero(served.held.users == user)[0]]
    return row[row > 0].tolist()


def asked(at: AtCut) -> list[int]:
    """Held-out users whose whole history the online store holds."""
    return [user for user in at.users.tolist() if 5 < len(at.past.sequence(user)) < SEQUENCE_LENGTH][:12]


def test_dcm_is_measured_by_what_a_service_would_answer(
    mine: TrainingContext, parts: dict[str, Part], at: AtCut
) -> None:
    network = InterestNetwork.load(files(mine, parts["dcm"]))
    served, pins = dcm_serves(network, at), catalogue_of(mine, parts["dcm"], at.cut)
    for user in asked(at):
        *arrays, profile = stored(at, user, pins)
        seen = history(*arrays, at.past.cut_ms, profile, length=network.config.length)
        found, _ = retrieve(user_embeddings(network, seen), searcher(at, pins, user), K)
        assert recommended(served, user) == found[:K].tolist()


def test_conditional_is_measured_by_what_a_service_would_answer(
    mine: TrainingContext, parts: dict[str, Part], at: AtCut
) -> None:
    network = InterestNetwork.load(files(mine, parts["conditional"]))
    served = conditional_serves(network, at, 7)
    pins = catalogue_of(mine, parts["conditional"], at.cut)
    followed = followed_topics(at.lake, at.cut)
    assert served.held.users.tolist() == [user for user in at.users.tolist() if user in followed]
    assert 0 < len(served.held) < len(at.users), "who follows nothing is not served"
    carried = dict(zip(pins.ids.tolist(), pins.topics, strict=True))
    for user in [user for user in asked(at) if user in followed]:
        *arrays, profile = stored(at, user, pins)
        seen = history(*arrays, at.past.cut_ms, profile, length=network.config.length)
        topics = sample_followed(followed[user], (7, user))
        found = topic_embeddings(network, seen, topics)
        lists = [
            searcher(at, pins, user, int(topic))(vector, K)
            for topic, vector in zip(found.topics, found.vectors, strict=True)
        ]
        mine_now = recommended(served, user)
        assert set(mine_now) <= set(np.concatenate(lists).tolist())
        assert all(set(carried[pin].tolist()) & set(topics.tolist()) for pin in mine_now)
        assert [mine_now[0]] == lists[0][:1].tolist()


def test_pinnerformer_is_measured_by_last_nights_vectors(
    mine: TrainingContext, parts: dict[str, Part], at: AtCut, tmp_path: Path
) -> None:
    part = parts["pinnerformer"]
    served, pins = pinnerformer_serves(PinnerFormer.load(files(mine, part)), at), catalogue_of(mine, part)
    nightly = daily_user_vectors(replace(mine, training_sets=tmp_path), part, at.cut)
    for user in asked(at):
        vector = nightly.vectors[np.searchsorted(nightly.users, user)]
        found = searcher(at, pins, user)(vector, K)
        assert len(set(recommended(served, user)) & set(found.tolist())) >= K - 1  # rounding may swap the last


def test_two_tower_is_measured_by_what_a_service_would_answer(
    mine: TrainingContext, parts: dict[str, Part], at: AtCut
) -> None:
    part = parts["two_tower"]
    network = TwoTower.load(files(mine, part))
    served, pins = two_tower_serves(network, at), catalogue_of(mine, part, at.cut)
    for user in asked(at):
        *arrays, profile = stored(at, user, at.content)
        seen = history(*arrays, at.past.cut_ms, profile, length=network.config.length)
        found = searcher(at, pins, user)(user_vectors(network, seen)[0], K)
        assert len(set(recommended(served, user)) & set(found.tolist())) >= K - 1


def test_a_version_says_what_it_reaches_beside_popularity_and_chance(parts: dict[str, Part]) -> None:
    for name, part in parts.items():
        for metric in (f"{name}/recall_at_100", "popularity/recall_at_100", "chance/recall_at_100"):
            assert 0 <= part.metrics[metric] <= 1


@pytest.mark.parametrize("name", LEARNED)
def test_it_is_served_where_it_clears_the_gates_floors(parts: dict[str, Part], name: str) -> None:
    def said(recall: float, tail: float = 0.4, popular: float = 0.1) -> str | None:
        metrics = {
            "popularity/recall_at_100": popular,
            f"{name}/recall_error_at_100": 0.01,
            "chance/recall_at_100": 0.1,
            f"{name}/recall_at_100": recall,
            f"{name}/users": 500.0,
            f"{name}/pins": 2000.0,
            f"{name}/recall_at_100/tail_topics": tail,
            f"{name}/users/tail_topics": 300.0,
            f"{name}/pins/tail_topics": 600.0,
        }
        return shortfall(parts[name].model_copy(update={"metrics": metrics}))

    assert said(0.4) is None
    assert "0.1 is below 0.15" in (said(0.1) or "")
    assert "tail_topics" in (said(0.4, tail=0.02) or "")
    assert said(0.4, popular=0.42) is None, "a difference that chance makes"
    assert "0.4 is below popularity's 0.5" in (said(0.4, popular=0.5) or "")


def test_spaces_are_named_by_their_makers(mine: TrainingContext, parts: dict[str, Part]) -> None:
    for name, part in parts.items():
        assert space_part(registry_of(mine), f"{name}@{part.version}") == part
        assert retriever_part(registry_of(mine), name, part.version) == part
        np.testing.assert_array_equal(catalogue_of(mine, part).ids, catalogue_of(mine, parts["dcm"]).ids)


def test_pins_perform_as_of_a_time_and_the_rest_does_not_move(
    mine: TrainingContext, parts: dict[str, Part]
) -> None:
    earlier = run_end(mine) - timedelta(days=4)
    for name, part in parts.items():
        moved = (catalogue_of(mine, part).vectors != catalogue_of(mine, part, earlier).vectors).any()
        assert moved == (name != "pinnerformer")


def test_nobody_who_follows_means_no_conditional_retrieval(
    mine: TrainingContext, content: Part, tmp_path: Path
) -> None:
    shutil.copytree(mine.lake, tmp_path / "lake")
    shutil.rmtree(tmp_path / "lake" / "follows")
    with pytest.raises(NothingServed, match="nobody follows one"):
        train_conditional(replace(mine, lake=tmp_path / "lake"), content, INTERESTS)


def test_new_pins_and_active_users_get_vectors_of_the_weights_there_are(
    mine: TrainingContext, content: Part, parts: dict[str, Part], tmp_path: Path
) -> None:
    """Three pins and one user's action more: one more version of each, of the same weights."""
    shutil.copytree(mine.lake, tmp_path / "lake")
    lake = Lake(tmp_path / "lake")
    said: list[str] = []
    later = replace(
        mine, lake=lake.path, keep_weights=True, training_sets=tmp_path / "sets", progress=said.append
    )
    registry = registry_of(mine)
    newest = {name: retriever_part(registry, name, registry.latest(name) or 0) for name in parts}
    users = daily_user_vectors(later, newest["pinnerformer"])
    table = pq.read_table(lake.file("pins"))
    new = table.slice(0, 3).to_pandas()
    new["pin_id"] += int(pc.max(table["pin_id"]).as_py())
    rows = pa.Table.from_pandas(new, schema=table.schema, preserve_index=False)
    pq.write_table(pa.concat_tables([table, rows]), lake.file("pins"))
    active = one_more_action(lake)
    kept_content = train_content(later)
    kept = train_them(later, kept_content)
    for name, part in kept.items():
        assert part.version == newest[name].version + 1
        assert registry.weights_of(name, part.version) == newest[name].version
        until = [registry.learned_until(name, p.version) for p in (part, newest[name])]
        assert until[0] == until[1] is not None
        assert weights(mine, part) == weights(mine, newest[name])
        made = catalogue_of(later, part)
        assert made.vectors[np.isin(made.ids, new["pin_id"])].any(axis=1).all()
    assert train_them(later, kept_content) == kept, "and nothing is done twice"
    said.clear()
    merged = daily_user_vectors(later, kept["pinnerformer"])
    assert any(line.startswith("pinnerformer: 1 of ") for line in said), said
    changed = (merged.vectors != users.vectors).any(axis=1)
    assert merged.users[changed].tolist() == [active]


def one_more_action(lake: Lake) -> int:
    """Repeat the last action of the first day as a new event, late as it is; its user."""
    day = lake.days("actions")[0]
    table = pq.read_table(lake.file("actions", day))
    frame = table.to_pandas()
    late = frame.tail(1).assign(event_id=frame["event_id"].max() - 1)
    pq.write_table(
        pa.Table.from_pandas(pd.concat([frame, late]), schema=table.schema, preserve_index=False),
        lake.file("actions", day),
    )
    return int(late["user_id"].iloc[0])


def test_a_replay_lists_what_each_retriever_brings_with_its_scores(
    mine: TrainingContext, content: Part, parts: dict[str, Part], at: AtCut
) -> None:
    """Ranks are of whole lists: what the user knows already is in them, and is taken out later."""
    sources = Sources.of(mine, parts, at.cut)
    found = replay(at.lake, at.content, sources, at.past.held, mine.seed)
    assert [one.source for one in found.lists[0]][: len(LEARNED)] == list(LEARNED)
    network = TwoTower.load(files(mine, parts["two_tower"]))
    vectors = two_tower_pins_of(network, at.features(network.topics))
    allowed = at.candidates(vectors)
    for row in range(0, len(at.users), 7):
        of = {one.source: one for one in found.lists[row]}
        assert found.two_tower is not None
        products = vectors[allowed] @ found.two_tower.queries[row]
        best = np.argsort(-products, kind="stable")[:50]
        assert of["two_tower"].pin_ids[:50].tolist() == at.content.ids[allowed[best]].tolist()
        np.testing.assert_allclose(of["two_tower"].scores[:50], products[best], rtol=1e-5)
        for one in of.values():
            assert len(np.unique(one.pin_ids)) == len(one.pin_ids) == len(one.scores)
            created = at.content.created_at_ms[np.searchsorted(at.content.ids, one.pin_ids)]
            assert (created < at.past.cut_ms).all()
