"""Which number of clusters was taken, and what spoke for it: the record of `clusterer.k=auto`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dsel.files import replacing, write_json

Form = Literal["exact", "simplified"]


@dataclass(frozen=True)
class Trial:
    """One k: the mean silhouette over all points, in [-1, 1], and the inertia of its clustering."""

    k: int
    silhouette: float
    inertia: float


@dataclass(frozen=True)
class Choice:
    """The trials in ascending k, and how their silhouettes were computed (dsel.clusterer.silhouette)."""

    form: Form
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The trial with the highest silhouette; of equal ones, the smallest k."""
        return max(self.trials, key=lambda trial: (trial.silhouette, -trial.k))

    def save(self, folder: Path) -> None:
        """Write `k_selection.json` and the plot `k_selection.png` into `folder`."""
        facts = {"k": self.best.k, "silhouette": self.form, "trials": [asdict(trial) for trial in self.trials]}
        write_json(folder / "k_selection.json", facts)
        self.plot(folder / "k_selection.png")

    @staticmethod
    def load(folder: Path) -> Choice | None:
        """What `save` wrote there; None where k was given."""
        file = folder / "k_selection.json"
        if not file.exists():
            return None
        facts = json.loads(file.read_text(encoding="utf-8"))
        return Choice(facts["silhouette"], tuple(Trial(**trial) for trial in facts["trials"]))

    def plot(self, file: Path) -> None:
        """The silhouette and, under it, the elbow curve (inertia), both against k on a log axis, as a PNG."""
        from matplotlib.figure import Figure  # without pyplot: no display, no global state; PNGs are drawn by Agg

        ks = [trial.k for trial in self.trials]
        curves = {
            f"mean silhouette ({self.form})": [trial.silhouette for trial in self.trials],
            "inertia (sum of squared distances)": [trial.inertia for trial in self.trials],
        }
        figure = Figure(figsize=(7, 6), layout="constrained")
        figure.suptitle(f"k = {self.best.k} has the highest silhouette, {self.best.silhouette:.3f}")
        panels = figure.subplots(2, sharex=True)
        for axes, (label, values) in zip(panels, curves.items(), strict=True):
            axes.plot(ks, values, marker="o", color="tab:blue")
            axes.axvline(self.best.k, color="tab:red", linestyle="--", label=f"chosen: k = {self.best.k}")
            axes.set_ylabel(label)
            axes.set_xscale("log", base=2)
            axes.set_xticks(ks, [str(k) for k in ks], rotation=45 if len(ks) > 12 else 0)
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        panels[0].legend()
        panels[1].set_xlabel("number of clusters k")
        with replacing(file) as temporary:
            figure.savefig(temporary, dpi=150, format="png", metadata={"Software": None})
