"""The gradient that each example alone would give, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsel.arrays import Floats
from dsel.errors import need
from dsel.model import flops
from dsel.model.chat import IGNORED
from dsel.model.fast_linear import fast_linear, has_onednn, is_plain, products
from dsel.model.likelihood import Encoded, at_once, in_batches, padded_pairs, parts_of, predicted, rescales
from dsel.spent import spend

if TYPE_CHECKING:
    import torch

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam
TOKENS_ON_CPU = 1024  # of a batch
SIGNS = np.where(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1), 1, -1).astype(np.float32)  # of a byte

STRETCH = 128  # rows of the matrix that a processor's cache holds

Sink = Callable[[str, "torch.Tensor"], None]


def trained(model: Any) -> dict[str, int]:
    """The parameters that are trained, by name, and how many numbers each has: the order of what gradients hold."""
    return {name: p.numel() for name, p in sorted(model.named_parameters()) if p.requires_grad}


def per_example(
    model: Any, encoded: Sequence[Encoded], *, tokens_a_batch: int = 8192, checkpointing: bool = False
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Gradients of the mean loss over each text's labelled tokens, with respect to what is `trained`.

    An example's gradient of a linear layer is the sum over its tokens of output gradient times input, so that one pass
    forward and backward over a batch gives all of them: the loss of a batch is the sum of its texts' own. The model
    computes as in evaluation, without dropout.

    Args:
        model: a causal model, whose trained parameters are the weights of linear layers below the head, as LoRA's are.
        encoded: the texts; one without a label has the gradient zero.
        tokens_a_batch: at most so many at once, with padding; the CPU takes fewer, and batches get smaller when memory
            runs out.
        checkpointing: compute layers again on the way back instead of keeping what they computed.

    Yields:
        (rows, float32[rows, p]), longest texts first; p is the sum of `trained`.

    Raises:
        ConfigError: for trained parameters of any other kind, and for a single text that is too much for memory.
    """
    import torch

    sizes = trained(model)
    texts = [predicted(*text) for text in encoded]
    if model.device.type == "cpu":
        tokens_a_batch = min(tokens_a_batch, TOKENS_ON_CPU)
    told: dict[str, torch.Tensor] = {}

    def keep(name: str, found: torch.Tensor) -> None:
        told[name] = told[name] + found if name in told else found

    def gradients(rows: list[int]) -> torch.Tensor:
        told.clear()
        there = [k for k, row in enumerate(rows) if texts[row][0]]
        if not there:
            return torch.zeros(len(rows), sum(sizes.values()), device=model.device)
        with _checkpointed(model, checkpointing):
            _backward(model, [texts[rows[k]] for k in there])
        tokens = sum(len(texts[rows[k]][0]) for k in there)
        spend(flops.training(model, tokens, again=checkpointing), tokens)
        unread = torch.zeros(len(there), 1, device=model.device)
        parts = [told.pop(name, unread.expand(-1, size)).flatten(1).float() for name, size in sizes.items()]
        found = torch.cat(parts, dim=1)
        if len(there) == len(rows):
            return found
        return found.new_zeros(len(rows), found.shape[1]).index_copy_(
            0, torch.tensor(there, device=found.device), found
        )

    with _watched(model, keep):
        yield from in_batches(gradients, [len(ids) for ids, _ in texts], tokens_a_batch)


def _backward(model: Any, texts: list[Encoded]) -> None:
    """One pass over a batch, whose loss is the sum of the mean losses of its texts."""
    import torch

    ids, targets, _ = padded_pairs(texts, model.device)
    counted = targets != IGNORED
    weight = (counted / counted.sum(dim=1, keepdim=True))[counted]
    wanted, inputs = targets[counted], {"input_ids": ids, "use_cache": False}
    causal, backbone, head = parts_of(model)
    with torch.enable_grad():
        if rescales(causal):
            losses = torch.nn.functional.cross_entropy(
                causal(**inputs).logits[counted].float(), wanted, reduction="none"
            )
            (losses * weight).sum().backward()
            return
        hidden = backbone(**inputs).last_hidden_state[counted]
        below = torch.empty_like(hidden)
        for part in torch.arange(len(hidden), device=hidden.device).split(at_once(causal)):  # so many logits at a time
            leaf = hidden[part].detach().requires_grad_()
            losses = torch.nn.functional.cross_entropy(head(leaf).float(), wanted[part], reduction="none")
            (below[part],) = torch.autograd.grad((losses * weight[part]).sum(), leaf)
        hidden.backward(below)


