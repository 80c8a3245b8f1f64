"""Fuzzing of what reads files of others: data files, records, W&B logs, reports and comparisons.

`python -m tests.faults.fuzz --minutes 10` gives each target its share of the minutes. Whatever is not examples and
counts, a `ConfigError` or an `OddRecord` of one line is a failure, and so is a crash, a hang, or too much memory:
inputs run in a process of their own, and the one it failed at stays in `.fuzz/TARGET/`, with the traceback beside it.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import io
import json
import logging
import os
import select
import shutil
import subprocess
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from dsel.errors import ConfigError
from dsel.files import DIGEST, read_json, unsealed
from dsel.files import _content as digest_in
from dsel.record.facts import OddRecord, parse
from tests.data.made import CHATS, KINDS, ROWS, as_arrow, as_lines, as_parquet, as_table, outcome

ROOT = Path(__file__).resolve().parents[2]
HANG = 30  # seconds for one input
MEMORY = 16 * 2**30  # bytes of addresses, most of them those of libraries
AT_ONCE = 100  # inputs from one seed

Files = dict[str, bytes]


@dataclass(frozen=True)
class Target:
    """Files to be made, and what is done with the folder they are in: it raises for what should not have been."""

    files: Callable[[], st.SearchStrategy[Files]]
    check: Callable[[Path], None]


# --- inputs -------------------------------------------------------------------------------------------------

POOR = st.characters(categories=["Lu", "Ll", "Nd", "Po", "Zs", "Cc", "Cs"])
WORDS = st.one_of(
    st.sampled_from(
        ["", " ", "user", "assistant", "human", "gpt", "tool", "${oc.env:HOME}", "???", "nan", "1e999", "\0"]
    ),
    st.text(POOR, max_size=12),
)
NAMES = st.one_of(
    st.sampled_from(
        "messages conversations prompt completion instruction input output question answer history system tools chosen "
        "rejected text role content from value parts tool_calls weight train id source dataset score data columns "
        "label images thinking instances index _target_ test".split()
    ),
    st.text(POOR, max_size=6),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), WORDS, st.sampled_from([10**400, [], {}])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.one_of(st.sampled_from(["user", "assistant", "system"]), SCALARS),
            "content": st.one_of(WORDS, VALUES),
        },
        optional={"weight": SCALARS, "tool_calls": VALUES, "name": SCALARS},
    ),
    max_size=4,
)
OBJECTS = st.one_of(
    st.dictionaries(NAMES, VALUES, max_size=6),
    st.fixed_dictionaries({"prompt": WORDS, "completion": WORDS}, optional={"input": VALUES, "score": SCALARS}),
    st.fixed_dictionaries({"messages": TURNS}, optional={"tools": VALUES, "source": SCALARS, "id": SCALARS}),
)


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with some bytes flipped, written over, put in, taken out, said again, or cut off."""
    out = bytearray(content)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(0, len(out) - 1)))
        size = draw(st.sampled_from([1, 1, 2, 4, 8, 64, 1000]))
        ways = ["flip", "number", "over", "insert", "delete", "repeat", "cut"]
        way = draw(st.sampled_from(ways))
        if way == "flip" and out:
            out[at] ^= 1 << draw(st.integers(0, 7))
        elif way == "number":
            value = draw(st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31), 2**24, 255, 2**63 - 1]))
            out[at : at + 8] = (value % 2**64).to_bytes(8, "little")[: draw(st.sampled_from([4, 8]))]
        elif way == "over":
            out[at : at + size] = draw(st.binary(min_size=min(size, 64), max_size=64))
        elif way == "insert":
            out[at:at] = draw(
                st.one_of(st.binary(max_size=8), st.sampled_from([b'"', b"\n", b"\0", b"[" * 2000, b"{"]))
            )
        elif way == "delete":
            del out[at : at + size]
        elif way == "repeat":
            out[at:at] = out[at : at + size]
        elif way == "cut" and draw(st.booleans()):
            del out[at:]
    return bytes(out)


@cache
def kind_of(name: str) -> bytes:
    return KINDS[name]()


def damaged_files() -> st.SearchStrategy[Files]:
    names = st.sampled_from(sorted(KINDS))
    return names.flatmap(lambda name: mutated(kind_of(name)).map(lambda content: {name: content}))


