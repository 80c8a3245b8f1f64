"""Where logged runs are read from: run folders, the W&B service, or the offline W&B logs under the run folders.

All three give the same facts, those of the run's `record.json`: the tracker keeps them in the W&B run's summary.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsel.errors import ConfigError, need, need_package
from dsel.secrets import redact

log = logging.getLogger(__name__)

SOURCES = ("local", "wandb", "wandb_offline")
RECORD = "record"  # the summary's key with the record of a run, as JSON


@dataclass(frozen=True)
class Run:
    """A finished run: the facts of its record, where a reader finds it (a file or an address), and its folder."""

    facts: Mapping[str, Any]
    where: str
    folder: Path | None = None

    @property
    def seed(self) -> int:
        return int(self.facts["config"]["seed"])

    @property
    def started(self) -> str:
        return str(self.facts["started"])

    def value(self, metric: str) -> float | None:
        """A metric of the run, or the number at a dotted path in its record; None where it has none."""
        found: Any = self.facts["metrics"].get(metric, {}).get("value")
        if found is None:
            found = self.facts
            for part in metric.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
        return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None

    def higher_is_better(self, metric: str) -> bool:
        return bool(self.facts["metrics"].get(metric, {}).get("higher_is_better", True))


@dataclass
class Found:
    """The finished runs of an experiment, oldest first, and how many of its runs are left out, by the reason."""

    runs: list[Run] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, status: str, facts: Mapping[str, Any] | None, where: str, folder: Path | None) -> None:
        if status != "finished":
            self.left_out[status] += 1
        elif facts is None:
            self.left_out["without a record"] += 1
        else:
            self.runs.append(Run(facts, where, folder))

    def sorted(self) -> Found:
        return Found(sorted(self.runs, key=lambda run: (run.started, run.where)), self.left_out)


def local(experiment: str, folder: Path) -> Found:
    """The runs whose `record.json` is somewhere under `folder`."""
    found = Found()
    for path in sorted(folder.rglob("record.json")):
        facts = _read_json(path)
        if facts is not None and facts.get("choices", {}).get("experiments") == experiment:
            found.add(str(facts.get("status")), facts, str(path), path.parent)
    return found.sorted()


def wandb_offline(experiment: str, folder: Path) -> Found:
    """The runs whose W&B log (`wandb/offline-run-…/run-….wandb`, or that of an online run) is under `folder`."""
    need_package("wandb", extra="wandb", why="source=wandb_offline")
    found = Found()
    for path in sorted(folder.rglob("wandb/*run-*/run-*.wandb")):
        config, summary, exit_code = read_log(path)
        if config.get("choices", {}).get("experiments") != experiment:
            continue
        status = "finished" if exit_code == 0 else "unfinished" if exit_code is None else "failed"
        place = path.parents[2]
        where = place / "record.json" if (place / "record.json").exists() else path
        found.add(status, _facts(summary.get(RECORD)), str(where), place)
    return found.sorted()


def wandb(experiment: str, *, entity: str | None, project: str, filters: Mapping[str, Any] | None = None) -> Found:
    """The runs of a W&B project, through its public API. filters: a query as `wandb.Api().runs` takes it.

    Raises `ConfigError` without a key, and for what the service says.
    """
    need_package("wandb", extra="wandb", why="source=wandb")
    from dsel.tracker.wandb import logged_in

    has_key = bool(os.environ.get("WANDB_API_KEY")) or logged_in()
    need(has_key, "source=wandb needs a key: set WANDB_API_KEY or run wandb login (source=wandb_offline needs none)")
    import wandb as client

    os.environ.setdefault("WANDB_SILENT", "true")  # what the library prints belongs to nobody
    found = Found()
    try:
        api = client.Api()
        path = "/".join(part for part in (entity or api.default_entity, project) if part)
        for run in api.runs(path, filters=dict(filters or {}), lazy=False):
            if (run.config.get("choices") or {}).get("experiments") == experiment:
                found.add(str(run.state), _facts(run.summary_metrics.get(RECORD)), str(run.url), None)
    except (client.Error, ValueError) as error:  # ValueError: there is no such project
        raise ConfigError(redact(f"source=wandb: {error}")) from error
    return found.sorted()


def read_log(path: Path) -> tuple[dict[str, Any], dict[str, Any], int | None]:
    """(config, summary, exit code) of a `.wandb` file; the exit code is None for a run that did not end.

    Of a file that is cut off or damaged, what comes before that counts.
    """
    from wandb.proto import wandb_internal_pb2 as pb

    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    exit_code: int | None = None
    for data in log_entries(path.read_bytes()):
        entry = pb.Record()
        entry.ParseFromString(data)
        kind = entry.WhichOneof("record_type")
        if kind in ("run", "config"):
            changes = entry.run.config if kind == "run" else entry.config
            config |= {item.key: json.loads(item.value_json) for item in changes.update if item.key}
        elif kind == "summary":
            summary |= {item.key: json.loads(item.value_json) for item in entry.summary.update if item.key}
        elif kind == "exit":
            exit_code = int(entry.exit.exit_code)
    return config, summary, exit_code


def log_entries(data: bytes) -> Iterator[bytes]:
    """The entries of a `.wandb` file, up to the first that is not whole.

    After a head of 7 bytes there are blocks of 32 KiB with (checksum, length, kind) and content; an entry that does not
    fit is split: kind 1 is whole, 2, 3 and 4 are the first, a middle and the last part.
    """
    block, head = 32768, 7
    at, whole = head, b""
    while at + head <= len(data):
        room = block - at % block
        if room < head:
            at += room
            continue
        checksum = int.from_bytes(data[at : at + 4], "little")
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part = data[at + head : at + head + length]
        if kind not in (1, 2, 3, 4) or len(part) < length or zlib.crc32(part, zlib.crc32(bytes([kind]))) != checksum:
            return
        whole += part
        at += head + length
        if kind in (1, 4):
            yield whole
            whole = b""


def _facts(record: Any) -> dict[str, Any] | None:
    """A record out of a W&B summary. The tracker writes it just before the run ends, so its status is not yet that."""
    try:
        facts = json.loads(record)
    except (TypeError, ValueError):
        return None
    return {**facts, "status": "finished"} if isinstance(facts, dict) else None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        log.warning("left out %s: %s", path, error)
        return None
    return facts if isinstance(facts, dict) else None
