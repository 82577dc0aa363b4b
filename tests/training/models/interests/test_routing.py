"""The compiled routing against loops written as the formulas read, and what it does at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.models.interests.conditions import Capsules, farthest_points
from training.models.interests.config import InterestsConfig, Method
from training.models.interests.features import PROFILE, Histories
from training.models.interests.routing import assign, spread


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.standard_normal(shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def histories(items: np.ndarray, signs: np.ndarray | None = None) -> Histories:
    b, m, _ = items.shape
    signs = np.ones((b, m), np.int64) if signs is None else signs
    return Histories(
        torch.from_numpy(items), torch.from_numpy(signs), torch.zeros(b, m), torch.zeros(b, len(PROFILE)).long()
    )


def naive_farthest(items: np.ndarray, valid: np.ndarray, first: int, k: int) -> list[int]:
    """Picks of VA-FPI: argmax over valid items of min over centroids of -c.e; repeats end it."""
    there = [i for i in range(len(items)) if valid[i]]
    picks = [there[first % len(there)]]
    while len(picks) < k:
        distance = {i: min(-float(items[p] @ items[i]) for p in picks) for i in there}
        best = max(there, key=lambda i: distance[i])
        if distance[best] < -(1 - 1e-5):
            break
        picks.append(best)
    return picks


def naive_routing(
    items: np.ndarray, valid: np.ndarray, first: int, k: int, iterations: int, sharpness: float
) -> tuple[list[int], list[float]]:
    centroids = [items[p].astype(float) for p in naive_farthest(items, valid, first, k)]
    home, weight = [-1] * len(items), [0.0] * len(items)
    for turn in range(iterations):
        for i in range(len(items)):
            if valid[i]:
                logits = [sharpness * float(c @ items[i]) for c in centroids]
                top = max(logits)
                home[i] = logits.index(top)
                weight[i] = 1 / sum(np.exp(x - top) for x in logits)
        kept = [j for j in range(len(centroids)) if j in home]
        home = [kept.index(h) if h >= 0 else -1 for h in home]
        if turn + 1 < iterations:
            centroids = []
            for j in range(len(kept)):
                total = sum(weight[i] * items[i].astype(float) for i in range(len(items)) if home[i] == j)
                length = np.linalg.norm(total)
                centroids.append(total * length / (1 + length**2))
    return home, weight


@pytest.mark.parametrize(("m", "d", "k"), [(40, 16, 7), (9, 8, 4), (200, 64, 7), (30, 4, 12)])
def test_the_kernel_is_the_naive_loop(m: int, d: int, k: int) -> None:
    rng = np.random.default_rng(m)
    items = unit(rng, 6, m, d)
    valid = rng.random((6, m)) < 0.8
    first = rng.integers(0, 1000, 6)
    found = assign(items, valid, first, k, 3, 8.0)
    for user in range(6):
        home, weight = naive_routing(items[user], valid[user], int(first[user]), k, 3, 8.0)
        np.testing.assert_array_equal(found.clusters[user], home)
        np.testing.assert_allclose(found.weights[user], weight, atol=2e-5)
        assert found.counts[user] == len(set(home) - {-1})
        np.testing.assert_allclose(found.shares[user].sum(), sum(weight), rtol=1e-5)


def test_an_invalid_item_is_never_a_centroid_nor_in_a_cluster() -> None:
    """The trap of the transcribed formula: invalid items score 0, which beats every positive similarity."""
    rng = np.random.default_rng(0)
    items = np.abs(unit(rng, 1, 12, 8))
    items /= np.linalg.norm(items, axis=2, keepdims=True)
    valid = np.ones((1, 12), bool)
    valid[0, [3, 7]] = False
    found = assign(items, valid, np.zeros(1, np.int64), 6, 3, 8.0)
    assert (found.clusters[0, [3, 7]] == -1).all() and (found.weights[0, [3, 7]] == 0).all()
    assert (found.clusters[0, valid[0]] >= 0).all()
    capsules = Capsules(Method.DCM.config(InterestsConfig(dim=8, interests=6)))
    signs = np.where(valid, 1, -1)
    moved = items.copy()
    moved[0, [3, 7]] = -moved[0, [3, 7]]
    torch.testing.assert_close(
        capsules(histories(items, signs)).vectors, capsules(histories(moved, signs)).vectors
    )


def test_the_torch_form_picks_the_same_points() -> None:
    rng = np.random.default_rng(5)
    items, valid = unit(rng, 8, 30, 8), rng.random((8, 30)) < 0.7
    valid[3] = False
    first = rng.integers(0, 99, 8)
    centroids, alive = farthest_points(
        torch.from_numpy(items), torch.from_numpy(valid), torch.from_numpy(first), 5
    )
    for user in range(8):
        picks = naive_farthest(items[user], valid[user], int(first[user]), 5) if valid[user].any() else []
        assert int(alive[user].sum()) == len(picks)
        np.testing.assert_allclose(centroids[user, : len(picks)].numpy(), items[user, picks], atol=1e-6)


@pytest.mark.parametrize("actions", [0, 1, 2])
@pytest.mark.parametrize("method", [Method.DCM, Method.MIND, Method.SINGLE])
def test_few_items_give_few_clusters(actions: int, method: Method) -> None:
    config = method.config(InterestsConfig(dim=8, length=20))
    found = Capsules(config)(histories(unit(np.random.default_rng(1), 2, actions, 8)))
    assert found.vectors.shape == (2, config.interests, 8)
    assert torch.isfinite(found.vectors).all() and found.mask.any(dim=1).all()
    torch.testing.assert_close(found.weights.sum(dim=1), torch.ones(2))
    if method is Method.DCM:
        assert found.mask.sum(dim=1).tolist() == [max(actions, 1)] * 2
    assert not found.vectors[~found.mask].any()


def test_equal_items_are_one_cluster() -> None:
    items = np.repeat(unit(np.random.default_rng(2), 1, 1, 8), 50, axis=1)
    found = assign(items, np.ones((1, 50), bool), np.array([13]), 7, 3, 8.0)
    assert found.counts.tolist() == [1] and (found.clusters == 0).all()
    np.testing.assert_allclose(found.weights, 1.0, atol=1e-6)


@pytest.mark.parametrize("method", [Method.DCM, Method.MIND])
def test_planted_clusters_are_found(method: Method) -> None:
    """Three far apart directions with 20, 10 and 5 noisy items."""
    rng = np.random.default_rng(3)
    centres, sizes = np.eye(16, dtype=np.float32)[:3], [20, 10, 5]
    items = np.concatenate([np.repeat(c[None], n, 0) for c, n in zip(centres, sizes, strict=True)])
    items = items + 0.05 * rng.standard_normal(items.shape).astype(np.float32)
    items = (items / np.linalg.norm(items, axis=1, keepdims=True))[rng.permutation(35)][None]
    config = Method.DCM.config(InterestsConfig(dim=16, interests=3))
    if method is Method.MIND:  # its routing alone, from random logits: clusters need not come out
        config = config.model_copy(
            update={
                "routing": config.routing.model_copy(
                    update={"farthest_point": False, "single_assignment": False}
                )
            }
        )
    found = Capsules(config)(histories(items))
    cosines = torch.nn.functional.normalize(found.vectors[0], dim=1).numpy() @ centres.T
    purity = cosines.max(axis=0).min()
    if method is Method.DCM:
        assert purity > 0.99
        np.testing.assert_allclose(np.sort(found.weights[0].numpy()), [5 / 35, 10 / 35, 20 / 35], atol=0.01)
    else:
        assert np.isfinite(purity)


def test_mind_is_the_naive_loop() -> None:
    rng = np.random.default_rng(4)
    items = unit(rng, 2, 11, 6)
    valid = np.ones((2, 11), np.int64)
    valid[0, 8:] = 0
    config = Method.MIND.config(InterestsConfig(dim=6, interests=3))
    capsules = Capsules(config)
    found = capsules(histories(items, valid))
    s = capsules.map.weight.detach().numpy().astype(float)
    for user in range(2):
        mapped = [s @ items[user, i].astype(float) for i in range(11) if valid[user, i]]
        logits = [capsules.noise[i].numpy().astype(float) for i in range(11) if valid[user, i]]
        for turn in range(3):
            shares = [np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in logits]
            totals = [sum(w[j] * e for w, e in zip(shares, mapped, strict=True)) for j in range(3)]
            out = [z * np.linalg.norm(z) / (1 + np.linalg.norm(z) ** 2) for z in totals]
            if turn < 2:
                agree = [np.array([u @ e for u in out]) for e in mapped]
                logits = [x + config.routing.sharpness * a for x, a in zip(logits, agree, strict=True)]
        np.testing.assert_allclose(found.vectors[user].detach().numpy(), np.stack(out), atol=1e-4)


def test_adaptive_mind_has_log2_of_the_items() -> None:
    config = Method.MIND.config(InterestsConfig(dim=6, interests=4))
    config = config.model_copy(update={"routing": config.routing.model_copy(update={"adaptive": True})})
    for items, interests in ((1, 1), (2, 1), (5, 2), (9, 3), (60, 4)):
        found = Capsules(config)(histories(unit(np.random.default_rng(items), 1, items, 6)))
        assert int(found.mask.sum()) == interests


def test_zero_logits_would_make_one_capsule_of_all() -> None:
    """Why MIND starts from random logits: with equal ones every capsule is the same."""
    capsules = Capsules(Method.MIND.config(InterestsConfig(dim=6, interests=3)))
    items = histories(unit(np.random.default_rng(6), 1, 10, 6))
    spread = capsules(items).vectors[0]
    assert (spread[0] - spread[1]).abs().max() > 1e-3
    capsules.noise.zero_()
    same = capsules(items).vectors[0]
    torch.testing.assert_close(same[0], same[1])


def test_the_last_mean_carries_the_gradient() -> None:
    items = torch.from_numpy(unit(np.random.default_rng(7), 1, 10, 6)).requires_grad_()
    capsules = Capsules(Method.DCM.config(InterestsConfig(dim=6, interests=3)))
    signs = torch.ones(1, 10, dtype=torch.int64)
    signs[0, 4] = -1
    capsules(Histories(items, signs, torch.zeros(1, 10), torch.zeros(1, 2).long())).vectors[
        0, 0
    ].sum().backward()
    assert items.grad is not None
    touched = items.grad[0].abs().sum(dim=1) > 0
    assert touched.any() and not touched[4] and not touched.all()


@pytest.mark.parametrize(("m", "d", "lasting"), [(70, 16, 16), (130, 20, 12)])
def test_sums_and_their_gradient_are_those_of_a_dense_product(m: int, d: int, lasting: int) -> None:
    rng = np.random.default_rng(m)
    seen, items = unit(rng, 4, m, lasting), torch.from_numpy(unit(rng, 4, m, d)).requires_grad_()
    valid = rng.random((4, m)) < 0.7
    valid[2] = False
    found = assign(seen, valid, np.zeros(4, np.int64), 5, 3, 8.0, summed=items.detach().numpy())
    home = torch.from_numpy(found.clusters).long()
    shares = torch.nn.functional.one_hot(home.clamp(min=0), 5) * torch.from_numpy(found.weights)[:, :, None]
    dense = torch.bmm(shares.transpose(1, 2), items)
    np.testing.assert_allclose(found.sums, dense.detach(), atol=1e-5)
    np.testing.assert_allclose(found.shares, shares.sum(dim=1), rtol=1e-5)
    gradient = torch.from_numpy(rng.standard_normal((4, 5, d)).astype(np.float32))
    dense.backward(gradient)
    np.testing.assert_allclose(spread(gradient.numpy(), found), items.grad, atol=1e-6)


def test_what_is_not_valid_may_be_anything() -> None:
    items = unit(np.random.default_rng(8), 2, 12, 6)
    signs = np.ones((2, 12), np.int64)
    signs[:, [2, 9]] = 0
    capsules = Capsules(Method.DCM.config(InterestsConfig(dim=6, interests=3)))
    expected = capsules(histories(items, signs)).vectors
    items[:, [2, 9]] = np.nan
    torch.testing.assert_close(capsules(histories(items, signs)).vectors, expected, rtol=0, atol=0)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        assign(np.zeros((2, 3, 4), np.float32), np.ones((2, 4), bool), np.zeros(2, np.int64), 2, 3, 8.0)
    with pytest.raises(ValueError, match="at least one iteration"):
        assign(np.zeros((2, 3, 4), np.float32), np.ones((2, 3), bool), np.zeros(2, np.int64), 2, 0, 8.0)
