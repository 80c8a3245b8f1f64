"""What an optimizer step takes, and how devices share it: the same examples in the same step, however many at once."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsel.model.chat import IGNORED

if TYPE_CHECKING:
    from datasets import Dataset

Rows = list[dict[str, Any]]


def steps(trainer: Mapping[str, Any], examples: int, tokens: float, epochs: float) -> int:
    """Optimizer steps of a training, packed or not: an epoch's last may be smaller, and a last epoch shorter."""
    in_epoch = math.ceil((tokens if trainer.get("batch_tokens") else examples) / step_size(trainer))
    return math.ceil(round(in_epoch * epochs, 6))  # 10 · 1.1 is 11


def step_size(trainer: Mapping[str, Any]) -> int:
    """What a step takes: `batch_tokens` where they are given, else `batch_size` examples."""
    return int(trainer.get("batch_tokens") or trainer["batch_size"])


def cut(sizes: npt.NDArray[np.int64], step: int) -> list[npt.NDArray[np.int64]]:
    """Indices of `sizes` in runs, one a step: the k-th run ends with the last that ends within k · `step`.

    None of `sizes` may be above `step`. There are then ⌈sum / step⌉ runs, whatever the order, and none is empty.
    """
    number = (np.cumsum(sizes) - 1) // step
    return np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(number)) + 1)


def padded_groups(lengths: Sequence[int], devices: int, at_once: int) -> list[list[int]]:
    """Indices of `lengths` in as few groups as all devices need, of `at_once` at most: alike in length and in number.

    Group i is device i mod `devices`'s; so that all take as many, some are empty where there is too little to share.
    """
    count = devices * math.ceil(len(lengths) / (devices * at_once))
    return [part.tolist() for part in np.array_split(_longest_first(lengths), count)]


def packed_groups(lengths: Sequence[int], devices: int, at_once: int) -> list[list[int]]:
    """The same with `at_once` tokens at most, and about as many in each group: the next longest where there is least.

    None of `lengths` may be above `at_once`.
    """
    count = devices * math.ceil(sum(lengths) / (devices * at_once))
    while True:
        groups: list[list[int]] = [[] for _ in range(count)]
        loads = [(0, i) for i in range(count)]
        for index in _longest_first(lengths):
            load, i = loads[0]
            groups[i].append(int(index))
            heapq.heapreplace(loads, (load + lengths[index], i))
        if max(loads)[0] <= at_once:
            return groups
        count += devices


def _longest_first(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.argsort(-np.asarray(lengths), kind="stable")


class Steps:
    """All steps of a training as a map-style data set: item i is the micro batches, lists of rows, of one device.

    data: columns `input_ids`, `labels` and `length`. trainer: an SFT's options. row: tokens of a packed row at most.
    The order of epoch e follows from `seed` + e alone.
    """

    def __init__(self, data: Dataset, trainer: Mapping[str, Any], row: int, seed: int, devices: int = 1, rank: int = 0):
        self.data = data
        self.lengths = np.array(data["length"], dtype=np.int64)
        self.packed = bool(trainer["packing"])
        self._at_once = row if self.packed else trainer["micro_batch_size"]
        self._sizes = self.lengths if trainer.get("batch_tokens") else np.ones_like(self.lengths)
        self._step = step_size(trainer)
        self._seed, self._devices, self._rank = seed, devices, rank
        tokens = int(self.lengths.sum())
        self.in_epoch = steps(trainer, len(data), tokens, 1)
        self._total = steps(trainer, len(data), tokens, trainer["epochs"])
        self._epoch: tuple[int, list[npt.NDArray[np.int64]]] = (-1, [])

    def __len__(self) -> int:
        return self._total

    def __getitem__(self, step: int) -> list[Rows]:
        """What this device takes of a step, at once each: as often as the others, be it without loss."""
        examples = self.examples(step)
        return [
            [self.data[int(examples[i])] for i in group] or [_mute(self.data[int(examples[-1])])]
            for group in self.groups(examples)[self._rank :: self._devices]
        ]

    def examples(self, step: int) -> npt.NDArray[np.int64]:
        """Indices into `data` of the examples of a step, in the epoch's order."""
        epoch, number = divmod(step, self.in_epoch)
        if self._epoch[0] != epoch:
            order = self._order(epoch)
            self._epoch = epoch, [order[part] for part in cut(self._sizes[order], self._step)]
        return self._epoch[1][number]

    def groups(self, examples: npt.NDArray[np.int64]) -> list[list[int]]:
        """Positions in `examples` that are computed at once, by all devices."""
        arrange = packed_groups if self.packed else padded_groups
        return arrange(self.lengths[examples].tolist(), self._devices, self._at_once)

    def tokens(self) -> int:
        """Tokens of all steps, without padding."""
        epochs, rest = divmod(self._total, self.in_epoch)
        last = (self.examples(epochs * self.in_epoch + step) for step in range(rest))
        return int(epochs * self.lengths.sum() + sum(self.lengths[examples].sum() for examples in last))

    def rows(self) -> int:
        """Packed rows of the first epoch."""
        return sum(bool(group) for step in range(self.in_epoch) for group in self.groups(self.examples(step)))

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        import torch

        generator = torch.Generator().manual_seed(self._seed + epoch)
        return torch.randperm(len(self.data), generator=generator).numpy()


def _mute(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "labels": [IGNORED] * len(row["labels"])}


def keeps_apart(model: Any, first: Sequence[int], second: Sequence[int], collate: Any, *, bfloat16: bool) -> bool:
    """Whether what `model` makes of the second text of a packed row is the same whatever the first says.

    Some architectures do not tell their attention of positions, or mix tokens elsewhere, and would say nothing.
    """
    import torch

    vocabulary, training, found = model.config.get_text_config().vocab_size, model.training, []
    for before in (list(first), [(token + 1) % vocabulary for token in first]):
        batch = collate([{"input_ids": before}, {"input_ids": list(second)}])
        del batch["labels"]
        batch = {name: v.to(model.device) if torch.is_tensor(v) else v for name, v in batch.items()}
        with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
            try:
                logits = model.eval()(**batch, use_cache=False).logits
            except TypeError:  # takes no positions
                return False
        found.append(logits[0, len(before) :].float())
    model.train(training)
    allowed = 2 * torch.finfo(torch.bfloat16 if bfloat16 else model.dtype).eps * found[0].abs().max()
    return bool((found[0] - found[1]).abs().max() <= allowed)
