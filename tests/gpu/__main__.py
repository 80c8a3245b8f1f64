"""Whether all of it runs on this machine's GPU, and how fast: `make gpu-check`.

    python -m tests.gpu                    # everything, in under 20 minutes on one H100; nothing is downloaded
    python -m tests.gpu lora nll           # some checks
    python -m tests.gpu --toy              # the same code on the processor with models of a few thousand weights

Models have random weights of real shapes. What a machine lacks is skipped by name. A check that takes too long is ended
with all its processes, and the next ones go on. The table at the end is written to results.json and results.md as well.
Exit code 1 when a check failed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from dsel.distributed import PARENT, die_with_parent
from dsel.record.environment import environment
from dsel.show import Table, show_table, to_terminal
from tests.conftest import ROOT
from tests.gpu.checking import REAL, TOY, Check, Machine, Row, Skip

GROUPS: dict[str, str] = {
    "device": "product",
    "reading": "tiny nll generate embedding gradients attention",
    "training": "lora full qlora padded packed packed-flex packed-flash fsdp2",
    "kernels": "kmeans faiss kcenter facility qdit",
    "answering": "vllm",
}
"""The checks of each module here. Each group has a process of its own: an error of a device stays in it."""

NO_GPU = "skipped: torch finds no CUDA GPU"
MINUTES = 20
SECONDS = 420  # that one check may take
GRACE = 5.0  # seconds between SIGTERM, which what is in the middle of a long call does not hear, and SIGKILL
SHOWN = ("name", "what", "measured", "unit", "of peak", "note")


def product(machine: Machine) -> Iterator[Row]:
    """What matrix products reach."""
    import torch

    for name, dtype, peak in (
        ("bfloat16", torch.bfloat16, machine.peak.bfloat16),
        ("float32", torch.float32, machine.peak.float32),
    ):
        rate = machine.product(dtype)
        yield Row(f"{machine.name}, matrices of {name}", rate / 1e12, "TFLOP/s", rate / peak)


def checks(group: str) -> Mapping[str, Check]:
    """The checks of a group by name, in order."""
    if group == "device":
        return {"product": product}
    found: Mapping[str, Check] = import_module(f"tests.gpu.{group}").CHECKS
    return found


def ran(machine: Machine, name: str, check: Check, until: float) -> Iterator[Row]:
    """What a check measures; one row where it is skipped, or failed."""
    if time.monotonic() > until:
        yield Row("", note="skipped: the time is over (--minutes)", name=name)
        return
    with machine.emptied():
        try:
            for row in check(machine):
                yield replace(row, name=name)
        except Skip as why:
            yield Row("", note=f"skipped: {why}", name=name)
        except Exception as error:
            logging.getLogger("tests.gpu").error("%s failed:\n%s", name, traceback.format_exc())
            line = " ".join(str(error).split())[:300]
            yield Row("", note=f"failed: {type(error).__name__}: {line}", name=name)


def child(o: argparse.Namespace) -> None:
    """Run the checks of a group, and add each row to the file as soon as it is there."""
    from transformers.utils import logging as theirs

    die_with_parent()
    theirs.disable_progress_bar()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("dsel.progress", "tests.gpu"):
        logging.getLogger(name).setLevel(logging.INFO)
    machine = Machine("cpu" if o.toy else "cuda", TOY if o.toy else REAL, o.folder)
    for name, check in checks(o.group).items():
        if name in o.checks:
            logging.getLogger("tests.gpu").info("%s", name)
            say(o.rows, {"begun": name, "at": time.monotonic()})
            for row in ran(machine, name, check, o.until):
                say(o.rows, asdict(row))
            say(o.rows, {"done": name, "at": time.monotonic()})


def say(file: Path, line: Mapping[str, object]) -> None:
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")


def heard(file: Path) -> list[dict[str, Any]]:
    """What was said: the last line only if it is whole."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def started(o: argparse.Namespace, group: str, wanted: Sequence[str], folder: Path) -> list[Row]:
    """The rows of a group, from a process of its own; from another one what comes after a check that took too long."""
    found: list[Row] = []
    until, left = time.monotonic() + o.left, list(wanted)
    while left:
        file = folder / f"{group}-{len(left)}.jsonl"
        why, stuck = watched(o, group, left, file, until)
        lines = heard(file)
        found += [Row(**line) for line in lines if "at" not in line]
        done = {line["done"] for line in lines if "done" in line}
        left = [name for name in left if name not in done]
        failed = [stuck] if stuck else left
        found += [Row("", note=why, name=name) for name in failed]
        left = [name for name in left if name not in failed]
    return found


