import pytest
import torch

from training.models.pinsage.loss import allowed_negatives, max_margin_loss


def test_loss_by_hand() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    positives = torch.tensor([[0.5, 0.0], [0.0, 1.0]])
    negatives = torch.tensor([[0.45, 2.0], [0.0, 0.95]])
    everything = torch.ones(2, 2, dtype=torch.bool)
    # query 0: 0.45 - 0.5 + 0.1 = 0.05, 0 - 0.5 + 0.1 < 0; query 1: 2 - 1 + 0.1 = 1.1, 0.95 - 1 + 0.1 = 0.05
    loss = max_margin_loss(queries, positives, negatives, everything, 0.1)
    assert loss.item() == pytest.approx((0.05 + 1.1 + 0.05) / 4)
    own = negatives.expand(2, 2, 2)
    assert max_margin_loss(queries, positives, own, everything, 0.1).item() == pytest.approx(loss.item())


def test_masked_pairs_do_not_count_and_nothing_allowed_costs_nothing() -> None:
    queries = positives = torch.ones(1, 2)
    negatives = torch.tensor([[9.0, 9.0], [0.0, 0.0]])
    allowed = torch.tensor([[False, True]])
    assert max_margin_loss(queries, positives, negatives, allowed, 0.1).item() == 0.0
    assert max_margin_loss(queries, positives, negatives, allowed & False, 0.1).item() == 0.0


def test_the_query_and_every_duplicate_of_its_positive_are_no_negatives() -> None:
    allowed = allowed_negatives(torch.tensor([1, 2]), torch.tensor([5, 6]), torch.tensor([5, 6, 1, 5, 9]))
    assert allowed.tolist() == [[False, True, False, False, True], [True, False, True, True, True]]
    own = allowed_negatives(torch.tensor([1]), torch.tensor([5]), torch.tensor([[-1, 5, 7]]))
    assert own.tolist() == [[False, False, True]]
