"""The whole model behind one interface: shapes, masks, save and load, one user alone as among others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.models.interests import (
    Construction,
    InterestNetwork,
    InterestsConfig,
    Method,
    PinFeatures,
    UserTowerConfig,
    embed_users,
    history,
    pin_vectors,
    profile_codes,
    topic_embeddings,
    topic_places,
    user_embeddings,
)
from training.models.interests.features import PROFILE_CODES, pooled
from training.models.interests.network import seeded

TOPICS = (3, 8, 21)
BASE = InterestsConfig(dim=16, interests=4, length=30, clusters=5)


def network(config: InterestsConfig) -> InterestNetwork:
    made = seeded(config, 10, TOPICS, seed=1).eval()
    if config.construction is Construction.PFS:
        made.centres.copy_(torch.randn(5, 10, generator=torch.Generator().manual_seed(2)))
    return made


def features(rows: int = 40) -> PinFeatures:
    rng = np.random.default_rng(0)
    content = rng.standard_normal((rows, 10)).astype(np.float32)
    content[5] = np.nan
    content[6] = 0
    topics = topic_places(rng.choice([0, *TOPICS, 99], (rows, 2)), TOPICS)
    topics[5] = topics[6] = 0
    return PinFeatures(content, topics)


def test_topics_unknown_to_the_vocabulary_are_none() -> None:
    np.testing.assert_array_equal(topic_places(np.array([[0, 3], [21, 99]]), TOPICS), [[0, 1], [3, 0]])
    np.testing.assert_array_equal(topic_places(np.array([3]), ()), [0])


def test_profile_codes_are_stable_and_bounded() -> None:
    assert profile_codes([None, ""]) == [0, 0]
    codes = profile_codes(["US", "en"])
    assert codes == profile_codes(["US", "en"]) and all(0 < c < PROFILE_CODES for c in codes)


def test_pins_are_unit_rows_and_zero_without_features() -> None:
    vectors = pin_vectors(network(BASE), features(), rows=7)
    lengths = np.linalg.norm(vectors, axis=1)
    known = features().known()
    assert not known[[5, 6]].any() and known.sum() == 38
    np.testing.assert_allclose(lengths, known.astype(float), atol=1e-5)
    np.testing.assert_allclose(vectors, pin_vectors(network(BASE), features()), atol=1e-6)


def some_history(made: InterestNetwork, actions: int, now: int = 10_000_000) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(actions)
    vectors = pin_vectors(made, features())
    rows = rng.integers(0, 40, actions)
    times = now - np.sort(rng.integers(1, 5_000_000, actions))
    return vectors[rows], rng.choice([1, 1, 1, 0, -1], actions), times, rows


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("actions", [0, 1, 2, 25, 10_000])
def test_every_method_answers_every_history(method: Method, actions: int) -> None:
    made = network(method.config(BASE))
    vectors, signs, times, rows = some_history(made, actions)
    seen = history(vectors, signs, times, 10_000_000, length=30)
    if method is Method.PFS:
        clusters = made.clusters(features())
        assert clusters is not None
        newest = rows[: seen.items.shape[1]]
        seen = seen._replace(clusters=torch.from_numpy(clusters[newest])[None])
    found = embed_users(made, seen)
    assert found.vectors.shape == (1, made.config.interests, 16)
    alive = found.mask[0]
    assert alive.any() and torch.isfinite(found.vectors).all()
    torch.testing.assert_close(found.vectors[0, alive].norm(dim=1), torch.ones(int(alive.sum())))
    assert not found.vectors[0, ~alive].any()
    assert float(found.weights.sum()) == pytest.approx(1)


def test_a_user_alone_is_the_user_among_others() -> None:
    """Padding of longer histories beside it changes nothing."""
    made = network(Method.DCM.config(BASE))
    vectors, signs, times, _ = some_history(made, 12)
    alone = history(vectors, signs, times, 10_000_000, length=30)
    pad = torch.nn.functional.pad
    padded = alone._replace(
        items=pad(alone.items, (0, 0, 0, 9)), signs=pad(alone.signs, (0, 9)), hours=pad(alone.hours, (0, 9))
    )
    torch.testing.assert_close(embed_users(made, alone).vectors, embed_users(made, padded).vectors)


TOWERS = (UserTowerConfig(), UserTowerConfig(layers=2, heads=4, blocks=3, residual=False))


@pytest.mark.parametrize("tower", TOWERS, ids=["default", "deeper"])
@pytest.mark.parametrize("actions", [0, 1, 25])
def test_a_served_network_says_what_a_trained_one_says(tower: UserTowerConfig, actions: int) -> None:
    config = BASE.model_copy(update={"user_tower": tower})
    implicit = network(Method.DCM.config(config))
    explicit = network(config.model_copy(update={"construction": Construction.TOPICS}))
    vectors, signs, times, _ = some_history(implicit, actions)
    seen = history(vectors, signs, times, 10_000_000, length=30)
    asked = np.array([8, 3, 99])
    trained = user_embeddings(implicit, seen), topic_embeddings(explicit, seen, asked)
    served = user_embeddings(implicit.serving(), seen), topic_embeddings(explicit.serving(), seen, asked)
    for told, wanted in zip(served, trained, strict=True):
        np.testing.assert_allclose(told.vectors, wanted.vectors, atol=1e-5)
        np.testing.assert_allclose(told.weights, wanted.weights, atol=1e-6)
        np.testing.assert_array_equal(told.topics, wanted.topics)


def test_a_history_knows_nothing_of_later() -> None:
    made = network(Method.DCM.config(BASE))
    vectors, signs, times, _ = some_history(made, 12)
    now = int(times[4])
    seen = history(vectors, signs, times, now, length=30)
    later = int((times >= now).sum())
    assert seen.items.shape[1] == 12 - later and (seen.hours > 0).all()
    np.testing.assert_array_equal(seen.items[0].numpy(), vectors[later:])
    with pytest.raises(ValueError, match="one an action"):
        history(vectors, signs[:3], times, now, length=30)


def test_user_embeddings_come_with_the_heaviest_first_and_repeat_themselves() -> None:
    made = network(Method.DCM.config(BASE))
    vectors, signs, times, _ = some_history(made, 25)
    seen = history(vectors, signs, times, 10_000_000, profile_codes(["US", "en"]), length=30)
    first, again = user_embeddings(made, seen), user_embeddings(made, seen)
    assert (np.diff(first.weights) <= 0).all() and first.weights.sum() == pytest.approx(1)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert len(first) <= 4 and not first.topics.any()


def test_topics_condition_the_user_and_unknown_ones_are_left_out() -> None:
    made = network(BASE.model_copy(update={"construction": Construction.TOPICS}))
    vectors, signs, times, _ = some_history(made, 12)
    seen = history(vectors, signs, times, 10_000_000, length=30)
    found = topic_embeddings(made, seen, np.array([21, 404, 3]))
    assert found.topics.tolist() == [21, 3] and found.weights.tolist() == [0.5, 0.5]
    assert np.abs(found.vectors[0] - found.vectors[1]).max() > 1e-3
    assert len(topic_embeddings(made, seen, np.array([404]))) == 0
    assert len(topic_embeddings(made, seen, np.empty(0, np.int64))) == 0
    with pytest.raises(ValueError, match="topics"):
        embed_users(made, seen)
    with pytest.raises(ValueError, match="needs topics"):
        InterestNetwork(made.config, 10, ())


@pytest.mark.parametrize("construction", list(Construction))
def test_saved_and_loaded_is_equal(construction: Construction, tmp_path: Path) -> None:
    made = network(BASE.model_copy(update={"construction": construction}))
    made.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["interests.json", "interests.safetensors"]
    loaded = InterestNetwork.load(tmp_path)
    assert loaded.config == made.config and loaded.topics == TOPICS
    for name, tensor in made.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)
    np.testing.assert_array_equal(pin_vectors(loaded, features()), pin_vectors(made, features()))


def test_the_papers_tower_runs() -> None:
    config = Method.DCM.config(BASE.model_copy(update={"user_tower": UserTowerConfig.paper(), "interests": 2}))
    made = network(config)
    vectors, signs, times, _ = some_history(made, 8)
    found = embed_users(made, history(vectors, signs, times, 10_000_000, length=30))
    torch.testing.assert_close(found.vectors[0].norm(dim=1)[found.mask[0]], torch.ones(int(found.mask.sum())))


def test_pooled_history_is_what_it_says() -> None:
    items = np.eye(4, dtype=np.float32)
    seen = history(items, np.array([1, -1, 1, 0]), np.array([90, 80, 70, 60]), 100, length=30)
    means, dense = pooled(seen)
    np.testing.assert_allclose(means[0, 0].numpy(), [0.5, 0, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(means[0, 3].numpy(), [0, 1, 0, 0], atol=1e-6)
    assert float(dense[0, 0]) == pytest.approx(np.log1p(2) / 5)