def watched(
    o: argparse.Namespace, group: str, wanted: Sequence[str], file: Path, until: float
) -> tuple[str, str | None]:
    """Have a process run checks, and end it when one takes too long: why it ended, and that check's name."""
    command = [sys.executable, "-m", "tests.gpu", *wanted, "--group", group, "--folder", str(file.parent)]
    command += ["--rows", str(file), "--until", str(until), *(["--toy"] if o.toy else [])]
    settings = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1", PARENT: str(os.getpid())}
    settings |= {"CUDA_VISIBLE_DEVICES": ""} if o.toy else {}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **settings, "PYTHONPATH": path}, start_new_session=True
    )
    last: dict[str, Any] = {"at": time.monotonic()}
    try:
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            last = next((line for line in reversed(heard(file)) if "at" in line), last)
            if time.monotonic() > min(last["at"] + o.seconds, until + 60):
                return f"failed: it did not end in {time.monotonic() - last['at']:.0f} s", last.get("begun")
    finally:
        end(process)
    return f"failed: the process of {group} ended with {process.returncode}", None


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its group, which may not listen."""
    for sign, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def leave(*_: object) -> None:
    """On SIGTERM: what was started is ended on the way out."""
    sys.exit(143)


def table(rows: Sequence[Row]) -> Table:
    return Table([cells(row) for row in rows], title="GPU check", header=SHOWN, align="llrlrl")


def cells(row: Row) -> tuple[str, ...]:
    measured = "" if row.measured is None else f"{row.measured:,.4g}" if row.measured < 1000 else f"{row.measured:,.0f}"
    share = "" if row.share is None else f"{row.share:.1%}"
    return (row.name, row.what, measured, row.unit, share, row.note)


def markdown(rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(SHOWN) + " |", "|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells(row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__, formatter_class=raw)
    known = [name for names in GROUPS.values() for name in names.split()]
    parser.add_argument("checks", nargs="*", metavar="check", help=f"which of {', '.join(known)}")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after which nothing more begins")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which one check is ended")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-check", help="gets results.json and .md")
    parser.add_argument("--scratch", type=Path, help="where models of 16 GB are written (the system's)")
    for name in ("--toy", "--group", "--folder", "--rows", "--until"):
        kinds = {"--toy": {"action": "store_true"}, "--until": {"type": float}, "--group": {}}
        parser.add_argument(name, help=argparse.SUPPRESS, **kinds.get(name, {"type": Path}))
    o = parser.parse_args(arguments)
    if unknown := set(o.checks) - set(known):
        parser.error(f"no check called {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    o.checks = o.checks or known
    return o


def main(arguments: Sequence[str] | None = None) -> int:
    o = parsed(arguments)
    if o.group:
        child(o)
        return 0
    stop, rows = time.monotonic() + 60 * o.minutes, []
    signal.signal(signal.SIGTERM, leave)
    there = o.toy or has_gpu()
    with tempfile.TemporaryDirectory(prefix="dsel-gpu-check-", dir=o.scratch) as name:
        for group, names in GROUPS.items():
            wanted = [each for each in names.split() if each in o.checks]
            if not there:
                rows += [Row("", note=NO_GPU, name=each) for each in wanted]
            elif wanted:
                o.left = max(0.0, stop - time.monotonic())
                rows += started(o, group, wanted, Path(name))
    show_table(table(rows), to_terminal())
    o.out.mkdir(parents=True, exist_ok=True)
    here = environment()
    facts = {"machine": here["gpus"] or here["processors"], "toy": o.toy, "versions": here["versions"]}
    whole = {**facts, "commit": here["commit"], "rows": [asdict(row) for row in rows]}
    (o.out / "results.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    (o.out / "results.md").write_text(markdown(rows), encoding="utf-8")
    return int(any(row.note.startswith("failed") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
