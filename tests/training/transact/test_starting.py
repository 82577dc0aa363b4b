"""Where a network begins: it compares before it has learned anything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.training.transact.planted import ACTIONS, GROUPS, pin_table, world
from training.evaluation.metrics import auc
from training.models.pinnability import FeatureSpec
from training.models.transact import Fusion, Head, SequenceConfig, TransAct, TransActConfig
from training.models.transact.network import seeded
from training.transact.examples import Examples, Known, PinTable
from training.transact.fitting import TransActRecipe, fit_transact
from training.transact.starting import AttentionStart, begun
from training.transact.trainer import TransActTraining

SPEC = FeatureSpec(user=(), pin=("actions_7d",), interactions=("cos_recent_max",))
SEQUENCE = SequenceConfig(
    length=6, k=2, action_dim=8, pin_dim=6, actions=3, layers=1, ffn=16, candidate_token=True, mask_hours=0
)
HEADS = (Head(action="save"), Head(action="hide"))
ROWS = 200


def examples() -> Examples:
    block, log = world(ROWS)
    return Examples.of(block, log, pin_table(), SPEC)


def network(known: Examples | None = None, **changes: object) -> TransAct:
    sequence = SequenceConfig.model_validate(SEQUENCE.model_dump() | changes)
    config = TransActConfig(spec=SPEC, sequence=sequence, heads=HEADS, cross_layers=1, deep=(16,), wide=True)
    return begun(config, known or examples(), ACTIONS, 0, AttentionStart()).eval()


def with_content(change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Examples:
    block, log = world(ROWS)
    table = pin_table()
    return Examples.of(block, log, PinTable(*change(table.ids, table.content)), SPEC)


def same(one: TransAct, other: TransAct) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@torch.no_grad()
def looked_at(net: TransAct, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (n, T) that the candidate's own token gives; the pins' groups (n, L), 0 for padding."""
    batch, module = examples().batch(rows, net.config), net.sequence
    pins, seen = net.pins(batch.content), module.visible(batch)
    candidates = pins[batch.candidates]
    x = module.tokens(batch, seen.order, pins, candidates)
    own = torch.nn.functional.pad(candidates, (module.config.width - module.config.pin_dim, 0)) + module.lead
    query, key, _ = module.layers[0].qkv(torch.cat([own[:, None], x], dim=1)).chunk(3, dim=2)
    mask = module.mask(seen.lengths + 1, module.config.places)
    scores = (query[:, :1] @ key.transpose(1, 2)) * module.config.width**-0.5 + mask
    places = examples()._newest(rows, module.config.length)[0]
    return scores.softmax(dim=2)[:, 0], torch.from_numpy(np.where(places > 0, 1 + (places - 1) % GROUPS, 0))


@pytest.mark.parametrize("fusion", [Fusion.CONCAT, Fusion.APPEND])
def test_attention_begins_with_pins_like_the_candidate_and_with_its_own_token_without_any(
    fusion: Fusion,
) -> None:
    rows = np.arange(ROWS)
    weights, groups = looked_at(network(fusion=fusion), rows)
    alike = groups == torch.from_numpy(1 + (examples().candidates[rows] - 1) % GROUPS)[:, None]
    there, found = alike.any(dim=1), (weights[:, 1 : 1 + groups.shape[1]] * alike).sum(dim=1)
    assert 0.2 < there.float().mean() < 0.8
    assert float(found[there].min()) > 0.9
    assert float(weights[~there, 0].min()) > 0.9


def test_added_parts_make_room_for_what_attention_finds() -> None:
    rows = np.arange(ROWS)
    begins = network(tokens="add", surface_dim=1, pin_dim=9, causal=True, positions=True)
    weights, groups = looked_at(begins, rows)
    alike = groups == torch.from_numpy(1 + (examples().candidates[rows] - 1) % GROUPS)[:, None]
    there, found = alike.any(dim=1), (weights[:, 1 : 1 + groups.shape[1]] * alike).sum(dim=1)
    assert float(found[there].min()) > 0.9 and float(weights[~there, 0].min()) > 0.9
    # pins leave the last third of their columns to kinds of action, the candidate's to what is found of them
    assert (begins.project.weight[6:] == 0).all() and (begins.project.weight[:6] != 0).any()
    kinds = begins.sequence.action.weight[1:].detach()
    assert (kinds[:, :6] == 0).all() and (kinds[:3].argmax(dim=1) == torch.tensor([6, 7, 6])).all()
    assert torch.equal(begins.sequence.layers[0].out.weight[15:17, :2], 2 * torch.eye(2))


@pytest.mark.parametrize("changes", [{"pin_dim": 5}, {"fusion": Fusion.APPEND}])
def test_added_parts_without_room_for_kinds_are_only_compared(changes: dict[str, object]) -> None:
    begins = network(tokens="add", **changes)
    drawn = seeded(begins.config, 8, 0)
    assert torch.equal(begins.sequence.action.weight, drawn.sequence.action.weight)
    assert not torch.equal(begins.sequence.layers[0].qkv.weight, drawn.sequence.layers[0].qkv.weight)


def test_pins_without_a_vector_leave_the_start_as_it_is() -> None:
    def more(ids: np.ndarray, content: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.append(ids, ids + len(ids)), np.append(content, np.zeros_like(content), axis=0)

    assert same(network(), network(with_content(more)))


@pytest.mark.parametrize("pins", [0, 1, 80])
def test_pins_that_are_all_alike_have_no_components(pins: int) -> None:
    def alike(ids: np.ndarray, content: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return ids[:pins], np.repeat(np.eye(8, dtype=np.float32)[:1], pins, axis=0)

    begins = network(with_content(alike))
    assert all(bool(value.isfinite().all()) for value in begins.state_dict().values())
    assert torch.equal(begins.project.weight, seeded(begins.config, 8, 0).project.weight)


def test_what_is_written_of_kinds_stays_in_the_first_head() -> None:
    # width 36 in 12 heads of 3: more kinds than columns of a head
    begins = network(action_dim=24, heads=12)
    drawn, layer = seeded(begins.config, 8, 0).sequence.layers[0], begins.sequence.layers[0]
    rows = [part * begins.config.sequence.width + at for part in range(3) for at in range(3, 36)]
    assert torch.equal(layer.qkv.weight[rows], drawn.qkv.weight[rows])
    assert torch.equal(layer.out.weight[:12, 3:], drawn.out.weight[:12, 3:])
    network(action_dim=24, heads=36)  # a head of one column has no room to compare


@pytest.mark.parametrize("wrong", [{"sharpness": np.inf}, {"threshold": np.nan}, {"sharpness": 0.0}])
def test_a_start_is_of_finite_numbers(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        AttentionStart(**wrong)


def test_few_rows_are_enough_for_what_attention_begins_with() -> None:
    block, log = world(500)
    unseen, beside = world(1000, 99)
    found = []
    for start in (AttentionStart(), None):
        recipe = TransActRecipe(
            sequence=SEQUENCE,
            cross_layers=1,
            deep=(16,),
            training=TransActTraining(batch_rows=32, learning_rate=5e-3, bfloat16=False),
            attention_start=start,
            min_positives=20,
            max_epochs=4,
        )
        made = fit_transact(block, Known(log, pin_table()), ACTIONS, SPEC, recipe, seed=0).ranker
        rows = Examples.of(unseen, beside, pin_table(), SPEC).batch(np.arange(1000), made.network.config)
        with torch.no_grad():
            scores = made.network(rows).numpy()
        found.append([auc(unseen.labels[:, column], scores[:, column - 1]) for column in (1, 2)])
    assert min(found[0]) > 0.95 > max(found[1])
