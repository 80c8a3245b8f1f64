"""Run folders from anywhere, given to compare: nothing in them runs, and what is wrong with them is one line."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsel.compare.comparison import compare
from dsel.compare.report import show, write
from dsel.compare.subset import read, read_pool
from dsel.errors import ConfigError
from dsel.pool import Example, Pool
from dsel.record.tables import write_scores, write_selection
from dsel.record.writer import Record
from dsel.selector.base import Selection

Change = Callable[[Path], None]


def example(i: int) -> Example:
    asked, answer = f"Say the number {i}.", f"number {i}"
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return Example(f"e{i}", messages, "even" if i % 2 == 0 else "odd", {"prompt": asked, "completion": answer})


def made(folder: Path, indices: list[int]) -> Path:
    """The folder of a run that chose these of 40 examples, with all its tables."""
    folder.mkdir()
    pool = Pool.build("made", [example(i) for i in range(40)])
    config = {"seed": 0, "data": {"_target_": "dsel.data.local.Local", "columns": None}, "scorer": {"name": "s"}}
    record = Record(folder, config, {"selector": "kmq", "scorer": "length", "data": "local"})
    record.pool(pool, len(indices))
    scores = np.arange(len(indices), dtype=np.float32)
    write_selection(folder, [Selection(np.array(indices), clusters=np.array(indices) % 2, scores=scores)], pool)
    write_scores(folder, pool, np.arange(40, dtype=np.float32))
    clusters = {
        "cluster": [0, 1],
        "size": [20, 20],
        "medoids": [["e0"], ["e1"]],
        "sources": [[("even", 1.0)], [("odd", 1.0)]],
    }
    kinds = [("cluster", pa.int64()), ("size", pa.int64()), ("medoids", pa.list_(pa.string()))]
    kinds.append(("sources", pa.map_(pa.string(), pa.float64())))
    pq.write_table(pa.table(clusters, schema=pa.schema(kinds)), folder / "clusters.parquet")
    record.finish("finished")
    return folder


def compared(a: Path, b: Path, out: Path) -> dict[str, Any]:
    result = compare(read(a), read(b))
    show(result)
    write(result, out)
    return result


def fact(path: str, value: Any) -> Change:
    """Another value at a dotted path of the record."""

    def change(folder: Path) -> None:
        facts = copy.deepcopy(json.loads((folder / "record.json").read_text()))
        *parents, last = path.split(".")
        at = facts
        for name in parents:
            at = at[name]
        at[last] = value
        facts = {k: v for k, v in facts.items() if k not in ("format", "digest")}  # an older one: any change is read
        (folder / "record.json").write_text(json.dumps(facts))

    return change


def content(name: str, data: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(data) and None  # type: ignore[return-value]


def column(file: str, name: str, values: Any) -> Change:
    """Another column in a table; None: it goes."""

    def change(folder: Path) -> None:
        table = pq.read_table(folder / file)
        place = table.column_names.index(name)
        table = table.remove_column(place) if values is None else table.set_column(place, name, pa.array(values))
        pq.write_table(table, folder / file)

    return change


def no_file(name: str, kind: str) -> Change:
    """Something else under the name of a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        if kind == "folder":
            (folder / name).mkdir()
        elif kind == "pipe":
            os.mkfifo(folder / name)
        else:
            (folder / name).symlink_to({"endless": "/dev/zero", "loop": name}[kind])

    return change


def flipped(name: str, at: float) -> Change:
    """Some bytes of a file the other way round."""

    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        place = int(at * (len(data) - 1))
        for i in range(place, min(place + 4, len(data))):
            data[i] ^= 0xFF
        (folder / name).write_bytes(data)

    return change


