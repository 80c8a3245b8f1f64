"""What a model makes of texts: batches without waste, logits only where they count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel.model.chat import IGNORED

if TYPE_CHECKING:
    import torch

Encoded = tuple[list[int], list[int]]
"""Token ids, and for each the id again where it counts, else -100 (`dsel.model.chat.encode`)."""

POSITIONS_A_SLICE = 2048  # logits that exist at once in `mean_nll`, in rows of the vocabulary's size
RESCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")  # models that do more after the head


def mean_nll(model: Any, encoded: Sequence[Encoded], *, tokens_a_batch: int = 8192) -> npt.NDArray[np.float64]:
    """Mean loss in nats over the labelled tokens of each text, float64[n]; NaN for a text without any.

    A label on a text's first token has nothing before it and does not count. Logits are computed at labelled positions
    only, their softmax in float32.
    """
    import torch

    out = np.full(len(encoded), np.nan)
    with torch.inference_mode():
        for rows in batches([len(ids) for ids, _ in encoded], tokens_a_batch):
            ids, mask = padded([encoded[i][0] for i in rows], model.device)
            targets = padded([encoded[i][1] for i in rows], model.device, fill=IGNORED)[0][:, 1:]
            counted = targets != IGNORED
            wanted = targets[counted].split(POSITIONS_A_SLICE)
            losses = [
                torch.nn.functional.cross_entropy(logits, labels, reduction="none").double().cpu().numpy()
                for logits, labels in zip(logits_at(model, ids, mask, counted), wanted, strict=True)
            ]
            text = counted.nonzero()[:, 0].cpu().numpy()
            counts = np.bincount(text, minlength=len(rows))
            sums = np.bincount(text, np.concatenate(losses), minlength=len(rows))
            out[rows] = np.divide(sums, counts, out=np.full(len(rows), np.nan), where=counts > 0)
    return out


def logits_at(model: Any, ids: torch.Tensor, mask: torch.Tensor, where: torch.Tensor) -> Iterator[torch.Tensor]:
    """Next-token logits, float32[m, vocabulary] in slices, at the m positions where `where` (bool[b, ≤ t]) is true.

    ids, mask: int64[b, t], padded on the right. The vocabulary projection runs at these positions only, except for
    models that rescale logits after it.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    if any(getattr(causal.config, name, None) for name in RESCALED):
        logits = causal(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, : where.shape[1]][where]
        yield from (part.float() for part in logits.split(POSITIONS_A_SLICE))
        return
    backbone, head = getattr(causal, causal.base_model_prefix), causal.get_output_embeddings()
    hidden = backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, : where.shape[1]]
    for part in hidden[where].split(POSITIONS_A_SLICE):
        yield head(part).float()


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """The indices of `lengths`, longest first, in batches of at most `tokens` with padding (or of a single text)."""
    out: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if out and lengths[out[-1][0]] * (len(out[-1]) + 1) <= tokens:
            out[-1].append(i)
        else:
            out.append([i])
    return out


def padded(rows: Sequence[list[int]], device: Any, fill: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """`rows` padded on the right with `fill`, and the mask of what is not padding: int64[b, t] each."""
    import torch

    shape = (len(rows), max(1, max(map(len, rows))))
    ids, mask = torch.full(shape, fill), torch.zeros(shape, dtype=torch.long)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = torch.tensor(values, dtype=torch.long)
        mask[row, : len(values)] = 1
    return ids.to(device), mask.to(device)
