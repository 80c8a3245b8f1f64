"""The same products, from the other library, and a model that is afterwards what it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dsel.model.fast_linear import fast_linear


@pytest.fixture
def model() -> Any:
    """With and without bias, twice the same layer, and a layer of a kind of its own."""

    class Doubled(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            return 2 * super().forward(x)

    torch.manual_seed(0)
    shared = torch.nn.Linear(40, 40)
    return torch.nn.Sequential(
        torch.nn.Linear(24, 40), shared, torch.nn.Linear(40, 40, bias=False), shared, Doubled(40, 7)
    ).eval()


def replaced(model: Any) -> list[bool]:
    return ["forward" in layer.__dict__ for layer in model]


@pytest.mark.parametrize("shape", [(24,), (1, 24), (3, 24), (2, 5, 24), (300, 24), (0, 24)])
def test_products_are_the_same(model: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    with torch.inference_mode():
        expected = model(x)
        with fast_linear(model):
            assert replaced(model) == [True, True, True, True, False]  # of its own kind: left alone
            assert torch.allclose(model(x), expected, atol=1e-5)
            assert torch.allclose(model(x.expand(2, *shape).transpose(0, -2)).transpose(0, -2)[0], expected, atol=1e-5)
    assert not any(replaced(model))
    assert torch.equal(model(x), expected)


def test_weights_of_the_moment_count(model: Any) -> None:
    x = torch.randn(3, 24)
    with torch.no_grad():
        with fast_linear(model):
            model(x)
        for weights in model.parameters():
            weights.mul_(1.5)
        expected = model(x)
        with fast_linear(model):
            assert torch.allclose(model(x), expected, atol=1e-4)


def test_gradients_are_recorded_as_ever(model: Any) -> None:
    x = torch.randn(3, 24)
    model(x).sum().backward()
    expected = [weights.grad.clone() for weights in model.parameters()]
    model.zero_grad()
    with fast_linear(model):
        model(x).sum().backward()
    assert all(torch.equal(weights.grad, grad) for weights, grad in zip(model.parameters(), expected))


def test_other_dtypes_and_nested_calls_are_left_alone(model: Any) -> None:
    with fast_linear(model):
        mine = [layer.__dict__.get("forward") for layer in model]
        with fast_linear(model):
            assert [layer.__dict__.get("forward") for layer in model] == mine
        assert [layer.__dict__.get("forward") for layer in model] == mine
    with fast_linear(model.to(torch.bfloat16)):
        assert not any(replaced(model))


def test_autocast_chooses_the_precision_as_ever(model: Any) -> None:
    x = torch.randn(3, 24)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(x)
        with fast_linear(model):
            found = model(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)


def test_an_error_inside_leaves_no_trace(model: Any) -> None:
    with pytest.raises(ZeroDivisionError), fast_linear(model):
        raise ZeroDivisionError
    assert not any(replaced(model))
