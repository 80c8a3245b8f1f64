"""What a model makes of texts: batches without waste, logits only where they count."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from dsel.errors import ConfigError
from dsel.model import flops
from dsel.model.chat import IGNORED
from dsel.model.fast_linear import fast_linear

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Encoded = tuple[list[int], list[int]]
"""Token ids, and for each the id again where it counts, else -100 (`dsel.model.chat.encode`)."""

Done = TypeVar("Done")

TOKENS_ON_CPU = 1024  # of a batch: enough to keep two cores busy, and more means more padding and less use of the cache
LOGITS_ON_CPU, LOGITS_ELSEWHERE = 2**23, 2**27  # that exist at once: 32 MB and half a gigabyte in float32
RESCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")  # models that do more after the head
SEPARABLE = ("full_attention", "sliding_attention")  # layers that flash attention keeps to one text of a row


def mean_nll(model: Any, encoded: Sequence[Encoded], *, tokens_a_batch: int = 8192) -> npt.NDArray[np.float64]:
    """Mean loss in nats over the labelled tokens of each text, float64[n]; NaN for a text without any.

    A label on a text's first token has nothing before it and does not count. Logits are computed at labelled positions
    only, their softmax in float32. `tokens_a_batch` is a limit: the CPU takes fewer, and batches get smaller when
    memory runs out. Raises `ConfigError` when a single text is too much for it.
    """
    import torch

    out = np.full(len(encoded), np.nan)
    texts = [predicted(*text) for text in encoded]
    kept = [i for i, (ids, _) in enumerate(texts) if ids]
    arrange = packed if packs(model) else padded_pairs

    def losses(rows: list[int]) -> list[float]:
        batch = [texts[kept[row]] for row in rows]
        with torch.inference_mode():
            ids, targets, bounds = arrange(batch, model.device)
            counted, parts = targets != IGNORED, []
            wanted = targets[counted]
            for logits in logits_at(model, ids, None, counted, **bounds):
                parts.append(torch.nn.functional.cross_entropy(logits, wanted[: len(logits)], reduction="none"))
                wanted = wanted[len(logits) :]
            values = torch.cat(parts).cpu().double().numpy()
        ends = np.cumsum([sum(label != IGNORED for label in labels) for _, labels in batch])
        return [part.mean() for part in np.split(values, ends[:-1])]

    if model.device.type == "cpu":
        tokens_a_batch = min(tokens_a_batch, TOKENS_ON_CPU)
    with fast_linear(model):
        for rows, found in in_batches(losses, [len(texts[i][0]) for i in kept], tokens_a_batch):
            out[[kept[row] for row in rows]] = found
    flops.read(model, sum(len(ids) for ids, _ in texts))
    return out


def predicted(ids: list[int], labels: list[int]) -> Encoded:
    """What of a text has to be read, and the label of the token after each: nothing from the last labelled one on."""
    last = max((t for t, label in enumerate(labels) if label != IGNORED), default=0)
    return ids[:last], labels[1 : last + 1]


def logits_at(
    model: Any, ids: torch.Tensor, mask: torch.Tensor | None, where: torch.Tensor, **more: Any
) -> Iterator[torch.Tensor]:
    """Next-token logits, float32[m, vocabulary] in slices, at the m positions where `where` (bool[b, t]) is true.

    ids: int64[b, t], padded on the right, where a causal model needs no mask to keep padding from what counts; `more`
    as from `packed`. The vocabulary projection runs at these positions only, except for models that rescale logits
    after it.
    """
    causal, backbone, head = parts_of(model)
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False, **more}
    rows = at_once(causal)
    if rescales(causal):
        yield from (part.float() for part in causal(**inputs).logits[where].split(rows))
        return
    for part in backbone(**inputs).last_hidden_state[where].split(rows):
        yield head(part).float()


def parts_of(model: Any) -> tuple[Any, Any, Any]:
    """The causal model without an adapter's wrapper, what of it makes hidden states, and what makes logits of them."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    return causal, getattr(causal, causal.base_model_prefix), causal.get_output_embeddings()


