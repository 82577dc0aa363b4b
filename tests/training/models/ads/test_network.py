"""The four layers by hand, whose rows train what, and ids in buckets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.ads.planted import planted_ads
from training.models.ads.config import DENSE, IDS, AdsModelConfig, Kind, buckets, embedding_dim
from training.models.ads.network import AdsNetwork
from training.models.ads.representation import Batch, HashEmbedding, Seen
from training.models.ads.rows import AdRows, source_id

CONFIG = AdsModelConfig(sources=("standard", "shopping"), heads=("click", "hide"), dropout=0.0)


@pytest.fixture(scope="module")
def rows() -> AdRows:
    return planted_ads(256).rows


def made(rows: AdRows, config: AdsModelConfig = CONFIG) -> AdsNetwork:
    torch.manual_seed(3)
    network = AdsNetwork(config, Seen.of(rows))
    network.representation.learn(rows)
    return network.eval()


def test_counts_are_logged_and_everything_is_standardised_or_squashed(rows: AdRows) -> None:
    network = made(rows)
    user = network.representation(Batch.of(rows))["user"].numpy()
    column = [i for i, f in enumerate(DENSE) if f.group == "user"][2]
    logged = np.log1p(rows.dense[:, column])
    np.testing.assert_allclose(user[:, 2], (logged - logged.mean()) / logged.std(), atol=1e-4)
    squashed = made(rows, CONFIG.model_copy(update={"count": "squash"}))
    user = squashed.representation(Batch.of(rows))["user"].numpy()
    z = (rows.dense[:, column] - rows.dense[:, column].mean()) / rows.dense[:, column].std()
    np.testing.assert_allclose(user[:, 2], z / (1 + np.abs(z)), atol=1e-4)
    assert {f.kind for f in DENSE} == {Kind.NUMERIC, Kind.COUNT}
    place = next(i for i, f in enumerate(DENSE) if f.kind is Kind.NUMERIC)
    columns = [i for i, f in enumerate(DENSE) if f.group == DENSE[place].group]
    z = (rows.dense[:, place] - rows.dense[:, place].mean()) / rows.dense[:, place].std()
    for numeric, wanted in (("standardise", z), ("squash", z / (1 + np.abs(z)))):
        network = made(rows, CONFIG.model_copy(update={"numeric": numeric}))
        group = network.representation(Batch.of(rows))[DENSE[place].group].detach().numpy()
        np.testing.assert_allclose(group[:, columns.index(place)], wanted, atol=1e-4)


def test_what_is_missing_counts_as_the_mean(rows: AdRows) -> None:
    network = made(rows)
    hole = AdRows(np.full_like(rows.dense[:1], np.nan), rows.ids[:1], rows.vectors[:1])
    groups = network.representation(Batch.of(hole))
    assert not groups["user"].any()
    assert not groups["meeting"].any()
    infinite = AdRows(np.full_like(rows.dense[:1], np.inf), rows.ids[:1], rows.vectors[:1])
    assert torch.isfinite(network(Batch.of(infinite), torch.tensor([0]))).all()


def test_the_cross_is_every_pair_of_groups_multiplied(rows: AdRows) -> None:
    network = made(rows)
    batch = Batch.of(rows)
    groups = network.representation(batch)
    summed = [torch.relu(network.summaries[g](x)) for g, x in groups.items()]
    parts = list(summed)
    for i in range(len(summed)):
        parts += [summed[i] * summed[j] for j in range(i + 1, len(summed))]
    hidden = torch.relu(network.bottom(torch.cat(parts, 1)))
    inner = torch.relu(network.inner[1](hidden))
    logits = network(batch, torch.ones(len(rows), dtype=torch.int64))
    torch.testing.assert_close(logits, network.outer[1](inner))
    plain = made(rows, CONFIG.model_copy(update={"cross": False}))
    assert plain.bottom.in_features == len(groups) * CONFIG.width


@pytest.mark.parametrize(("tower", "others"), [(0, (1,)), (1, (0,)), (2, (0, 1))])
def test_a_sources_rows_train_its_tower_and_the_bottom_and_no_other(
    rows: AdRows, tower: int, others: tuple[int, ...]
) -> None:
    network = made(rows).train()
    labels = torch.ones(len(rows), 2)
    network.loss(Batch.of(rows), torch.full((len(rows),), tower), labels).backward()
    assert network.bottom.weight.grad.abs().sum() > 0
    assert network.outer[tower].weight.grad.abs().sum() > 0
    assert network.outer[2].weight.grad.abs().sum() > 0  # the shared tower learns from everyone
    for other in others:
        assert network.outer[other].weight.grad is None


def test_the_shared_tower_leaves_the_bottom_to_the_sources(rows: AdRows) -> None:
    """The bottom's gradient is that of the source's own tower alone."""
    network = made(rows)
    batch, labels = Batch.of(rows), torch.ones(len(rows), 2)
    network.loss(batch, torch.zeros(len(rows), dtype=torch.int64), labels).backward()
    both = network.bottom.weight.grad.clone()
    network.zero_grad()
    logits = network.tower(0, network.hidden(batch))
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(rows)
    loss.backward()
    torch.testing.assert_close(network.bottom.weight.grad, both)


@pytest.mark.parametrize("distinct", [2, 50, 3_000])
def test_buckets_keep_collisions_below_what_is_asked(distinct: int) -> None:
    size, hashes = buckets(distinct, CONFIG)
    assert hashes == 1
    assert 1 - (1 - 1 / size) ** (distinct - 1) <= CONFIG.collisions
    table = HashEmbedding(distinct, CONFIG)
    ids = torch.arange(1, distinct + 1) * 7_919
    _, counts = np.unique(table.places(ids)[0].numpy(), return_counts=True)
    assert counts[counts > 1].sum() <= max(2, 1.5 * CONFIG.collisions * distinct)


def test_past_the_largest_table_two_hashes_tell_ids_apart() -> None:
    config = CONFIG.model_copy(update={"max_buckets": 1_024})
    assert buckets(5_000, config) == (1_024, 2)
    table = HashEmbedding(5_000, config)
    ids = torch.arange(1, 5_001)
    table.meet(ids)
    pairs = torch.stack(table.places(ids), 1).numpy()
    assert len(np.unique(pairs, axis=0)) > 4_950
    assert len(np.unique(table(ids).detach().numpy(), axis=0)) > 4_950


def test_ids_never_trained_and_absent_ids_say_nothing() -> None:
    table = HashEmbedding(100, CONFIG)
    table.meet(torch.arange(1, 50))
    free = [i for i in range(1_000, 1_200) if not table.trained[table.places(torch.tensor([i]))[0]].any()]
    assert free
    assert not table(torch.tensor([0, *free])).any()
    assert table(torch.tensor([7])).any()
    assert embedding_dim(10, CONFIG) <= embedding_dim(10_000, CONFIG) <= CONFIG.id_dim


def test_sources_have_numbers_of_their_own() -> None:
    names = ["standard", "shopping", "video", "", "a source nobody knows"]
    assert len({source_id(n) for n in names}) == len(names)
    assert all(0 < source_id(n) < 2**63 for n in names)


def test_a_network_comes_back_from_its_files(rows: AdRows, tmp_path: Path) -> None:
    network = made(rows)
    network.save(tmp_path)
    again = AdsNetwork.load(tmp_path)
    towers = torch.arange(len(rows)) % 3
    torch.testing.assert_close(again(Batch.of(rows), towers), network(Batch.of(rows), towers))
    assert again.config == CONFIG


def test_ids_can_be_left_out(rows: AdRows) -> None:
    network = made(rows, CONFIG.model_copy(update={"id_dim": 0}))
    assert "ids" not in network.representation(Batch.of(rows))
    assert len(IDS) == rows.ids.shape[1]


@pytest.mark.parametrize("bad", [{"sources": ("a", "a")}, {"heads": ()}, {"sources": ("shared",)}, {"wide": 3}])
def test_configurations_that_cannot_be_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"twice|at least one head|shared|Extra"):
        AdsModelConfig(**bad)
