"""Weights & Biases, online with a key and offline without one."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlparse

from dsel.constraints import Text
from dsel.errors import ConfigError, need_package
from dsel.files import finite
from dsel.interrupt import deaf
from dsel.secrets import redact

log = logging.getLogger(__name__)

PATIENCE = 300.0  # seconds for the library's service to start, which on a busy machine may take more than its own 30
FOLDERS = {"WANDB_DATA_DIR": "", "WANDB_CACHE_DIR": "cache", "WANDB_ARTIFACT_DIR": "artifacts"}
"""What the library would write to the home folder, and where it goes in the run folder's `wandb`."""

TABLE_ROWS, LINES = 10_000, 12  # of a round's table, and of a plot, that go to W&B; files have all


@dataclass
class Wandb:
    """mode: `auto` is online when there is a key (WANDB_API_KEY or `wandb login`), else offline; WANDB_MODE wins."""

    project: Text = "dsel"
    entity: Text | None = None
    group: Text | None = None
    tags: Sequence[Text] = ()
    mode: Literal["auto", "online", "offline"] = "auto"

    _set: ClassVar[dict[str, str]] = {}  # what this process put into the environment for an earlier run

    def check(self) -> None:
        need_package("wandb", install="wandb", why="tracker=wandb (tracker=none does without)")

    @deaf()  # its service has to hear the end of a run that is told to end
    def start(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Open the run: its name is the run folder's, its config the resolved one, without secrets."""
        mode = self._mode()
        if mode != "online":  # otherwise the library reports on itself to its service, once a minute
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        for variable, name in FOLDERS.items():
            if os.environ.get(variable) == Wandb._set.get(variable):  # the user's own choice stays
                Wandb._set[variable] = os.environ[variable] = str((folder / "wandb" / name).absolute())
        # the service is started before the settings of a run are looked at, and heeds the process's alone
        os.environ.setdefault("WANDB__SERVICE_WAIT", str(PATIENCE))
        import wandb

        # what we log belongs to the run; what the library prints belongs to nobody
        settings = wandb.Settings(
            silent=True, console="off", disable_code=True, disable_git=True, init_timeout=PATIENCE
        )  # fmt: skip
        try:
            self._run = wandb.init(
                project=redact(self.project),
                entity=redact(self.entity),
                group=redact(self.group),
                tags=[str(facts["choices"].get(k)) for k in ("data", "selector", "model")] + redact(list(self.tags)),
                name=folder.name,
                dir=str(folder),
                mode=mode,  # type: ignore[arg-type]
                config={**facts["config"], "choices": facts["choices"], "environment": facts["environment"]},
                settings=settings,
            )
        except wandb.Error as error:
            raise refused(error) from error

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """One point of a training curve."""
        self._run.log({f"train/{k}": v for k, v in metrics.items()} | {"train/step": step})

    def finish(self, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Metrics, timings, composition and the selection itself; returns where the run is."""
        import wandb

        run = self._run
        summary: dict[str, Any] = {"budget": facts["budget"], "pool/examples": facts["pool"]["examples"]}
        for task, metric in facts["metrics"].items():
            summary |= {f"eval/{task}": metric["value"], f"eval/{task}_stderr": metric["stderr"]}
        for stage in facts["stages"]:
            summary[f"time/{stage['name']}"] = summary.get(f"time/{stage['name']}", 0) + stage["seconds"]
            if "per_second" in stage and not stage["cached"]:
                summary[f"throughput/{stage['name']}"] = stage["per_second"]
        summary |= _costs(facts.get("cost") or {})
        summary["record"] = json.dumps(finite(redact(facts)))  # all of it: what dsel.report reads
        run.summary.update(summary)
        rows = [[r["round"], source, count] for r in facts["rounds"] for source, count in r["sources"].items()]
        composition = wandb.Table(columns=["round", "source", "examples"], data=rows)
        run.log({"selection/composition": composition, **_rounds(folder / "rounds")})
        artifact = wandb.Artifact(f"selection-{run.id}", type="selection", metadata=dict(facts["pool"]))
        for name in ("selection.parquet", "selected.jsonl", "clusters.parquet", "k_selection.json", "k_selection.png"):
            if (folder / name).exists():
                artifact.add_file(str(folder / name), skip_cache=True)
        for file in sorted(folder.glob("rounds/*.parquet")):
            artifact.add_file(str(file), name=f"rounds/{file.name}", skip_cache=True)
        run.log_artifact(artifact)
        offline, place = run.settings.mode == "offline" or run.offline, Path(run.dir).parent
        url = None if offline else run.url
        run.finish()
        if not offline:
            log.info("W&B: %s", url)
        elif "sweep" not in facts and is_measured(facts):  # a sweep says it once, and a subset alone has its file
            log.info("W&B kept the run offline (no API key, or asked to); upload it with: wandb sync %s", place)
        return {"id": run.id, "mode": "offline" if offline else "online", "url": url, "folder": place.name}

    def fail(self) -> None:
        """Mark the run as failed, if it was started."""
        if getattr(self, "_run", None) is not None:
            self._run.finish(exit_code=1)

    def _mode(self) -> str:
        if os.environ.get("WANDB_MODE"):
            return os.environ["WANDB_MODE"]
        if self.mode != "auto":
            return self.mode
        return "online" if os.environ.get("WANDB_API_KEY") or logged_in() else "offline"


def is_measured(facts: Mapping[str, Any]) -> bool:
    """Whether a run has trained or evaluated something that is worth a look at curves and figures."""
    return bool(facts["metrics"]) or any("training" in part for part in facts["rounds"])


def _costs(cost: Mapping[str, Any]) -> dict[str, Any]:
    """What choosing, each of its parts, and training have cost, and the share that a report compares runs by."""
    choosing, training = (cost.get(name) or {} for name in ("choosing", "training"))
    parts = {f"choosing/{name}": part for name, part in choosing.get("parts", {}).items()}
    found = {
        f"cost/{name}/{unit}": part[unit]
        for name, part in {"choosing": choosing, "training": training, **parts}.items()
        for unit in ("flops", "seconds")
        if part.get(unit) is not None
    }
    for unit in ("flops", "seconds"):
        if choosing.get(unit) is not None and training.get(unit):
            found[f"cost/share/{unit}"] = choosing[unit] / training[unit]
    return found


def _rounds(folder: Path) -> dict[str, Any]:
    """What an iterative selector noted of its rounds, as W&B tables, and the plots that show it at a glance."""
    import pyarrow.parquet as pq
    import wandb

    tables = {file.stem: pq.read_table(file) for file in sorted(folder.glob("*.parquet"))}
    out: dict[str, Any] = {}
    for name, table in tables.items():
        rows = list(zip(*table.slice(0, TABLE_ROWS).to_pydict().values(), strict=True))
        out[f"rounds/{name}"] = wandb.Table(columns=table.column_names, data=[list(row) for row in rows])
    if "weights" in tables:
        weights: dict[int, list[float]] = {}
        for cluster, weight in zip(*(tables["weights"][c].to_pylist() for c in ("cluster", "weight")), strict=True):
            weights.setdefault(cluster, []).append(weight)
        shown = sorted(weights, key=lambda c: -abs(weights[c][-1] - weights[c][0]))[:LINES]
        rounds = list(range(1, len(weights[shown[0]]) + 1))
        lines, names = [weights[c] for c in shown], [f"cluster {c}" for c in shown]
        title = f"weights of the {len(shown)} clusters that changed most"
        out["rounds/weights_plot"] = wandb.plot.line_series(rounds, lines, keys=names, title=title, xname="round")
    if "answers" in tables:
        columns = ["round", "feedback"]
        values = wandb.Table(
            columns=columns, data=[list(r.values()) for r in tables["answers"].select(columns).to_pylist()]
        )
        out["rounds/feedback_plot"] = wandb.plot.histogram(values, "feedback", title="feedback of the answers")
    return out


def logged_in() -> bool:
    """Whether `wandb login` has left a key, which it does in the netrc file."""
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host is not None and netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False


def refused(error: Exception) -> ConfigError:
    """The one line for a run that W&B did not let begin."""
    import wandb

    reason = " ".join(str(error).split("Consider increasing")[0].split())[:300]
    mode = "set tracker.mode=offline" + " and unset WANDB_MODE, which wins" * bool(os.environ.get("WANDB_MODE"))
    denied = any(word in reason.lower() for word in ("401", "403", "permission", "api key", "api_key", "unauthorized"))
    if not (isinstance(error, wandb.errors.AuthenticationError) or denied):
        return ConfigError(f"W&B cannot be reached ({reason}); to keep the run here {mode}")
    if os.environ.get("WANDB_API_KEY"):
        return ConfigError(f"W&B refuses WANDB_API_KEY ({reason}); unset it, or {mode}")
    return ConfigError(f"W&B has no key that it takes ({reason}); `wandb login` again, or {mode}")