def encoded(write: Callable[[], bytes]) -> bytes | None:
    """What a library makes of made-up rows; None where it refuses them."""
    try:
        return write()
    except (pa.ArrowException, ValueError, TypeError, OverflowError, csv_error(), RecursionError):
        return None


def csv_error() -> type[Exception]:
    import csv

    return csv.Error


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def odd_rows() -> st.SearchStrategy[Files]:
    """Rows of all shapes, as libraries write them."""

    def written(rows: list[Any], name: str) -> Files:
        texts = [{str(k): str(v) for k, v in row.items()} for row in rows]
        names = sorted({name for row in texts for name in row})
        table = [{name: row.get(name, "") for name in names} for row in texts]
        ways: dict[str, Callable[[], bytes]] = {
            "a.jsonl": lambda: "".join(json.dumps(row) + "\n" for row in rows).encode(),
            "a.json": lambda: json.dumps(rows).encode(),
            "b.json": lambda: json.dumps({"data": rows, "version": 1}).encode(),
            "c.json": lambda: json.dumps(dict(enumerate(rows))).encode(),
            "raw.jsonl": lambda: as_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)),
            "a.csv": lambda: as_table(table),
            "a.parquet": lambda: as_parquet(rows),
            "text.parquet": lambda: as_parquet(table),
            "a.arrow": lambda: as_arrow(rows, stream=True),
            "text.arrow": lambda: as_arrow(table, stream=False),
        }
        content = encoded(ways[name])
        return {"a.jsonl": ways["a.jsonl"]()} if content is None else {name: content}

    names = ["a.jsonl", "a.json", "b.json", "c.json", "raw.jsonl", "a.csv", "a.parquet", "text.parquet", "a.arrow",
             "text.arrow"]  # fmt: skip
    return st.builds(written, st.lists(OBJECTS, min_size=1, max_size=5), st.sampled_from(names))


def any_text() -> st.SearchStrategy[Files]:
    """Text that is no more than like a format."""
    signs = st.lists(
        st.sampled_from(
            ['"', ",", "\n", "\r", "\r\n", "prompt", "completion", "{", "}", "[", "]", ":", "a", "\ufeff", "\0", ";",
             "\t", '""', "\\", "1", "\\ud800", "null", "\u2028", "é", '{"prompt": "p", "completion": "c"}', "sep=;\n"]
        ),
        max_size=40,
    ).map("".join)  # fmt: skip
    heads = st.sampled_from(
        ["", "prompt,completion\n", "prompt;completion;x\n", '{"prompt": "p", "completion": "c"}\n']
    )
    encodings = st.sampled_from(["utf-8", "utf-16", "utf-16-le", "utf-32", "cp1252"])
    names = st.sampled_from(["a.csv", "a.tsv", "a.json", "a.jsonl"])
    return st.builds(
        lambda name, head, text, encoding: {name: (head + text).encode(encoding, "replace")},
        names, heads, signs, encodings,
    )  # fmt: skip


def check_rows(folder: Path) -> None:
    """Every file is examples and counts, as many as it has rows, or one line."""
    for path in folder.iterdir():
        found = outcome(path)
        if path.suffix == ".jsonl" and not found.line and not path.name.startswith("wide"):
            content = path.read_bytes()
            lines = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff").split("\n")
            lines = [line for line in lines if line.strip()]
            plain = json.detect_encoding(content) in ("utf-8", "utf-8-sig")
            if plain and isinstance(first_of(lines), dict):
                assert found.rows == len(lines), f"{found} of {len(lines)} lines"
        if path.suffix == ".parquet" and not found.line:
            assert found.rows == pq.ParquetFile(path).metadata.num_rows


def first_of(lines: list[str]) -> Any:
    try:
        return json.loads(lines[0])
    except (ValueError, RecursionError, IndexError):
        return None


# --- records, logs and reports ------------------------------------------------------------------------------


@cache
def honest() -> dict[str, Any]:
    """The facts of a finished run."""
    from tests.report.made import made_record

    folder = scratch() / "honest"
    made_record(folder, "experiments=quickstart", values={"procedural": 0.5}, silhouette=0.1)
    return unsealed(read_json(folder / "record.json"))


