"""Matrix products of a model on the CPU, about twice as fast."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Product = Callable[["torch.Tensor"], "torch.Tensor"]


@contextmanager
def fast_linear(model: Any, *, backward: bool = False, but: Container[Any] = ()) -> Iterator[None]:
    """Inside, float32 linear layers on the CPU compute in oneDNN, from a copy of their weights in its own layout.

    torch gives such products to MKL, which uses half of an AMD processor's width: 0.23 TFLOP/s on two cores that do
    0.55 here. The layout is made once, so that a few rows at a time, as in decoding, gain too. Results differ in
    rounding, as between any two libraries. Elsewhere (other devices and dtypes, quantised layers, torch without MKL or
    oneDNN), where gradients are recorded and under autocast, everything stays as it was. The copy takes as much memory
    as the layers.

    backward: for gradients that go through layers which are not trained, in both directions; that takes two copies.
    but: layers that stay as they are.
    """
    layers = [layer for layer in model.modules() if is_plain(layer) and has_onednn() and layer not in but]
    if backward:
        layers = [layer for layer in layers if not layer.weight.requires_grad]
    try:
        for layer in layers:
            layer.forward = _both_ways(layer) if backward else _in_onednn(layer)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def has_onednn() -> bool:
    """Whether torch takes float32 products on the CPU by MKL, and could by oneDNN."""
    import torch

    return torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def is_plain(layer: Any) -> bool:
    """Whether it is torch's own linear layer, in float32 on the CPU, and nobody has replaced its `forward`."""
    import torch

    return (
        type(layer) is torch.nn.Linear
        and "forward" not in layer.__dict__
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
    )


def _in_onednn(layer: torch.nn.Linear) -> Product:
    import torch

    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)
    product = torch.ops.mkldnn._linear_pointwise
    bias = None if layer.bias is None else layer.bias.detach()

    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.float32 or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return torch.nn.functional.linear(x, layer.weight, layer.bias)
        result: torch.Tensor = product(x, weight, bias, "none", [], "")
        return result

    return forward


def products(weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[Product, Product]:
    """x ↦ x Wᵀ + b and y ↦ y W for a float32 W on the CPU, each from a copy of W in oneDNN's layout."""
    import torch

    pack, product = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
    there, back = pack(weight, None), pack(weight.T.contiguous(), None)

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = product(x, there, bias, "none", [], "")
        return result

    def backward(above: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = product(above.contiguous(), back, None, "none", [], "")
        return result

    return forward, backward


def _both_ways(layer: torch.nn.Linear) -> Product:
    import torch

    there, back = products(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())

    class Frozen(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return there(x)

        @staticmethod
        def backward(ctx: Any, *above: torch.Tensor) -> torch.Tensor:
            return back(above[0])

    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return torch.nn.functional.linear(x, layer.weight, layer.bias)
        result: torch.Tensor = Frozen.apply(x)
        return result

    return forward
