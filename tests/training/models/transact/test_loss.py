"""The loss is the sum a loop makes; a row without any action teaches."""

from __future__ import annotations

import math

import pytest
import torch

from training.models.transact import Head
from training.models.transact.loss import label_matrix, multi_task_loss, row_weights

ACTIONS = ("click", "save", "hide")
HEADS = (
    Head(action="click", weights={"click": 100, "save": 0, "hide": 100}, other=0, base=2),
    Head(action="save", weights={"click": 0, "save": 100, "hide": 100}, base=3),
    Head(action="hide", weights={"click": 1, "save": 5, "hide": 10}, base=0.5),
)


def test_the_loss_is_what_a_loop_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(30, 3, generator=generator) < 0.3).to(torch.int8)
    labels[0] = 0
    labels[1] = 1
    logits, users = torch.randn(30, 3, generator=generator), torch.rand(30, generator=generator) + 0.5
    total = 0.0
    for b in range(30):
        for head, h in zip(HEADS, range(3), strict=True):
            acted = [a for a, name in enumerate(ACTIONS) if labels[b, a]]
            weight = sum(head.weights[ACTIONS[a]] for a in acted) if acted else head.base
            f = 1 / (1 + math.exp(-float(logits[b, h])))
            y = int(labels[b, ACTIONS.index(head.action)])
            total -= float(users[b]) * weight * (y * math.log(f) + (1 - y) * math.log(1 - f))
    made = multi_task_loss(logits, labels, *label_matrix(HEADS, ACTIONS), users)
    assert float(made) == pytest.approx(total / 30, rel=1e-5)


def test_even_weights_are_the_plain_sum_of_log_losses() -> None:
    heads = tuple(Head(action=a) for a in ("hide", "click"))
    labels = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]])
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.1], [-0.4, -0.2], [0.0, 1.5]])
    wanted = sum(
        torch.nn.functional.binary_cross_entropy_with_logits(logits[:, i], labels[:, c].float())
        for i, c in ((0, 2), (1, 0))
    )
    assert float(multi_task_loss(logits, labels, *label_matrix(heads, ACTIONS))) == pytest.approx(float(wanted))


def test_a_row_without_action_teaches_by_its_base_weight() -> None:
    labels, logits = torch.zeros(1, 3), torch.zeros(1, 3, requires_grad=True)
    matrix, base, columns = label_matrix(HEADS, ACTIONS)
    assert row_weights(labels, matrix, base).tolist() == [[2.0, 3.0, 0.5]]
    multi_task_loss(logits, labels, matrix, base, columns).backward()
    assert logits.grad.tolist() == [[1.0, 1.5, 0.25]]  # w (sigmoid(0) - 0)
    silent = tuple(head.model_copy(update={"base": 0.0}) for head in HEADS)
    assert multi_task_loss(logits, labels, *label_matrix(silent, ACTIONS)).item() == 0.0


def test_heads_that_labels_lack_are_named() -> None:
    with pytest.raises(ValueError, match="'repin'; labels hold: click, save, hide"):
        label_matrix([Head(action="repin")], ACTIONS)
    with pytest.raises(ValueError, match="'closeup'"):
        label_matrix([Head(action="save", weights={"closeup": 1})], ACTIONS)
    with pytest.raises(ValueError, match="negative"):
        Head(action="save", weights={"hide": -1})
