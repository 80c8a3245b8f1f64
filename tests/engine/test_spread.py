"""Maps by several processes: the same files whoever computes them, and what becomes of processes that die."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsel.cache import Cache
from dsel.embedder.rds import Rds
from dsel.engine import spread as spreading
from dsel.engine.local import Local
from dsel.errors import ConfigError, LostWorker
from dsel.files import read_lines
from dsel.learner import Learner
from dsel.model.causal_lm import CausalLM
from dsel.questions import Answers, Losses
from dsel.reading import Tally
from dsel.scorer.perplexity import Perplexity
from dsel.shards import HERE
from dsel.spent import counted
from tests.conftest import ROOT, make_pool
from tests.engine.readers import Alone, Lengths, Together
from tests.engine.test_launch import gone

TEXTS = [("ab" * (i * 37 % 11)) + str(i) for i in range(23)]  # six shards


def worker(
    folder: Path, faults: dict[str, str] | None = None, kind: type[Lengths] = Lengths, **options: Any
) -> Lengths:
    (folder / "seen").mkdir(exist_ok=True, parents=True)
    return kind(folder / "seen", faults or {}, **options)


def run(reader: Any, folder: Path, processes: int = 2, texts: Sequence[str] = TEXTS) -> Any:
    (folder / "shards").mkdir(exist_ok=True, parents=True)
    sizes = [len(text) for text in texts]
    return Local(processes).map(reader, texts, folder / "shards", title="lengths of texts", sizes=sizes)


def files(folder: Path) -> dict[str, bytes]:
    """All but what each shard has cost, which takes seconds that differ."""
    return {f.name: f.read_bytes() for f in sorted((folder / "shards").iterdir()) if f.suffix != ".spent"}


def pids(folder: Path, what: str = "built") -> list[int]:
    return [int(file.name.split("-")[1]) for file in (folder / "seen").glob(f"{what}-*")]


def read(folder: Path) -> list[str]:
    return sorted(line for file in (folder / "seen").glob("read-*") for line in file.read_text().splitlines())


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_several_processes_leave_the_files_that_one_leaves(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = run(worker(tmp_path / "one", suffix=suffix), tmp_path / "one", processes=1)
    assert pids(tmp_path / "one") == [os.getpid()]
    with caplog.at_level(logging.INFO):
        found = run(worker(tmp_path / "three", suffix=suffix, pause=0.02), tmp_path / "three", processes=3)
    assert list(found) == list(expected)
    assert files(tmp_path / "three") == files(tmp_path / "one")
    assert len(pids(tmp_path / "three")) == 3 and all(map(gone, pids(tmp_path / "three")))
    assert read(tmp_path / "three") == sorted(TEXTS)  # none twice
    assert "lengths of texts: 3 workers" in caplog.text
    assert caplog.text.count("built") == 1  # of three


def test_models_answer_alike_in_other_processes(spec: CausalLM, cache: Cache, tmp_path: Path) -> None:
    """An embedder, a scorer, losses and answers."""
    snapshot = Learner(spec, None, cache, seed=0).snapshot()
    score, embed = Perplexity(hub="", path=spec.path, chat_template="turns"), Rds(model=spec)
    asked = Together([embed, score, Losses(snapshot, 64, whole=True), Answers(snapshot, 6, 64, 0.0)])
    rows = make_pool(24).messages
    with counted() as here:
        expected = HERE.map(asked, rows, tmp_path, title="here")
    with counted() as there:
        found = Local(2).map(asked, rows, tmp_path, title="there")
    assert (there.flops, there.tokens) == (here.flops, here.tokens) and here.tokens > 1000
    assert found == expected and len(set(found)) == 24


def test_results_in_one_file_are_those_of_one_process(tmp_path: Path) -> None:
    wholes = []
    for name, engine in (("one", HERE), ("two", Local(2))):
        reader, file = worker(tmp_path / name, pause=0.02), tmp_path / name / "all.npy"
        found, tally = engine.fill(reader, TEXTS, file, title="lengths")
        assert tally == Tally(23)
        np.testing.assert_array_equal(found[:, 0], [len(text) for text in TEXTS])
        lines = [line for line in read_lines(tmp_path / name / "shard-lengths.jsonl") if line.pop("spent")]
        wholes.append((file.read_bytes(), sorted(lines, key=lambda line: line["shard"])))
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == ["all.npy", "seen", "shard-lengths.jsonl"]
    assert wholes[0] == wholes[1]


def test_what_a_killed_map_has_finished_is_not_computed_again(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set another option"):
        run(worker(tmp_path, {"0": "config"}, pause=0.1), tmp_path)  # the last one
    there = len(list((tmp_path / "shards").glob("*.npy")))
    assert there in (4, 5) and all(map(gone, pids(tmp_path)))
    again = worker(tmp_path / "again", shard_size=4)
    assert [*run(again, tmp_path)["value"][:, 0]] == [len(text) for text in TEXTS]
    assert len(read(tmp_path / "again")) <= 23 - 4 * there


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("once", r"worker \d of 3 of the map was killed by SIGKILL: often because there is no more memory"),
        ("memory", r"worker \d of 3 of the map failed: out of memory \(no more of it\)"),
    ],
)
def test_the_shard_of_a_dead_worker_is_computed_by_another(
    tmp_path: Path, fault: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    import re

    found = run(worker(tmp_path, {TEXTS[3]: fault}, pause=0.02), tmp_path, processes=3)
    assert [*found["value"][:, 0]] == [len(text) for text in TEXTS]
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert re.match(said, line) and line.endswith("what it had begun is computed again by the others")
    assert read(tmp_path) == sorted(TEXTS)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (
            "kill",
            LostWorker,
            r"killed by SIGKILL: .*; shard-lengths of texts-0+-0+4\.npy has cost 2 workers",
        ),
        ("config", ConfigError, "^set another option$"),
        ("error", LostWorker, r"worker \d of 3 of the map failed: RuntimeError: out of luck$"),
        ("exit", LostWorker, r"ended without a word \(exit code 3\); .* has cost 2 workers"),
    ],
)
def test_what_goes_wrong_is_one_line_and_ends_all(
    tmp_path: Path, fault: str, kind: type[Exception], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    longest = max(TEXTS, key=len)
    with pytest.raises(kind, match=message):
        run(worker(tmp_path, {longest: fault}), tmp_path, processes=3)
    assert pids(tmp_path) and all(map(gone, pids(tmp_path)))
    assert ("Traceback" in caplog.text) == (fault == "error")


def test_the_last_worker_is_said_to_be_the_last(tmp_path: Path) -> None:
    with pytest.raises(LostWorker, match=r"was killed by SIGKILL: .*; there is no other one left$"):
        run(worker(tmp_path, {"": "kill"}), tmp_path)


def test_workers_end_when_this_process_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading.Shards, "hand_to", _counted(spreading.Shards.hand_to))
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(worker(tmp_path, pause=0.5), tmp_path)
    assert time.monotonic() - start < 5
    assert len(pids(tmp_path)) == 2 and all(map(gone, pids(tmp_path)))


def _counted(hand_to: Any) -> Any:
    calls: list[int] = []

    def counted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return hand_to(*args)

    return counted


def test_workers_end_with_this_process_however_it_ends(tmp_path: Path) -> None:
    worker(tmp_path)
    (tmp_path / "shards").mkdir()
    program = (
        "from pathlib import Path\nfrom dsel.engine.local import Local\nfrom tests.engine.readers import Lengths\n"
        f"folder = Path({str(tmp_path)!r})\nreader = Lengths(folder / 'seen', {{}}, pause=60)\n"
        "Local(2).map(reader, list('abcdefghijkl'), folder / 'shards', title='long')\n"
    )
    leader = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    deadline = time.monotonic() + 30
    while len(pids(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    leader.send_signal(signal.SIGKILL)
    leader.wait()
    while not all(map(gone, pids(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids(tmp_path)) == 2 and all(map(gone, pids(tmp_path)))


def test_what_would_not_gain_or_cannot_be_sent_stays_in_this_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Unknown(Lengths):
        pass

    for i, (reader, texts, warns) in enumerate(
        [
            (worker(tmp_path / "0", kind=Alone), TEXTS, False),
            (worker(tmp_path / "1"), TEXTS[:4], False),  # one shard
            (worker(tmp_path / "2", kind=Unknown), TEXTS, True),
            (worker(tmp_path / "3"), [f"{text}".encode() for text in TEXTS], True),
        ]
    ):
        caplog.clear()
        run(reader, tmp_path / str(i), texts=texts)  # type: ignore[arg-type]
        assert pids(tmp_path / str(i)) == [os.getpid()]
        assert ("this process computes it alone" in caplog.text) == warns