def sealed(facts: dict[str, Any]) -> bytes:
    """The record of these facts as if a run had written it: one without the right digest is not looked into."""
    plain = json.loads(json.dumps(facts))
    return json.dumps({**plain, DIGEST: digest_in(plain)}).encode()


@cache
def scratch() -> Path:
    import tempfile

    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*at, key)
        yield from paths(each, (*at, key))


@st.composite
def odd_record(draw: st.DrawFn) -> bytes:
    """The honest facts with other values at some places, or with other bytes."""
    facts = copy.deepcopy(honest())
    for _ in range(draw(st.integers(1, 4))):
        *parents, last = draw(st.sampled_from(list(paths(facts))))
        at = facts
        for key in parents:
            at = at[key]
        if draw(st.booleans()):
            at[last] = draw(VALUES)
        elif isinstance(at, dict):
            at[draw(NAMES)] = at.pop(last)
    content = sealed(facts)
    return draw(mutated(content)) if draw(st.integers(0, 9)) == 0 else content


def check_record(folder: Path) -> None:
    try:
        parse((folder / "record.json").read_bytes())
    except OddRecord as odd:
        one_line(odd)


def odd_log() -> st.SearchStrategy[Files]:
    """The log of a W&B run: entries of any content under right checksums, or with other bytes."""
    from wandb.proto import wandb_internal_pb2 as pb

    def log(summary: list[tuple[str, Any]], config: list[tuple[str, Any]], code: int) -> bytes:
        entries = [pb.Record(), pb.Record(), pb.Record()]
        for items, into in ((config, entries[0].run.config), (summary, entries[1].summary)):
            for name, value in items:
                into.update.add(key=name.encode("utf-8", "replace").decode(), value_json=value)
        entries[2].exit.exit_code = code
        out = b":W&B\xee\xbe\x00"[:7].ljust(7, b"\0")
        for entry in entries:
            part = entry.SerializeToString()[:30_000]
            head = zlib.crc32(part, zlib.crc32(b"\1")).to_bytes(4, "little") + len(part).to_bytes(2, "little")
            out += head + b"\1" + part
        return out

    texts = st.one_of(VALUES.map(json.dumps), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
    items = st.lists(
        st.tuples(st.one_of(NAMES, st.sampled_from(["record", "choices", "experiments"])), texts), max_size=4
    )
    whole = st.builds(log, items, items, st.integers(-5, 300))
    return st.one_of(whole, whole.flatmap(mutated)).map(lambda content: {"run-1.wandb": content})


def check_log(folder: Path) -> None:
    from dsel.report.runs import read_log

    try:
        read_log(folder / "run-1.wandb")
    except OddRecord as odd:
        one_line(odd)


def odd_runs() -> st.SearchStrategy[Files]:
    """Runs of which some are odd, with tables for the figures."""
    table = st.dictionaries(
        st.sampled_from(["x", "y", "cluster", "chosen", "round", "weight", "size"]),
        st.lists(st.one_of(st.integers(-5, 5), st.floats()), min_size=3, max_size=3), max_size=7,
    ).map(lambda columns: encoded(lambda: as_parquet_columns(columns)) or b"PAR1")  # fmt: skip
    maps = st.one_of(table, mutated(as_parquet(ROWS)))

    def files(records: list[bytes], maps: list[bytes]) -> Files:
        out = {"0/record.json": sealed(honest())}
        for number, record in enumerate(records, 1):
            out[f"{number}/record.json"] = record
        for number, content in enumerate(maps):
            out[f"{number}/map.parquet"] = out[f"{number}/rounds/weights.parquet"] = content
        return out

    return st.builds(files, st.lists(odd_record(), min_size=4, max_size=10), st.lists(maps, max_size=3))


def as_parquet_columns(columns: dict[str, list[Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def check_report(folder: Path) -> None:
    """The report of the folder: the honest run is in it, whatever else there is."""
    from dsel.report.__main__ import make
    from dsel.report.__main__ import parse as arguments
    from dsel.report.document import show, write

    with redirect_stdout(io.StringIO()):
        try:
            report = make(arguments(["experiments=quickstart", f"runs={folder}"]))
            files = write(report, scratch() / "report", command="the command")
            show(report, files)
        except ConfigError as error:
            one_line(error)
            raise AssertionError(f"the honest run is not reported: {error}") from error
    assert report.tables[0].placed


# --- subsets ------------------------------------------------------------------------------------------------


@cache
def chosen() -> dict[str, bytes]:
    """The files of a run that chose four examples, with scores and clusters of its pool."""
    from dsel.clusterer.diagnostics import table
    from dsel.pool import Example, Pool
    from dsel.record.writer import Record
    from dsel.selector.base import Selection

    folder = scratch() / "run"
    folder.mkdir()
    examples = [Example(f"e{i}", row["messages"], "s", row, {"quality": float(i)}) for i, row in enumerate(CHATS[:8])]
    pool, record = Pool.build("eight", examples), Record(folder, {"seed": 0}, {"selector": "by_hand"})
    record.pool(pool, 4)
    record.round(Selection(np.array([3, 1, 4, 6]), scores=np.float32([1, 2, 3, 4])), pool)
    record.finish("finished")
    ids = [f"e{i}" for i in range(8)]
    pq.write_table(pa.table({"id": ids, "score": np.arange(8.0)}), folder / "scores.parquet")
    pq.write_table(table(np.arange(8) % 3, np.ones(8), ids, ["s", "t"] * 4), folder / "clusters.parquet")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@st.composite
def odd_subsets(draw: st.DrawFn) -> Files:
    """Two runs of the same files, but that some of the second's are others or damaged; and a data file."""
    files = {f"a/{name}": content for name, content in chosen().items()}
    files |= {f"b/{name}": content for name, content in chosen().items()}
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(chosen())))
        way = draw(st.sampled_from(["bytes", "bytes", "gone", "facts", "table", "rows"]))
        if way == "gone":
            files.pop(f"b/{name}", None)
        elif way == "facts":
            facts = unsealed(json.loads(chosen()["record.json"]))
            facts[draw(st.sampled_from(sorted(facts)))] = draw(VALUES)
            files["b/record.json"] = sealed(facts)
        elif way == "rows":
            rows = draw(st.lists(OBJECTS, max_size=4))
            files["b/selected.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
        elif way == "table":
            name = draw(st.sampled_from([name for name in sorted(chosen()) if name.endswith(".parquet")]))
            table = pq.read_table(io.BytesIO(chosen()[name]))
            column = draw(st.sampled_from(table.column_names))
            values = draw(st.lists(st.one_of(SCALARS, VALUES), min_size=len(table), max_size=len(table)))
            content = encoded(lambda table=table, column=column, values=values: replaced(table, column, values))  # type: ignore[misc]
            files[f"b/{name}"] = content or b""
        else:
            files[f"b/{name}"] = draw(mutated(chosen()[name]))
    if draw(st.booleans()):
        files["pool.jsonl"] = draw(st.one_of(st.just(as_lines(CHATS[:8])), mutated(as_lines(CHATS[:8]))))
    return files


def replaced(table: pa.Table, column: str, values: list[Any]) -> bytes:
    sink = io.BytesIO()
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values)), sink)
    return sink.getvalue()


