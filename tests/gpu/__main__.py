"""Whether all of it runs on this machine's GPU, and how fast: `make gpu-check`.

    python -m tests.gpu                    # everything, in under 20 minutes on one H100; nothing is downloaded
    python -m tests.gpu lora nll           # some checks
    python -m tests.gpu --toy              # the same code on the processor with models of a few thousand weights

Models have random weights of real shapes. What a machine lacks is skipped by name. The table at the end is written to
results.json and results.md as well. Exit code 1 when a check failed.
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
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

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

    theirs.disable_progress_bar()
    machine = Machine("cpu" if o.toy else "cuda", TOY if o.toy else REAL, o.folder)
    for name, check in checks(o.group).items():
        if name in o.checks:
            for row in ran(machine, name, check, o.until):
                with o.rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
            with o.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"done": name}) + "\n")


def started(o: argparse.Namespace, group: str, wanted: Sequence[str], folder: Path) -> list[Row]:
    """The rows of a group, from a process of its own that ends with the time there is."""
    rows, until = folder / f"{group}.jsonl", time.monotonic() + o.left
    command = [sys.executable, "-m", "tests.gpu", *wanted, "--group", group, "--folder", str(folder)]
    command += ["--rows", str(rows), "--until", str(until), *(["--toy"] if o.toy else [])]
    settings = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    settings |= {"CUDA_VISIBLE_DEVICES": ""} if o.toy else {}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **settings, "PYTHONPATH": path}, start_new_session=True
    )
    try:
        code, why = process.wait(o.left + 60), ""
    except subprocess.TimeoutExpired:
        code, why = 0, "failed: it did not end in time"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()] if rows.exists() else []
    done = {line["done"] for line in lines if "done" in line}
    found = [Row(**line) for line in lines if "done" not in line]
    why = why or f"failed: the process of {group} ended with {code}"
    return found + [Row("", note=why, name=name) for name in wanted if name not in done]


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
    end, rows = time.monotonic() + 60 * o.minutes, []
    there = o.toy or has_gpu()
    with tempfile.TemporaryDirectory(prefix="dsel-gpu-check-", dir=o.scratch) as name:
        for group, names in GROUPS.items():
            wanted = [each for each in names.split() if each in o.checks]
            if not there:
                rows += [Row("", note=NO_GPU, name=each) for each in wanted]
            elif wanted:
                o.left = max(0.0, end - time.monotonic())
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
