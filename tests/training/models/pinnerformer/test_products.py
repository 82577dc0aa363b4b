"""Products by numpy are torch's, with their gradients, wherever they are asked for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_info
from torch import Tensor

from training.models.pinnerformer import products
from training.models.pinnerformer.products import Linear, product


@pytest.fixture(autouse=True)
def _faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "numpy_is_faster", lambda: True)
    monkeypatch.setattr(products, "WIDE", 1)


def drawn(*shape: int) -> Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))
    return made.requires_grad_()


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 7), (0, 7)])
def test_products_and_gradients_are_torchs(shape: tuple[int, ...]) -> None:
    x, weight = drawn(*shape), drawn(11, 7)
    made, wanted = (one(x, weight[2:9]) for one in (product, F.linear))
    assert "_Product" in str(made.grad_fn.next_functions[0][0])
    torch.testing.assert_close(made, wanted)
    turned = torch.randn(made.shape[::-1]).permute(*range(made.ndim)[::-1])  # not contiguous
    found, known = (torch.autograd.grad(y, (x, weight), turned) for y in (made, wanted))
    for a, b in zip(found, known, strict=True):
        torch.testing.assert_close(a, b)


def test_a_layer_has_torchs_weights_and_bias() -> None:
    torch.manual_seed(1)
    own, x = Linear(7, 4), drawn(3, 7)
    torch.manual_seed(1)
    plain = torch.nn.Linear(7, 4)
    plain.load_state_dict(own.state_dict())
    torch.testing.assert_close(own(x), plain(x))
    with torch.inference_mode():
        assert torch.equal(own(x), plain(x)), "without gradients the product is torch's"
    with torch.autocast("cpu", torch.bfloat16):
        assert own(x).dtype is plain(x).dtype is torch.bfloat16
    own, plain, x = own.bfloat16(), plain.bfloat16(), x.bfloat16()
    assert torch.equal(own(x), plain(x)), "rounded once, behind the bias"


def test_narrow_matrices_and_lower_precision_stay_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = drawn(3, 7), drawn(4, 7)
    monkeypatch.setattr(products, "WIDE", 5)
    assert torch.equal(product(x, weight), F.linear(x, weight))
    monkeypatch.setattr(products, "WIDE", 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert product(x, weight).dtype is torch.bfloat16
    assert product(x.bfloat16(), weight.bfloat16()).dtype is torch.bfloat16


def test_threads_are_torchs_and_left_as_they_were() -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    seen: list[list[int]] = []
    with pytest.MonkeyPatch.context() as patch, products._blas().limit(limits=2, user_api="blas"):
        before = threads()
        patch.setattr(torch, "get_num_threads", lambda: 1)
        patch.setattr(products.np, "matmul", lambda *_, out: seen.append(threads()))
        product(drawn(3, 7), drawn(4, 7))
        assert seen == [[1] * len(before)] and threads() == before == [2] * len(before)