@contextmanager
def _watched(model: Any, keep: Sink) -> Iterator[None]:
    """Inside, the linear layers that are trained hand their gradients, example by example, to `keep`.

    Where everything is float32, a layer and its LoRA compute as the one layer that they are together: one product there
    and one back, and no sum of two results.
    """
    layers = _layers(model)
    pairs = {} if _in_low_precision(model) else _pairs(model, layers)
    replaced = []
    try:
        for wrapper, (a, b) in pairs.items():
            wrapper.forward = partial(_merged(wrapper).apply, layers[a].weight, partial(keep, a), partial(keep, b))
            replaced.append(wrapper)
        taken = {name for pair in pairs.values() for name in pair}
        for name, layer in layers.items():
            if name not in taken:
                layer.forward = partial(_linear().apply, layer.weight, partial(keep, name))
                replaced.append(layer)
        with fast_linear(model, backward=True, but={wrapper.get_base_layer() for wrapper in pairs}):
            yield
    finally:
        for layer in replaced:
            layer.__dict__.pop("forward", None)


def _in_low_precision(model: Any) -> bool:
    import torch

    return torch.is_autocast_enabled(model.device.type)


def _pairs(model: Any, layers: Mapping[str, torch.nn.Linear]) -> dict[Any, tuple[str, str]]:
    """The layers with an ordinary LoRA of float32, and the names of its two parameters, A's and B's."""
    import torch
    from peft.tuners.lora import Linear

    found: dict[Any, tuple[str, str]] = {}
    for prefix, wrapper in model.named_modules():
        if type(wrapper) is not Linear or len(wrapper.active_adapters) != 1 or wrapper.lora_variant:
            continue
        adapter, base = wrapper.active_adapters[0], wrapper.get_base_layer()
        a, b = (f"{prefix}.lora_{side}.{adapter}.weight" for side in "AB")
        plain = a in layers and b in layers and not wrapper.merged and not wrapper.disable_adapters
        whole = type(base) is torch.nn.Linear and "forward" not in base.__dict__ and not base.weight.requires_grad
        if plain and whole and all(w.dtype == torch.float32 for w in (base.weight, layers[a].weight, layers[b].weight)):
            found[wrapper] = a, b
    return found


def _merged(wrapper: Any) -> Any:
    """x ↦ x (W + sBA)ᵀ, which tells on its way back what the gradients of A and B are for each row of the batch.

    With y = x (W + sBA)ᵀ they are s(gB)ᵀx and sgᵀ(xAᵀ) for the gradient g of y.
    """
    import torch

    adapter, base = wrapper.active_adapters[0], wrapper.get_base_layer()
    a, b = (side[adapter].weight.detach() for side in (wrapper.lora_A, wrapper.lora_B))
    scale, bias = wrapper.scaling[adapter], None if base.bias is None else base.bias.detach()
    weight = base.weight.detach() + scale * (b @ a)
    if is_plain(base) and has_onednn():
        there, back = products(weight, bias)
    else:
        there, back = (lambda x: torch.nn.functional.linear(x, weight, bias)), (lambda above: above @ weight)

    class Merged(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, trained: Any, keep_a: Any, keep_b: Any, x: Any
        ) -> Any:  # autograd comes back by `trained`
            ctx.save_for_backward(x)
            ctx.keep = keep_a, keep_b
            return there(x)

        @staticmethod
        def backward(ctx: Any, *outputs: Any) -> Any:
            ((x,), (above,), (keep_a, keep_b)) = ctx.saved_tensors, outputs, ctx.keep
            keep_a((above @ b).mul_(scale).mT @ x)
            keep_b(above.mT @ (x @ a.T).mul_(scale))
            return None, None, None, back(above) if ctx.needs_input_grad[3] else None

    return Merged


def _layers(model: Any) -> dict[str, torch.nn.Linear]:
    """The layer of each trained parameter, by the parameter's name."""
    import torch

    modules = dict(model.named_modules())
    found, others = {}, []
    for name in trained(model):
        layer = modules[name.rpartition(".")[0]]
        plain = type(layer) is torch.nn.Linear and layer.bias is None and name.endswith(".weight")
        if plain and "forward" not in layer.__dict__:
            found[name] = layer
        else:
            others.append(name)
    need(bool(found), "gradients are of LoRA's parameters, and this model has none that are trained: set trainer.lora")
    need(
        not others,
        f"gradients of each example are of linear layers without bias, as LoRA's are; {', '.join(others[:3])} "
        f"{'is' if len(others) == 1 else 'are'} trained too: no DoRA, no bias, no module beside LoRA",
    )
    return found