def rescales(causal: Any) -> bool:
    """Whether it does more to logits after the head."""
    return any(getattr(causal.config, name, None) for name in RESCALED)


def at_once(causal: Any) -> int:
    """For how many positions there should be logits at a time."""
    size = LOGITS_ON_CPU if causal.device.type == "cpu" else LOGITS_ELSEWHERE
    return max(1, size // causal.get_output_embeddings().weight.shape[0])


def packs(model: Any) -> bool:
    """Whether the texts of a batch can stand in one row, without padding: see `packed`.

    So it is with flash attention on CUDA, in models whose tokens meet in attention only. torch's own attention would
    turn the packing into a mask of all tokens against all: there, padding without a mask is faster, as it is what its
    flash kernel takes.
    """
    causal, backbone, _ = parts_of(model)
    return (
        causal.device.type == "cuda"
        and "flash" in str(causal.config._attn_implementation)
        and set(getattr(causal.config, "layer_types", None) or SEPARABLE) <= set(SEPARABLE)
        and not getattr(causal, "_is_stateful", False)
        and "position_ids" in inspect.signature(backbone.forward).parameters
    )


def packed(texts: Sequence[Encoded], device: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """All texts in one row: ids and labels, int64[1, t] each, and what tells the model where a text begins.

    Positions that start again at 0 say so to any attention of transformers; with the bounds of the texts given too,
    flash attention need not look for them in every layer.
    """
    import torch

    ids, labels = (torch.tensor([list(chain.from_iterable(side))]) for side in zip(*texts))
    lengths = [len(text) for text, _ in texts]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=device)
    longest = max(lengths)
    return (
        ids.to(device),
        labels.to(device),
        {
            "position_ids": positions.to(device),
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": longest,
            "max_length_k": longest,
        },
    )


def padded_pairs(texts: Sequence[Encoded], device: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Ids and labels, int64[b, t] each, padded on the right; nothing more to tell the model."""
    ids, labels = zip(*texts)
    return padded(ids, device)[0], padded(labels, device, fill=IGNORED)[0], {}


def in_batches(
    work: Callable[[list[int]], Done], lengths: Sequence[int], tokens: int
) -> Iterator[tuple[list[int], Done]]:
    """(rows, work(rows)) for all indices of `lengths`, longest first, at most `tokens` with padding at a time.

    A single row may have more. When memory runs out, this and the following batches are half as large. Raises
    `ConfigError` when it does so on a single row.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        longest = lengths[order[0]]
        rows = order[: max(1, tokens // max(1, longest))]
        try:
            done = [work(rows)]
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(rows) == 1:
                raise ConfigError(
                    f"out of memory on a single text of {longest} tokens: give a smaller maximum length, model or "
                    f"dtype, or a larger device ({str(error).splitlines()[0]})"
                ) from error
            done = []
        # The error is gone by here, and with it the frames that held the failed batch's tensors.
        if done:
            yield rows, done[0]
            order = order[len(rows) :]
        else:
            from accelerate.utils.memory import clear_device_cache

            clear_device_cache(garbage_collection=True)
            tokens = longest * (len(rows) // 2)
            log.warning("out of memory with %d texts of up to %d tokens: half as many", len(rows), longest)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether this is an allocator's refusal, of an accelerator or of the CPU."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return (
        isinstance(error, torch.OutOfMemoryError)
        or should_reduce_batch_size(error)
        or "not enough memory" in str(error)  # the CPU's allocator on systems that are not Linux
    )


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """The indices of `lengths`, longest first, in batches of at most `tokens` with padding (or of a single text)."""
    return [rows for rows, _ in in_batches(lambda rows: None, lengths, tokens)]


def padded(rows: Sequence[list[int]], device: Any, fill: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """`rows` padded on the right with `fill`, and the mask of what is not padding: int64[b, t] each."""
    import torch

    shape = (len(rows), max(1, max(map(len, rows))))
    ids, mask = torch.full(shape, fill), torch.zeros(shape, dtype=torch.long)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = torch.tensor(values, dtype=torch.long)
        mask[row, : len(values)] = 1
    return ids.to(device), mask.to(device)
