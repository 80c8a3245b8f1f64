"""Where logged runs are read from: run folders, the W&B service, or the offline W&B logs under the run folders.

All three give the same facts, those of the run's `record.json`: the tracker keeps them in the W&B run's summary. What
is no record of a run (dsel.record.facts), is named in the log and left out.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsel.errors import ConfigError, need, need_package
from dsel.record.facts import OddRecord, clean, from_json, parse, whole
from dsel.record.reader import NAME, RunFolder
from dsel.remote_runs import original
from dsel.secrets import redact

log = logging.getLogger(__name__)

SOURCES = ("local", "wandb", "wandb_offline")
RECORD = "record"  # the summary's key with the record of a run, as JSON
LARGEST_LOG = 2**31  # bytes of a `.wandb` file


@dataclass
class Found:
    """The finished runs of an experiment, oldest first, and how many of its runs are left out, by the reason.

    others: finished runs of no experiment or another one, where they are at hand.
    """

    runs: list[RunFolder] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    others: list[RunFolder] = field(default_factory=list)

    def add(self, status: str, facts: Mapping[str, Any] | None, where: str, folder: Path | None) -> None:
        if status != "finished":
            self.left_out[status] += 1
        elif facts is None:
            self.left_out["without a record"] += 1
        elif "seed" not in facts["config"]:
            self.odd(where, "its configuration has no seed")
            self.left_out["with an odd record"] += 1
        else:
            self.runs.append(RunFolder(facts, clean(original(where)), folder))

    @staticmethod
    def odd(where: object, why: object) -> None:
        """Name what is left out because it is no record."""
        log.warning("left out %s: %s", clean(str(where)), why)

    def sorted(self) -> Found:
        return Found(sorted(self.runs, key=lambda run: (run.started, run.where)), self.left_out, self.others)


def local(experiment: str, folder: Path) -> Found:
    """The runs whose `record.json` is somewhere under `folder`."""
    found = Found()
    for path in sorted(folder.rglob(NAME)):
        try:
            run = RunFolder.read(path.parent)
        except OddRecord as why:
            found.odd(path, why)
            continue
        if run.choice("experiments") == experiment:
            found.add(run.status, run.facts, run.where, run.folder)
        elif run.status == "finished" and "seed" in run.facts["config"]:
            found.others.append(run)
    return found.sorted()


def wandb_offline(experiment: str, folder: Path) -> Found:
    """The runs whose W&B log (`wandb/offline-run-…/run-….wandb`, or that of an online run) is under `folder`."""
    need_package("wandb", install="wandb", why="source=wandb_offline")
    found = Found()
    for path in sorted(folder.rglob("wandb/*run-*/run-*.wandb")):
        try:
            config, summary, exit_code = read_log(path)
        except OddRecord as why:
            found.odd(path, why)
            continue
        if not _is_of(config, experiment):
            continue
        status = "finished" if exit_code == 0 else "unfinished" if exit_code is None else "failed"
        place = path.parents[2]
        where = place / NAME if (place / NAME).exists() else path
        found.add(status, _facts(summary.get(RECORD), path, found), str(where), place)
    return found.sorted()


def wandb(experiment: str, *, entity: str | None, project: str, filters: Mapping[str, Any] | None = None) -> Found:
    """The runs of a W&B project, through its public API. filters: a query as `wandb.Api().runs` takes it.

    Raises `ConfigError` without a key, and for what the service says.
    """
    need_package("wandb", install="wandb", why="source=wandb")
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
            if _is_of(run.config, experiment):
                summary = run.summary_metrics if isinstance(run.summary_metrics, Mapping) else {}
                found.add(clean(str(run.state)), _facts(summary.get(RECORD), run.url, found), str(run.url), None)
    except (client.Error, ValueError) as error:  # ValueError: there is no such project
        raise ConfigError(redact(f"source=wandb: {error}")) from error
    return found.sorted()


def read_log(path: Path) -> tuple[dict[str, Any], dict[str, Any], int | None]:
    """(config, summary, exit code) of a `.wandb` file; the exit code is None for a run that did not end.

    Of a file that is cut off or damaged, what comes before that counts. Raises `OddRecord` for what no W&B run writes.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto import wandb_internal_pb2 as pb

    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    exit_code: int | None = None
    for data in log_entries(whole(path, LARGEST_LOG)):
        entry = pb.Record()
        try:
            entry.ParseFromString(data)
        except DecodeError as error:
            raise OddRecord(f"not the log of a W&B run ({error})") from error
        kind = entry.WhichOneof("record_type")
        if kind in ("run", "config"):
            changes = entry.run.config if kind == "run" else entry.config
            config |= _values(changes)
        elif kind == "summary":
            summary |= _values(entry.summary)
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


def _values(changes: Any) -> dict[str, Any]:
    """What an entry of a log sets, without what is of no account here and no JSON (a loss that is NaN)."""
    found = {}
    for item in changes.update:
        try:
            found[item.key] = from_json(item.value_json)
        except OddRecord:
            if item.key in ("choices", RECORD):
                raise
    return found


def _is_of(config: Any, experiment: str) -> bool:
    choices = config.get("choices") if isinstance(config, Mapping) else None
    return isinstance(choices, Mapping) and choices.get("experiments") == experiment


def _facts(record: Any, where: object, found: Found) -> dict[str, Any] | None:
    """A record out of a W&B summary. The tracker writes it just before the run ends, so its status is not yet that."""
    if record is None:
        return None
    try:
        return {**parse(record), "status": "finished"}
    except OddRecord as why:
        found.odd(where, why)
        return None