n = 10
STOPS: dict[str, Change] = {
    "record torn": content("record.json", b'{"status": "fin'),
    "record list": content("record.json", b"[]"),
    "record text": content("record.json", b"\xff\xfe\x00"),
    "record deep": content("record.json", b"[" * 100_000),
    "record nan": content("record.json", b'{"budget": NaN}'),
    "record empty": content("record.json", b""),
    "record folder": no_file("record.json", "folder"),
    "record pipe": no_file("record.json", "pipe"),
    "record endless": no_file("record.json", "endless"),
    "choices list": fact("choices", []),
    "choices of a number": fact("choices.selector", 5),
    "config text": fact("config", "seed: 0"),
    "config null": fact("config", None),
    "pool list": fact("pool", []),
    "pool text": fact("pool.examples", "many"),
    "pool negative": fact("pool.examples", -1),
    "pool name": fact("pool.name", ["x"]),
    "fingerprint list": fact("pool.fingerprint", ["x"]),
    "status list": fact("status", ["x"]),
    "selection empty": content("selection.parquet", b""),
    "selection text": content("selection.parquet", b"PAR1 and nothing"),
    "selection folder": no_file("selection.parquet", "folder"),
    "selection pipe": no_file("selection.parquet", "pipe"),
    "selection endless": no_file("selection.parquet", "endless"),
    "no index": column("selection.parquet", "index", None),
    "no id": column("selection.parquet", "id", None),
    "no source": column("selection.parquet", "source", None),
    "index text": column("selection.parquet", "index", ["x"] * n),
    "index null": column("selection.parquet", "index", [None] * n),
    "index fraction": column("selection.parquet", "index", [0.5] * n),
    "index list": column("selection.parquet", "index", [[1]] * n),
    "round text": column("selection.parquet", "round", ["one"] * n),
    "round null": column("selection.parquet", "round", [1] * (n - 1) + [None]),
    "id null": column("selection.parquet", "id", [None] * n),
    "id list": column("selection.parquet", "id", [["x"]] * n),
    "source mapping": column("selection.parquet", "source", [{"_target_": "os.system"}] * n),
    "score text": column("selection.parquet", "score", ["high"] * n),
    "cluster list": column("selection.parquet", "cluster", [[0]] * n),
    "rows empty": content("selected.jsonl", b""),
    "rows of another": content("selected.jsonl", b'{"b": "a"}\n' * 10),
    "rows torn": content("selected.jsonl", b'{"q": "a", "a": "b"\n' * 10),
    "rows binary": content("selected.jsonl", bytes(range(256))),
    "rows deep": content("selected.jsonl", b"[" * 100_000 + b"\n"),
    "rows of lists": content("selected.jsonl", b'{"prompt": [1], "completion": [2]}\n' * 10),
    "rows folder": no_file("selected.jsonl", "folder"),
    "rows pipe": no_file("selected.jsonl", "pipe"),
    "rows endless": no_file("selected.jsonl", "endless"),
    **{f"selection flipped at {at}": flipped("selection.parquet", at) for at in (0.99, 1.0)},
}  # fmt: skip

LEFT_OUT: dict[str, Change] = {
    "scores empty": content("scores.parquet", b""),
    "scores text": content("scores.parquet", b"x" * 100),
    "scores of text": column("scores.parquet", "score", ["x"] * 40),
    "scores of lists": column("scores.parquet", "score", [[1.0]] * 40),
    "scores null": column("scores.parquet", "score", [None] * 40),
    "scores without id": column("scores.parquet", "id", None),
    "scores folder": no_file("scores.parquet", "folder"),
    "scores pipe": no_file("scores.parquet", "pipe"),
    "scores flipped": flipped("scores.parquet", 1.0),
    "clusters empty": content("clusters.parquet", b""),
    "clusters text": content("clusters.parquet", b"PAR1" * 50),
    "clusters pipe": no_file("clusters.parquet", "pipe"),
    "cluster sizes": column("clusters.parquet", "size", ["x", "y"]),
    "cluster negative": column("clusters.parquet", "size", [-5, 5]),
    "cluster null": column("clusters.parquet", "cluster", [None, 1]),
    "no medoids": column("clusters.parquet", "medoids", None),
    "sources text": column("clusters.parquet", "sources", ["even", "odd"]),
    "sources null": column("clusters.parquet", "sources", [None, None]),
    "sources numbers": column("clusters.parquet", "sources", [[1, 2], [3, 4]]),
    "sources shares": column("clusters.parquet", "sources", [[["even", "x"]], [["odd", "y"]]]),
}

GOES_ON: dict[str, Change] = {
    "scores infinite": column("scores.parquet", "score", [float("inf")] * 40),
    "scores nan": column("scores.parquet", "score", [float("nan")] * 40),
    "scores of one id": column("scores.parquet", "id", ["e1"] * 40),
    "no pool": fact("pool", {}),
    "pool of none": fact("pool.examples", 0),
    "scorer a list": fact("config.scorer", ["x"]),
    "scorer a class": fact("config.scorer", {"_target_": "os.system", "command": "false"}),
    "columns a list": fact("config.data", {"columns": ["prompt"]}),
    "columns a class": fact("config.data", {"columns": {"_target_": {"_target_": "os.system"}}}),
    "data a number": fact("config.data", 5),
    "seed a reference": fact("config.extra", "${oc.env:HOME}"),
    "source null": column("selection.parquet", "source", [None] * n),
    "cluster null": column("selection.parquet", "cluster", [None] * n),
    "cluster large": column("selection.parquet", "cluster", [2**62] * n),
    "score infinite": column("selection.parquet", "score", [float("-inf")] * n),
    "rounds large": column("selection.parquet", "round", [2**62] * n),
    "rounds negative": column("selection.parquet", "round", [-(2**62)] * n),
    "id the same": column("selection.parquet", "id", ["x"] * n),
    "id of codes": column("selection.parquet", "id", ["\x1b[2J\x00[/red]${oc.env:HOME}"] * n),
    "source of codes": column("selection.parquet", "source", ["$x_{$\x1b[2J|<b>"] * n),
    "clusters without rows": lambda folder: pq.write_table(
        pq.read_table(folder / "clusters.parquet").slice(0, 0), folder / "clusters.parquet"
    ),
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("honest") / "run", list(range(5, 20)))


