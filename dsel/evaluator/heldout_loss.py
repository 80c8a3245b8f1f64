"""Mean loss on instruction data the model was not trained on."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsel.cache import Cache
from dsel.component import content_of
from dsel.constraints import Count, Text
from dsel.data.local import Local
from dsel.errors import need, need_path
from dsel.evaluator.base import Asked, Metric, Subject
from dsel.evaluator.units import unit_of
from dsel.pool import Pool, asked
from dsel.questions import Losses


@dataclass
class HeldoutLoss:
    """Token loss in nats over responses, averaged per example: of the files in `path`, or of `data.holdout`.

    split: of a folder whose files' names tell splits apart, the one to read; null: all files.
    """

    path: Text | None = None
    split: Text | None = None
    limit: Count | None = None
    max_length: Count = 2048

    evaluates = True

    def check(self) -> None:
        if self.path is not None:
            need_path(self.path, option="evaluator.path")

    @property
    def wants_heldout(self) -> bool:
        """Whether it measures on `data.holdout`, which is refused at once where that is 0."""
        return self.path is None

    def extra_identity(self) -> dict[str, Any]:
        return {"path": content_of(self.path)}

    def need_tasks(self, cache: Cache) -> None:
        pass

    def texts(self, heldout: Pool, cache: Cache) -> Asked:
        """The user's turns of each example."""
        data = self._data(heldout, cache)
        return Asked(dict(zip(data.ids, asked(data), strict=True)))

    def evaluate(self, learner: Subject, pool: Pool, heldout: Pool, cache: Cache, folder: Path) -> dict[str, Metric]:
        """`heldout_loss` over the held-out examples, with its standard error over examples."""
        data = self._data(heldout, cache)
        need(len(data) > 0, "evaluator=heldout_loss has no example: a larger data.holdout, or evaluator.path=…")
        worker = Losses(learner.snapshot(), self.max_length, whole=False)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".losses-") as scratch:
            values = learner.engine.map(worker, data.messages, Path(scratch), title="held-out loss", sizes=data.lengths)
        values = values[np.isfinite(values)]
        need(len(values) > 0, f"evaluator=heldout_loss: no response fits in max_length={self.max_length}")
        stderr = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
        loss = Metric(
            float(values.mean()), stderr, "nats/token", len(values), higher_is_better=False, unit=unit_of("nats/token")
        )
        return {"heldout_loss": loss}

    def _data(self, heldout: Pool, cache: Cache) -> Pool:
        """The examples that it measures on."""
        read = Local(path=self.path, split=self.split, limit=self.limit)
        data = heldout if self.path is None else read.load(cache)
        return data if self.limit is None else data.take(range(min(self.limit, len(data))))
