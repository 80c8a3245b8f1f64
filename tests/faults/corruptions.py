"""Files of the cache and of a sweep's state, damaged: the next launch finds that out, says so and makes them again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.faults.kills import POINTS, Pipeline, all_left, leftovers
from tests.faults.outcome import Outcome, Trial

HARMS: dict[str, Callable[[bytes], bytes | None]] = {
    "one bit flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 16]) + data[len(data) // 2 + 1 :]
    ),
    "cut in half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "lost": lambda data: None,
    "of another shape": lambda data: b"[]" if data[:1] in b"{[" else data + data,
}


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


SAID = ("is damaged", "is not used", "runs again")
STATES = {  # where a run is killed, so that these files are there for the next launch to find
    "iterative": (("answers half generated", "*/shard-*"), ("second training's checkpoint", "*/checkpoint-*/*")),
    "iterit": (("difficulty half measured", "*/shard-*"),),
}


def artifacts(pipeline: Pipeline) -> Iterator[Trial]:
    """Every artifact that a run has when it is killed just before its record is finished."""
    known = pipeline.folder / "known"
    pipeline.run(known, point=["dsel.evaluator.procedural:Procedural.read"], fault="SIGKILL")
    files = [p for p in sorted(known.glob("cache/*/*/*")) if p.is_file()]
    seen: set[tuple[str, str]] = set()
    for file in files:
        kind = file.relative_to(known / "cache").parts[0]
        name = file.suffix if kind == "tasks" else file.name
        if (kind, name) not in seen:  # of several of a kind, the first
            seen.add((kind, name))
            yield from harmed(pipeline, known, file, f"{kind}/…/{file.name}")


def unfinished(pipeline: Pipeline) -> Iterator[Trial]:
    """What a killed run leaves to go on from: shards and checkpoints."""
    for where, pattern in STATES.get(pipeline.name, ()):
        known = pipeline.folder / f"state-{where.split()[0]}"
        pipeline.run(known, point=POINTS[pipeline.name, where], fault="SIGKILL")
        files = [p for p in sorted(known.glob("cache/*/*.partial/**/*")) if p.is_file() and p.match(pattern)]
        for file in {p.name: p for p in files}.values():
            yield from harmed(pipeline, known, file, f"{where}: {file.name}")


def sweep_state(pipeline: Pipeline) -> Iterator[Trial]:
    """A finished run, and the note that it is one."""
    known = pipeline.folder / "calm"
    files = [*known.glob("runs/.finished/*.json"), *known.glob("runs/*/record.json"), *known.glob("runs/*/select*.*")]
    for file in files:
        note = file.parent.name == ".finished"
        yield from harmed(pipeline, known, file, "note of a finished run" if note else file.name)


def harmed(pipeline: Pipeline, known: Path, file: Path, where: str) -> Iterator[Trial]:
    """Each harm done to `file`, and what the next launch in the folder `known` makes of it."""
    data = file.read_bytes()
    for harm, change in HARMS.items():
        if change(data) != data:
            yield partial(_harmed, pipeline, known, file, where, harm)


def _harmed(pipeline: Pipeline, known: Path, file: Path, where: str, harm: str) -> Outcome:
    kept = known.with_name(f"{known.name}-kept")
    if not kept.exists():
        shutil.copytree(known, kept)
    after = HARMS[harm](file.read_bytes())
    if after is None:
        file.unlink()
    else:
        file.write_bytes(after)
    again = pipeline.run(known)
    wrong = []
    if again.code != 0 or again.traceback:
        wrong.append(f"ended with {again.code}: {again.out[-300:]}")
    if harm != "lost" and not any(words in again.out for words in SAID):
        wrong.append("not noticed")
    if pipeline.expected not in all_left(known / "runs"):
        wrong.append("another selection or other metrics")
    wrong += [w for w in leftovers(known / "cache") if ".damaged" not in w]
    shutil.rmtree(known)
    shutil.copytree(kept, known)  # in its place: some keys hold the folder
    return Outcome(harm, where, "noticed, said, made again", "; ".join(wrong))
