"""Scorers that read examples with a pretrained model: loading, batches without waste, logits where they count."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel.component import folder_state, knob
from dsel.errors import ConfigError, need, need_path
from dsel.model.causal_lm import DTYPES, TEMPLATES, device_of_process, torch_dtype
from dsel.model.chat import IGNORED
from dsel.pool import Pool
from dsel.scorer.base import Scorer

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Encoded = tuple[list[int], list[int]]
"""Token ids, and for each the id again where it counts, else -100 (`dsel.model.chat.encode`)."""

POSITIONS_A_SLICE = 2048  # logits that exist at once in `mean_nll`, in rows of the vocabulary's size
RESCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")  # models that do more after the head


@dataclass
class Pretrained(Scorer):
    """A model by its hub id, or from a local folder (`path`).

    max_length: tokens of a text that are read. tokens_a_batch: padded tokens that are read at once. device: the
    accelerator if there is one.
    """

    hub: str
    path: str | None = None
    revision: str | None = None
    max_length: int = 2048
    dtype: str = "auto"
    trust_remote_code: bool = False
    tokens_a_batch: int = knob(8192)
    device: str | None = knob(None)

    def check(self) -> None:
        need(self.dtype in DTYPES, f"scorer.dtype={self.dtype}: give one of {', '.join(DTYPES)}")
        need(self.max_length >= 64, f"scorer.max_length={self.max_length}: give 64 tokens or more")
        need(self.tokens_a_batch > 0, f"scorer.tokens_a_batch={self.tokens_a_batch}: give a number above 0")
        if self.path is not None:
            folder = need_path(self.path, option="scorer.path")
            need((folder / "config.json").exists(), f"scorer.path={self.path}: no config.json in this folder")

    def extra_identity(self) -> dict[str, Any]:
        if self.path is None:
            return {}
        return {"hub": None, "path": None, "files": folder_state(Path(self.path).expanduser())}

    @property
    def place(self) -> str:
        """What transformers is asked for: the folder, or the hub id."""
        return self.hub if self.path is None else str(Path(self.path).expanduser())

    def load(self) -> tuple[Any, Any]:
        """The causal language model, in evaluation mode, and its tokenizer."""
        from transformers import AutoModelForCausalLM

        return self._load(AutoModelForCausalLM)

    def _load(self, auto: Any) -> tuple[Any, Any]:
        import torch
        from transformers import AutoTokenizer

        common = {"revision": self.revision or "main", "trust_remote_code": self.trust_remote_code}
        tokenizer = AutoTokenizer.from_pretrained(self.place, **common)
        self.prepare(tokenizer)
        device = torch.device(self.device) if self.device else device_of_process()
        model = auto.from_pretrained(
            self.place,
            dtype=torch_dtype(self.dtype),
            use_safetensors=True,
            device_map=None if device.type == "cpu" else {"": device},
            **common,
        )
        return model.eval(), tokenizer

    def prepare(self, tokenizer: Any) -> None:
        """Raise `ConfigError` when the tokenizer lacks something; called before the weights are loaded."""


@dataclass
class Chat(Pretrained):
    """A model that reads conversations. chat_template: instead of its own, `turns` or a path to a file."""

    chat_template: str | None = None

    def check(self) -> None:
        super().check()
        if self.chat_template is not None:
            self._template()

    def prepare(self, tokenizer: Any) -> None:
        if self.chat_template is not None:
            tokenizer.chat_template = self._template()
        need(
            tokenizer.chat_template is not None,
            f"{self.place}: its tokenizer has no chat template; set scorer.chat_template=turns",
        )

    def _template(self) -> str:
        named = TEMPLATES / f"{self.chat_template}.jinja"
        path = named if named.exists() else Path(str(self.chat_template)).expanduser()
        known = ", ".join(sorted(p.stem for p in TEMPLATES.glob("*.jinja")))
        need(path.is_file(), f"scorer.chat_template={self.chat_template}: neither one of {known} nor a file")
        return path.read_text(encoding="utf-8")


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


def fill_missing(scores: npt.NDArray[np.float64], fill: float, pool: Pool, why: str) -> npt.NDArray[np.float64]:
    """`scores` with `fill` for NaN, and a warning that names the examples."""
    missing = np.flatnonzero(np.isnan(scores))
    if len(missing):
        names = ", ".join(pool.ids[i] for i in missing[:5])
        log.warning("%d examples get the lowest score: %s (ids %s)", len(missing), why, names)
    return np.where(np.isnan(scores), fill, scores)


def template_refused(place: str, error: Exception) -> ConfigError:
    """The error for a chat template that raises on a conversation."""
    reason = " ".join(str(error).split())
    return ConfigError(f"{place}: its chat template refuses a conversation ({reason}); set scorer.chat_template=turns")