def check_comparison(folder: Path) -> None:
    from dsel.compare.__main__ import run

    pool = ["--pool", str(folder / "pool.jsonl")] if (folder / "pool.jsonl").exists() else []
    for a, b in (("a", "b"), ("b", "a"), ("b/selection.parquet", "b/selected.jsonl")):
        if not ((folder / a).exists() and (folder / b).exists()):
            continue
        with redirect_stdout(io.StringIO()):
            try:
                run([str(folder / a), str(folder / b), *pool, "--out", str(scratch() / "comparison")])
            except ConfigError as error:
                one_line(error)


def one_line(error: Exception) -> None:
    assert str(error) and len(str(error).splitlines()) == 1, str(error)


TARGETS: dict[str, Target] = {
    "damaged-files": Target(damaged_files, check_rows),
    "odd-rows": Target(odd_rows, check_rows),
    "text": Target(any_text, check_rows),
    "records": Target(lambda: odd_record().map(lambda content: {"record.json": content}), check_record),
    "logs": Target(odd_log, check_log),
    "reports": Target(odd_runs, check_report),
    "subsets": Target(odd_subsets, check_comparison),
}

# --- one process of inputs ----------------------------------------------------------------------------------


def work(name: str, folder: Path, start: int, inputs: int, until: float) -> None:
    """Run inputs of one target until there were enough, or the time is over; a line for each on stdout."""
    limit_memory()
    logging.disable(logging.CRITICAL)
    said, sys.stdout = sys.stdout, io.StringIO()
    target, now = TARGETS[name], folder / "now"
    count = 0

    def one(files: Files) -> None:
        nonlocal count
        if count >= inputs or time.monotonic() > until:
            return
        shutil.rmtree(now, ignore_errors=True)
        for file, content in files.items():
            (now / file).parent.mkdir(parents=True, exist_ok=True)
            (now / file).write_bytes(content)
        said.write("begin\n")
        said.flush()
        try:
            _fail_as_told()
            target.check(now)
        except Exception:
            keep(folder, now, traceback.format_exc())
            said.write("failed\n")
        else:
            said.write("ended\n")
        said.flush()
        count += 1

    while count < inputs and time.monotonic() < until:
        options = settings(
            max_examples=min(AT_ONCE, inputs - count), deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        seed(start)(options(given(target.files())(one)))()
        start += 1


def _fail_as_told() -> None:
    """For the test of this module."""
    way = os.environ.get("DSEL_FUZZ_FAILS")
    if way == "raises":
        raise ZeroDivisionError
    if way == "crashes":
        os.kill(os.getpid(), 11)
    if way == "hangs":
        time.sleep(60)


def keep(folder: Path, now: Path, why: str) -> None:
    """Save an input that failed; the same failure at the same line is kept once."""
    lines = [line for line in why.splitlines() if line.startswith("  File")]
    name = hashlib.sha256("\n".join(lines[-3:] or [why]).encode()).hexdigest()[:12]
    place = folder / name
    if not place.exists():
        shutil.copytree(now, place)
        (folder / f"{name}.txt").write_text(why, encoding="utf-8", errors="backslashreplace")


def limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard), hard))


