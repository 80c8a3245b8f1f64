"""What a run has cost: of choosing, by part, and of training the model that it ends with.

Choosing is all that a selector had computed, whoever computed it: what was found in the cache counts as when it was
made. A training that the model of the run has not come from, as of a warm-up or of a guide, is a part of choosing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsel.stage import Stage

TRAININGS = ("warm up", "train")
NEITHER = ("data", "decontaminate", "model", "evaluate", "save")  # stages that every run has, whatever it chooses by


@dataclass(frozen=True)
class Part:
    """A part of choosing, or training: some stages of one name, and each artifact once.

    seconds, flops: None where they are not known. cached: whether all was there already. unknown: how many of its
    artifacts were made before anybody kept what they cost.
    """

    name: str
    seconds: float | None
    flops: float | None
    cached: bool
    unknown: int

    def to_dict(self) -> dict[str, Any]:
        return {"seconds": _rounded(self.seconds), "flops": self.flops, "cached": self.cached, "unknown": self.unknown}


@dataclass(frozen=True)
class Cost:
    """Of choosing, the parts in their order; of training, None where nothing was trained."""

    choosing: Sequence[Part]
    training: Part | None

    @property
    def seconds(self) -> float | None:
        """Of choosing; None where those of a part are not known."""
        found = [part.seconds for part in self.choosing]
        return None if None in found else float(sum(seconds or 0 for seconds in found))

    @property
    def flops(self) -> float | None:
        """Operations of choosing, of the parts that count them; None where no part does, or one is not known."""
        found = [part.flops for part in self.choosing if part.flops is not None]
        return None if self.unknown or not found else float(sum(found))

    @property
    def unknown(self) -> int:
        """How many artifacts of choosing were made before anybody kept what they cost."""
        return sum(part.unknown for part in self.choosing)

    @property
    def uncounted(self) -> list[str]:
        """The parts of choosing of which seconds are known, and no operations."""
        return [part.name for part in self.choosing if part.flops is None and not part.unknown]

    @property
    def told(self) -> dict[str, str]:
        """In words what choosing and training have come to, for who looks at a run."""
        found = {"choosing": _told(self.flops, self.seconds)} if self.choosing else {}
        if self.training is not None:
            found["training"] = _told(self.training.flops, self.training.seconds)
        return found

    def to_dict(self) -> dict[str, Any]:
        choosing = {
            "seconds": _rounded(self.seconds), "flops": self.flops, "uncounted": self.uncounted,
            "unknown": self.unknown, "parts": {part.name: part.to_dict() for part in self.choosing},
        }  # fmt: skip
        return {"choosing": choosing, "training": None if self.training is None else self.training.to_dict()}


def cost(stages: Sequence[Stage]) -> Cost:
    """What the stages of a run have cost."""
    named: dict[str, list[Stage]] = {}
    for stage in stages:
        if stage.name in TRAININGS and not stage.discarded:
            named.setdefault("training", []).append(stage)
        elif stage.name not in NEITHER:
            named.setdefault("guides" if stage.name == "train" else stage.name, []).append(stage)
    parts = {name: _part(name, of) for name, of in named.items()}
    training = parts.pop("training", None)
    return Cost(list(parts.values()), training)


def _part(name: str, stages: Sequence[Stage]) -> Part:
    """The stages together; one artifact that several of them made or found counts once."""
    once = {stage.artifact or f"stage {number}": stage for number, stage in reversed(list(enumerate(stages)))}
    found = [stage.cost for stage in once.values()]
    known = [spent for spent in found if spent is not None]
    counted = [spent.flops for spent in known if spent.flops is not None]
    cached, unknown = all(stage.cached for stage in once.values()), len(found) - len(known)
    seconds = None if unknown else sum(spent.seconds for spent in known)
    return Part(name, seconds, None if unknown or not counted else sum(counted), cached, unknown)


def _told(flops: float | None, seconds: float | None) -> str:
    if seconds is None:
        return "not known: made before its cost was kept"
    return f"{seconds:,.1f} s, operations not counted" if flops is None else f"{flops:.2e} FLOPs, {seconds:,.1f} s"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
