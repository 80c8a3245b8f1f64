"""What a selector asks of the trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class Trainer(Protocol):
    """What an experiment asks of a trainer."""

    trains: bool  # else the model stays as it is, and nothing below is looked at
    epochs: float  # of a training whose selector does not say
    max_length: int  # tokens of an example
    save: bool  # keep the model in the run's folder
    merge: bool  # what is kept is whole, not adapters

    def check(self) -> None:
        """Raise `ConfigError` when it cannot run here. Loads nothing heavy."""


@dataclass(frozen=True)
class Training:
    """One finetuning: for how long, and from where. The default is a static method's.

    epochs: instead of the trainer's own. restart: from the base model, else from where the last finetuning left it.
    part: (i, m) for the i-th of m finetunings, i from 1, that are one training: one optimizer and one learning rate
    schedule over all of them. moments: the optimizer's moments are kept, for who asks for them afterwards
    (`Learner.moments`), and the mean learning rate is in what the trainer reports.
    """

    epochs: float | None = None
    restart: bool = True
    part: tuple[int, int] = (1, 1)
    moments: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether parts of the same training follow."""
        return self.part[0] < self.part[1]