# --- all of them --------------------------------------------------------------------------------------------


def fuzz(name: str, folder: Path, *, seconds: float, inputs: int = 10**9, start: int = 0) -> tuple[int, int]:
    """Run a target in processes that may die; returns (inputs, failures)."""
    done = failed = 0
    end = time.monotonic() + seconds
    folder.mkdir(parents=True, exist_ok=True)
    while done < inputs and (left := end - time.monotonic()) > 0:
        asked = [name, str(folder), str(start + done), str(inputs - done), str(left)]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fuzz", "--work", *asked],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"},
            stdout=subprocess.PIPE, stderr=(folder / "stderr.txt").open("wb"),
        )  # fmt: skip
        assert process.stdout is not None
        began, why = False, ""
        while not why:
            if not select.select([process.stdout], [], [], HANG if began else 10 * HANG)[0]:
                why = f"nothing for {HANG} seconds"
                break
            line = process.stdout.readline()
            if not line:
                break
            began = line == b"begin\n"
            done += not began
            failed += line == b"failed\n"
        if why:
            process.kill()
        process.stdout.close()
        code = process.wait()
        if began:  # the input that was being read when it ended
            keep(folder, folder / "now", why or f"the process ended with {code}")
            done, failed = done + 1, failed + 1
        elif code:
            raise SystemExit(f"{name}: {(folder / 'stderr.txt').read_text(encoding='utf-8', errors='replace')}")
    shutil.rmtree(folder / "now", ignore_errors=True)
    return done, failed


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        name, folder, start, inputs, seconds = sys.argv[2:]
        work(name, Path(folder), int(start), int(inputs), time.monotonic() + float(seconds))
        return
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="for all targets together (default: 10)")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first input (default: the time)")
    options = parser.parse_args()
    total = failures = 0
    for name in options.targets:
        seconds = 60 * options.minutes / len(options.targets)
        done, failed = fuzz(name, ROOT / ".fuzz" / name, seconds=seconds, start=options.seed)
        total, failures = total + done, failures + failed
        sys.stdout.write(f"{name}: {done:,} inputs, {failed:,} failures\n")
        sys.stdout.flush()
    kept = f"; kept in .fuzz/, seed {options.seed}" if failures else ""
    sys.stdout.write(f"all: {total:,} inputs, {failures:,} failures{kept}\n")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
