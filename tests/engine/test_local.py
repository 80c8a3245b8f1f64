"""What an engine does with many rows: order, shards that are files, and a worker that is built once or not at all."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.config_groups import NO_RESULT
from dsel.described import describe, make
from dsel.engine.local import Local
from dsel.errors import ConfigError
from dsel.reading import with_counts
from dsel.scorer.base import Reader
from dsel.shards import Read
from tests.conftest import ROOT

TEXTS = [("ab" * (i * 37 % 11)) + str(i) for i in range(23)]


class Killed(BaseException):
    """Stands for a process that ends here."""


@dataclass
class Lengths:
    """The length of each text; what it was built and given is kept, and it may end on the way."""

    shard_size: int = 5
    suffix: str = ".npy"
    dies_at: int | None = None
    fails_with: BaseException | None = None
    built: list[int] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)

    def build(self) -> Read:
        self.built.append(1)
        return self.read

    def read(self, rows: list[Any]) -> Any:
        if len(self.calls) == self.dies_at:
            raise self.fails_with or Killed
        self.calls.append(rows)
        return [f"{text}\u2028!" for text in rows] if self.suffix == ".json" else np.array([len(t) for t in rows])


def run(worker: Any, folder: Path, rows: list[str] = TEXTS, **options: Any) -> Any:
    return Local().map(worker, rows, folder, title="lengths", sizes=[len(text) for text in rows], **options)


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), max_size=20), st.integers(1, 20), st.booleans())
def test_results_are_in_the_order_of_the_rows(texts: list[str], shard_size: int, sized: bool) -> None:
    import tempfile

    for suffix, expected in ((".npy", [len(t) for t in texts]), (".json", [f"{t}\u2028!" for t in texts])):
        with tempfile.TemporaryDirectory() as folder:
            sizes = [len(text) for text in texts] if sized else None
            worker = Lengths(shard_size, suffix)
            assert list(Local().map(worker, texts, Path(folder), title="lengths", sizes=sizes)) == expected
            read = [text for call in worker.calls for text in call]
            assert read == (sorted(texts, key=len, reverse=True) if sized else texts)
            assert len(worker.calls) == -(-len(texts) // shard_size)


@pytest.mark.parametrize("values", [np.arange(6.0), np.arange(24, dtype=np.float32).reshape(6, 4), np.arange(6) > 2])
def test_arrays_keep_their_type_and_shape_also_in_records(tmp_path: Path, values: np.ndarray) -> None:
    counts = np.arange(18).reshape(6, 3) + 2**40

    @dataclass
    class Records(Lengths):
        def read(self, rows: list[Any]) -> Any:
            return with_counts(values[rows], counts[rows])

    found = Local().map(Records(shard_size=2), range(6), tmp_path, title="records", sizes=[1, 2, 3, 1, 2, 3])
    assert found["value"].dtype == values.dtype
    np.testing.assert_array_equal(found["value"], values)
    np.testing.assert_array_equal(found["read"], counts)


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("dies_at", [0, 1, 4])
def test_a_killed_map_goes_on_where_it_was(
    tmp_path: Path, dies_at: int, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "alone").mkdir()
    expected = list(run(Lengths(suffix=suffix), tmp_path / "alone"))
    first, second = Lengths(dies_at=dies_at, suffix=suffix), Lengths(suffix=suffix)
    with pytest.raises(Killed):
        run(first, tmp_path)
    with caplog.at_level(logging.INFO):
        assert list(run(second, tmp_path)) == expected
    assert (f"lengths: {dies_at * 5} of 23 examples were done before" in caplog.text) == (dies_at > 0)
    assert len(second.calls) == 5 - dies_at
    assert sorted(text for call in [*first.calls, *second.calls] for text in call) == sorted(TEXTS)  # none twice


def test_a_worker_is_built_once_and_not_at_all_where_every_shard_is_there(tmp_path: Path) -> None:
    worker = Lengths()
    first = run(worker, tmp_path)
    assert (len(worker.built), len(worker.calls)) == (1, 5)
    np.testing.assert_array_equal(run(worker, tmp_path), first)
    assert (len(worker.built), len(worker.calls)) == (1, 5)


@pytest.mark.parametrize("harm", ["one bit", "cut", "empty", "no digest", "gone"])
def test_a_damaged_shard_is_computed_again_and_no_other(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = run(Lengths(), tmp_path)
    shard = sorted(tmp_path.glob("shard-lengths-*.npy"))[1]
    data = shard.read_bytes()
    changes = {"one bit": data[:-2] + bytes([data[-2] ^ 16]) + data[-1:], "cut": data[:-9], "empty": b""}
    if harm in changes:
        shard.write_bytes(changes[harm])
    else:
        (shard if harm == "gone" else shard.with_name(f"{shard.name}.xxh3")).unlink()
    again = Lengths()
    np.testing.assert_array_equal(run(again, tmp_path), expected)
    assert len(again.calls) == 1
    assert (f"{shard} is damaged" in caplog.text) == (harm != "gone")


def test_shards_of_another_size_are_not_taken_for_these(tmp_path: Path) -> None:
    expected = run(Lengths(shard_size=5), tmp_path)
    other = Lengths(shard_size=4)
    np.testing.assert_array_equal(run(other, tmp_path), expected)
    assert len(other.calls) == 5  # of 6: the last one holds the same three rows


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_no_rows_need_no_worker(tmp_path: Path, suffix: str) -> None:
    worker = Lengths(suffix=suffix)
    assert len(run(worker, tmp_path, [])) == 0
    assert not worker.built and not list(tmp_path.iterdir())


def test_an_error_names_its_shard_and_is_raised_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match="^the model is tired$"):
        run(Lengths(dies_at=2, fails_with=RuntimeError("the model is tired")), tmp_path)
    assert "shard-lengths-00000010-00000015.npy: 5 rows could not be read" in caplog.text
    caplog.clear()
    with pytest.raises(ConfigError, match="set another option"):
        run(Lengths(dies_at=0, fails_with=ConfigError("set another option")), tmp_path)
    assert not [r for r in caplog.records if r.levelname == "ERROR"]  # one line is enough
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_a_worker_that_loses_rows_is_an_error(tmp_path: Path) -> None:
    @dataclass
    class Loses(Lengths):
        def read(self, rows: list[Any]) -> Any:
            return np.zeros(len(rows) - 1)

    with pytest.raises(ValueError, match=r"shard-lengths-00000000-00000005\.npy: 4 results for 5 rows"):
        run(Loses(), tmp_path)
    assert not list(tmp_path.iterdir())


READERS = [("embedder", p.stem) for p in sorted((ROOT / "conf" / "embedder").glob("[!_]*.yaml"))]
READERS += [("scorer", p.stem) for p in sorted((ROOT / "conf" / "scorer").glob("[!_]*.yaml"))]


@pytest.mark.parametrize(("group", "name"), READERS)
def test_every_worker_is_plain_data_that_can_be_sent(group: str, name: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        component = instantiate(compose("config", overrides=[f"{group}={name}"])[group], _convert_="all")
    if group == "embedder" or isinstance(component, Reader):
        built = make(json.loads(json.dumps(describe(component))))
        assert built == component and type(built) is type(component)
        assert built.shard_size > 0 and built.suffix == ".npy"
    if hasattr(component, "prepare"):  # which an experiment calls
        assert list(signature(component.prepare).parameters) == ["cache"]


def test_more_workers_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert (Local(workers=3).processes, Local().processes) == (3, 1)
    Local(workers=3).check()  # on a CPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Local().processes == 2
    monkeypatch.setattr("dsel.engine.local.device_of_process", lambda: torch.device("cuda", 0))
    with pytest.raises(ConfigError, match=r"engine\.workers=3: 2 GPUs can be seen here; auto takes all"):
        Local(workers=3).check()


def test_the_engine_changes_nothing_in_what_comes_out() -> None:
    from dsel.sweep import run_key

    assert "engine" in NO_RESULT
    assert run_key({"engine": Local()}, {"seed": 1}) == run_key({}, {"seed": 1})
