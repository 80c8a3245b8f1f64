"""Uniform draws without replacement: the baseline everything else has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from dsel.selector.base import Selection, Static
from dsel.study import Study


@dataclass
class Random(Static):
    def select(self, study: Study) -> Selection:
        return Selection(study.rng.choice(len(study.pool), size=study.budget, replace=False))