def test_there_are_many() -> None:
    assert len(STOPS) + len(LEFT_OUT) + len(GOES_ON) >= 74


@pytest.mark.parametrize("name", STOPS)
def test_what_is_no_subset_is_one_line(name: str, honest: Path, tmp_path: Path) -> None:
    odd = made(tmp_path / "odd", list(range(10)))
    STOPS[name](odd)
    with pytest.raises(ConfigError) as error:
        compared(odd, honest, tmp_path / "out")
    assert "odd" in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("name", LEFT_OUT)
def test_an_odd_table_is_named_and_the_rest_compared(name: str, honest: Path, tmp_path: Path) -> None:
    odd = made(tmp_path / "odd", list(range(10)))
    LEFT_OUT[name](odd)
    result = compared(odd, honest, tmp_path / "out")
    assert result["overlap"]["both"] == 5
    notes = [note for note in result["notes"] if note.startswith("left out ")]
    if name != "scores null":  # those are no scores, and none is odd
        assert len(notes) == 1 and "\n" not in notes[0] and str(odd) in notes[0]


@pytest.mark.parametrize("name", GOES_ON)
def test_what_is_only_unusual_is_compared(
    name: str, honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = made(tmp_path / "odd", list(range(10)))
    GOES_ON[name](odd)
    for a, b in ((odd, honest), (honest, odd)):
        result = compared(a, b, tmp_path / "out")
        assert result["a"]["examples"] + result["b"]["examples"] == 25
    written = (tmp_path / "out" / "comparison.md").read_text() + capsys.readouterr().out
    assert "\x1b" not in written and os.environ["HOME"] + "}" not in written


# --- the pool of a run ---------------------------------------------------------------------------------------

TARGETS: list[Any] = [
    "os.system", "shutil.copyfile", "torch.load", "dsel.cache.Cache", "dsel.data.reader.gzip.open", "dsel.run.main",
    "dsel.data.local.Local.load", "builtins.eval", "subprocess.Popen", "dsel.data.local.log.info", "", None, 5,
    ["os.system"],
    {"_target_": "os.system"}, "${oc.env:HOME}", "dsel.data.local", "dsel.selector.random.Random", "pathlib.Path.touch",
    "dsel.data.local.need_path",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_only_our_data_components_load_a_pool(target: Any, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    odd = made(tmp_path / "odd", list(range(10)))
    fact("config.data", {"_target_": target, "path": str(canary), "self": str(canary), "command": f"touch {canary}"})(
        odd
    )
    with pytest.raises(ConfigError, match=r"its record has data\._target_=.*, no setting: name a file with --pool"):
        read_pool(odd)
    assert not canary.exists()


@pytest.mark.parametrize(
    "choice", ["local.yaml", "../data/local", "_hub", "mine", "", None, 5, ["local"], {"local": 1}], ids=str
)
def test_a_pool_is_of_a_data_set_of_ours(choice: Any, tmp_path: Path) -> None:
    odd = made(tmp_path / "odd", list(range(10)))
    fact("choices.data", choice)(odd)
    with pytest.raises(ConfigError):
        read_pool(odd)


OPTIONS: list[tuple[str, Any]] = [
    ("path", {"_target_": "pathlib.Path.touch", "self": "canary"}), ("path", 5), ("path", [["x"]]), ("path", None),
    ("path", {"a": None}), ("path", "${oc.env:HOME}"), ("columns", ["x"]), ("columns", 5),
    ("columns", {"prompt": ["x"]}),
    ("limit", "many"), ("limit", -1), ("limit", [1]), ("on_bad_row", ["skip"]), ("on_bad_row", None),
    ("holdout", "half"), ("holdout", {"_target_": "os.getpid"}), ("holdout", -5), ("name", ["x"]), ("name", None),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), OPTIONS, ids=str)
def test_options_of_a_recorded_pool_are_plain_values(option: str, value: Any, tmp_path: Path) -> None:
    odd = made(tmp_path / "odd", list(range(10)))
    file = tmp_path / "pool.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"say {i}", "completion": f"{i}"}) + "\n" for i in range(9)))
    fact("config.data", {"_target_": "dsel.data.local.Local", "path": str(file), option: value})(odd)
    with pytest.raises(ConfigError) as error:
        read_pool(odd)
    assert "\n" not in str(error.value)
