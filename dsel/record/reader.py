"""The one reader of runs: what a run's folder says, as facts and tables to rely on, whoever wrote it.

People share folders of runs, so anything may stand in one. What of it is no record raises `OddRecord`; of the tables
beside it, those that are not what a run writes are left out and named in `odd`. Nothing recorded is ever built.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsel.errors import ConfigError
from dsel.record import facts as records
from dsel.record.cost import Cost, cost
from dsel.record.facts import NAME as NAME
from dsel.record.process import is_gone
from dsel.record.tables import CLUSTERS, SCORES, read_table
from dsel.spent import Spent
from dsel.stage import Stage

if TYPE_CHECKING:
    from pyarrow import Table


@dataclass(frozen=True)
class RunFolder:
    """A run as it was recorded: its facts, and the tables beside them, which are read when they are asked for.

    facts: those of its record (`dsel.record.facts`). where: the file or address that they are from. folder: None where
    only W&B has the run. odd: what of its tables is left out, a line for each file.
    """

    facts: Mapping[str, Any]
    where: str
    folder: Path | None = None
    odd: list[str] = field(default_factory=list)

    @staticmethod
    def read(folder: Path) -> RunFolder:
        """The run in `folder`.

        Raises:
            OddRecord: where its `record.json` is no record, is damaged, or is of a later format.
        """
        return RunFolder(records.read(folder / NAME), records.clean(str(folder / NAME)), folder)

    @property
    def status(self) -> str:
        """As it was recorded; `killed` where a run is called running whose process is gone."""
        status = str(self.facts["status"])
        return "killed" if status == "running" and is_gone(self.facts.get("process") or {}) else status

    @property
    def seed(self) -> int:
        return int(self.facts["config"]["seed"])

    @property
    def started(self) -> str:
        return str(self.facts["started"])

    @property
    def fingerprint(self) -> str | None:
        """What the run's pool is known by."""
        return self.facts["pool"].get("fingerprint")

    @property
    def contaminated(self) -> int:
        """How many of the chosen examples have what the evaluator asks, or what is in the file that was named."""
        origins = (self.facts.get("contamination") or {}).get("origins") or {}
        return sum(int(count) for origin, count in origins.items() if origin != "targets")

    @property
    def stages(self) -> list[Stage]:
        """Its timed stages, in their order."""
        return [
            Stage(
                *(s["name"], float(s.get("seconds") or 0), s.get("items"), bool(s.get("cached"))),
                artifact=s.get("artifact"),
                spent=_spent(s.get("spent")),
                discarded=bool(s.get("discarded")),
            )
            for s in self.facts["stages"]
        ]

    @cached_property
    def cost(self) -> Cost:
        """What choosing and training have cost. Records that do not say what was found in the cache cost leave gaps."""
        return cost(self.stages)

    def choice(self, group: str) -> str | None:
        """The option of a config group that was chosen."""
        return self.facts["choices"].get(group)

    def setting(self, name: str) -> Any:
        """A top-level value of the configuration; None where there is none."""
        return self.facts["config"].get(name)

    def part(self, group: str) -> Mapping[str, Any]:
        """The settings of a component; none where the record has something else there."""
        found = self.setting(group)
        return found if isinstance(found, Mapping) else {}

    def value(self, metric: str) -> float | None:
        """A metric of the run, or the number at a dotted path in its record; None where it has none."""
        found: Any = self.facts["metrics"].get(metric, {}).get("value")
        if found is None:
            found = self.facts
            for part in metric.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
        return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None

    def test_error(self, metric: str) -> float | None:
        """The standard error of a metric over the examples of its test set; None where it has none."""
        found = self.facts["metrics"].get(metric, {}).get("stderr")
        return None if found is None or math.isnan(found) else float(found)

    def higher_is_better(self, metric: str) -> bool:
        return bool(self.facts["metrics"].get(metric, {}).get("higher_is_better", True))

    def unit(self, metric: str) -> str | None:
        """What a metric is counted in (`dsel.evaluator.units`); None for what is no metric of the run."""
        return self.facts["metrics"].get(metric, {}).get("unit")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The metrics of the run, but for parts of others and the average."""
        return tuple(m for m, found in self.facts["metrics"].items() if m != "average" and not found.get("detail"))

    @property
    def headline(self) -> str | None:
        """The metric that stands for the run."""
        return records.headline(self.facts)

    @property
    def objective(self) -> float | None:
        """The figure a sweeper looks at."""
        return records.objective(self.facts)

    @cached_property
    def quality(self) -> Mapping[str, float] | None:
        """The quality of every example of the pool, by id."""
        table = self._table("scores.parquet", SCORES, needed=SCORES)
        return dict(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True)) if table else None

    @cached_property
    def clusters(self) -> Table | None:
        """A row for each cluster of the pool (see `dsel.clusterer.diagnostics.table`)."""
        table = self._table("clusters.parquet", CLUSTERS, needed=CLUSTERS, others=("medoids", "sources"))
        if table is None:
            return None
        try:
            right = all(
                row["size"] >= 0
                and all(isinstance(source, str) and 0 <= share <= 1 for source, share in row["sources"])
                for row in table.to_pylist()
            )
        except (KeyError, TypeError, ValueError):
            right = False
        if not right:
            self.odd.append(f"{self.folder}/clusters.parquet: its rows are not those of a run")
            return None
        return table

    @property
    def sources(self) -> Counter[str] | None:
        """How many examples of the pool each source has, summed over the clusters."""
        if self.clusters is None:
            return None
        counts: Counter[str] = Counter()
        for row in self.clusters.to_pylist():
            for source, share in row["sources"]:
                counts[source] += round(share * row["size"])
        return counts

    def _table(
        self, name: str, kinds: Mapping[str, str], needed: Collection[str], others: Sequence[str] = ()
    ) -> Table | None:
        if self.folder is None or not (self.folder / name).exists():
            return None
        try:
            return read_table(self.folder / name, kinds, needed, others)
        except ConfigError as error:
            self.odd.append(str(error))
            return None


def _spent(found: Mapping[str, Any] | None) -> Spent | None:
    """What a stage has cost, of what was recorded of it."""
    if found is None:
        return None
    flops = found.get("flops")
    return Spent(
        float(found.get("seconds") or 0), None if flops is None else float(flops), int(found.get("tokens") or 0)
    )