def _linear() -> Any:
    """x ↦ x Wᵀ, which tells on its way back what the gradient of W is for each row of the batch."""
    global _Linear
    if _Linear is None:
        import torch

        class Linear(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, weight: Any, keep: Any, x: Any) -> Any:
                ctx.save_for_backward(x, weight)
                ctx.keep = keep
                return torch.nn.functional.linear(x, weight)

            @staticmethod
            def backward(ctx: Any, *outputs: Any) -> Any:
                x, weight = ctx.saved_tensors
                (above,) = outputs
                ctx.keep(torch.einsum("bto,bti->boi", above, x))
                return None, None, above @ weight if ctx.needs_input_grad[2] else None

        _Linear = Linear
    return _Linear


_Linear: Any = None


@contextmanager
def _checkpointed(model: Any, wanted: bool) -> Iterator[None]:
    """Evaluation mode; where it is `wanted`, with layers that are computed again on the way back."""
    import torch

    if not wanted:
        model.eval()
        yield
        return
    with ExitStack() as after:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        after.callback(model.eval)
        after.callback(model.gradient_checkpointing_disable)
        model.train()  # transformers checkpoints in training alone
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
        yield


def adam_steps(
    gradients: torch.Tensor, moments: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, int], *, eps: str
) -> torch.Tensor:
    """The step that Adam would take with each gradient, in place: Γ of LESS (Xia et al. 2024, §3.1), float32[n, p].

    There is no bias correction. A gradient of zero, of an example without a label, stays one: Adam would step on by
    what it holds of others, which points where training goes and would be taken for a very good example.

    moments: `exp_avg` and `exp_avg_sq` of each parameter, by name; one without has had no gradient. sizes: of
    `trained`. eps: added to the root, as Adam has it (`paper`), or under it (`code`), which changes much, as most
    parameters' roots are of its size.
    """
    import torch

    nothing = ~gradients.any(dim=1)
    for name, part in zip(sizes, gradients.split(list(sizes.values()), dim=1), strict=True):
        none = torch.zeros(sizes[name])
        kept = moments.get(name, {})
        first, second = (torch.as_tensor(kept.get(key, none)).flatten().to(part) for key in ("exp_avg", "exp_avg_sq"))
        square = (BETA2 * second).addcmul(part, part, value=1 - BETA2)
        root = square.sqrt_().add_(EPSILON) if eps == "paper" else square.add_(EPSILON).sqrt_()
        part.mul_(1 - BETA1).add_(BETA1 * first).div_(root)
    gradients[nothing] = 0
    return gradients


class Projection:
    """A random matrix of ±1, [p, dimensions], that is never there as a whole: block after block, from a seed.

    Inner products, and so cosines, of projected vectors are on average those of the vectors (Johnson & Lindenstrauss),
    but for a factor that is the same for all. `dimensions` is a multiple of 8.
    """

    def __init__(self, p: int, dimensions: int, seed: int, *, rows: int = 1024):
        self.p, self.dimensions, self.seed, self.rows = p, dimensions, seed, rows

    def block(self, start: int) -> Floats:
        """The rows of the matrix from `start`, a multiple of the size of a block: float32[rows, dimensions] of ±1."""
        drawn = self._bits(start)
        return np.take(SIGNS, drawn, axis=0, mode="clip").reshape(len(drawn), self.dimensions)

    def _bits(self, start: int) -> NDArray[np.uint8]:
        """The same, as bits: uint8[rows, dimensions / 8]."""
        rows = min(self.rows, self.p - start)
        rng = np.random.Generator(np.random.SFC64([self.seed, self.dimensions, start]))
        drawn = bytearray(rng.bytes(rows * self.dimensions // 8))  # which may be written to, as torch wants it
        return np.frombuffer(drawn, dtype=np.uint8).reshape(rows, -1)

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """float32[n, p] → float32[n, dimensions]; the larger n is, the less making the matrix costs."""
        import torch

        out = torch.zeros(len(vectors), self.dimensions, device=vectors.device)
        signs = torch.from_numpy(SIGNS).to(vectors.device)
        step = STRETCH if vectors.device.type == "cpu" else self.rows
        room = signs.new_empty(step * self.dimensions // 8, 8)
        for start in range(0, self.p, self.rows):
            drawn = torch.from_numpy(self._bits(start)).to(vectors.device)
            for first in range(0, len(drawn), step):
                some = drawn[first : first + step]
                block = torch.index_select(signs, 0, some.flatten().int(), out=room[: some.numel()])
                columns = vectors[:, start + first : start + first + len(some)]
                out.addmm_(columns, block.view(len(some), self.dimensions))
        spend(2.0 * len(vectors) * self.p * self.dimensions)
        return out
