"""The same shards and trainings on a Ray cluster of two nodes on this machine, with workers and a node that go."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dsel.data.procedural import Procedural
from dsel.embedder.causal_lm import CausalLMEmbedder
from dsel.engine.local import Local
from dsel.engine.ray import AHEAD, LOSSES, Ray, connected, why
from dsel.errors import ConfigError, LostWorker
from dsel.selector.kcenter import farthest_first
from tests.conftest import QUICK, make_pool, until
from tests.engine.on_ray import Watched, given, losing, two_nodes
from tests.engine.test_launch import gone
from tests.engine.test_spread import files, pids, read, worker
from tests.trainer.small import fitted

TEXTS = [("ab" * (i * 37 % 11)) + str(i) for i in range(60)]  # fifteen shards
SMOLLM2 = Path("~/.cache/dsel-models/smollm2-135m-instruct").expanduser()
SMALL = {"num_cpus": 1, "object_store_memory": 10**8}  # a node


def test_where_ray_is_not_installed_a_line_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"engine=ray needs the package 'ray': pip install 'dsel\[ray\]'"):
        Ray().check()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_where_nobody_listens_is_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(ConfigError, match=rf"^engine\.address={address}: no Ray cluster answers there \("):
        connected(address)


def test_a_cluster_that_has_left_its_address_behind_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would look for it for twenty minutes."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.setattr("dsel.engine.ray._noted", lambda: "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"^engine\.address=auto: no Ray cluster answers at 127.* \(.*: start one"):
        connected("auto")


@pytest.mark.slow
def test_a_cluster_that_is_not_there_or_too_small_is_one_line(engine: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"engine\.workers=3: the cluster has room for 2, each with engine\.cpus=1$"):
        replace(engine, workers=3).check()
    with pytest.raises(ConfigError, match=r"engine\.workers=auto: the cluster has room for 0, each with"):
        replace(engine, cpus=2).check()
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=r"engine\.address=nowhere: no Ray cluster to be had \(.*start one"):
        Ray("nowhere").check()


def test_a_loss_is_told_in_few_words() -> None:
    assert why("The actor died because its node has died. Node Id: 0e76") == "its machine has gone"
    assert why("ModuleNotFoundError: No module named 'dsel'") == "its machine has not installed dsel"
    assert why("The actor d85065 is unavailable: RPC error: Socket closed").startswith("it cannot be reached")
    assert why("Worker unexpectedly exits with a connection error code 2.").startswith("it was killed, or crashed")


def test_a_worker_of_several_gpus_has_them_on_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an engine of `model.tensor_parallel` needs them."""
    nodes = [{"Alive": True, "Resources": each} for each in ({"CPU": 8.0}, *[{"CPU": 9.0, "GPU": 8.0}] * 2)]
    nodes.append({"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}})
    monkeypatch.setattr("dsel.engine.ray.connected", lambda address: SimpleNamespace(nodes=lambda: nodes))
    assert [Ray()._room(devices) for devices in (1, 3, 8)] == [(16, 1), (4, 1), (2, 1)]
    assert [Ray(workers=6)._room(devices) for devices in (1, 3, 8)] == [(6, 1), (2, 1), (1, 1)]
    assert Ray(cpus=2)._room(2) == (4, 1)
    with pytest.raises(ConfigError, match="the cluster has room for 0, each with engine.cpus=1 and a GPU 9 times$"):
        Ray()._room(9)
    del nodes[1:]
    assert [Ray()._room(devices) for devices in (1, 3)] == [(8, 0), (2, 0)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, with a processor each."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'dsel[ray]'")
    import ray

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    found = two_nodes(SMALL)
    yield found
    ray.shutdown()
    found.shutdown()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def engine(cluster: Any) -> Ray:
    made = Ray(address=cluster.address)
    made.check()
    return made


def run(engine: Any, reader: Any, folder: Path) -> Any:
    (folder / "shards").mkdir(exist_ok=True, parents=True)
    return engine.map(reader, TEXTS, folder / "shards", title="lengths", sizes=[len(text) for text in TEXTS])


def same(folder: Path, reader: Any) -> bool:
    """Whether the shards are the files that one process makes."""
    other = folder / "one"
    run(Local(1), replace(reader, faults={}, seen=worker(other).seen, pause=0), other)
    return files(folder) == files(other)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_shards_are_the_same_files(engine: Ray, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    reader = worker(tmp_path, suffix=suffix, pause=0.1)
    with caplog.at_level(logging.INFO):
        run(engine, reader, tmp_path)
    assert [r.message for r in caplog.records if r.name != "dsel.progress"] == ["lengths: 2 workers", "built"]
    assert len(pids(tmp_path, "read")) == 2 and os.getpid() not in pids(tmp_path)
    assert read(tmp_path) == sorted(TEXTS) and same(tmp_path, reader)
    run(engine, reader, tmp_path)
    assert read(tmp_path) == sorted(TEXTS)  # nothing is computed again


@pytest.mark.slow
def test_one_file_of_all_results_is_the_same(engine: Ray, tmp_path: Path) -> None:
    found = []
    for name, who in (("ray", engine), ("one", Local(1))):
        reader = worker(tmp_path / name)
        found.append(who.fill(reader, TEXTS, tmp_path / name / "all.npy", title="lengths"))
    assert found[0][1] == found[1][1]
    assert (tmp_path / "ray" / "all.npy").read_bytes() == (tmp_path / "one" / "all.npy").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "told"), [("once", "it was killed, or crashed"), ("memory", "out of memory")])
def test_a_worker_that_is_lost_is_replaced(
    engine: Ray, tmp_path: Path, fault: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader = worker(tmp_path, {TEXTS[30]: fault}, pause=0.1)
    run(engine, reader, tmp_path)
    assert f"a worker was lost ({told}" in caplog.text
    assert read(tmp_path) == sorted(TEXTS) and same(tmp_path, reader)


@pytest.mark.slow
def test_a_shard_that_ends_its_workers_ends_the_map(engine: Ray, tmp_path: Path) -> None:
    reader = worker(tmp_path, {TEXTS[30]: "kill"})
    with pytest.raises(LostWorker, match=rf"shard-lengths-.*: {LOSSES} workers were lost at it \(it was killed"):
        run(engine, reader, tmp_path)
    kept = sum(name.endswith(".npy") for name in files(tmp_path))
    assert kept < 15
    before = len(read(tmp_path))
    run(engine, replace(reader, faults={}), tmp_path)
    assert len(read(tmp_path)) - before == len(TEXTS) - 4 * kept and same(tmp_path, reader)


@pytest.mark.slow
def test_what_a_worker_says_is_wrong_is_one_line(engine: Ray, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="^set another option$"):
        run(engine, worker(tmp_path, {"": "config"}), tmp_path)
    with pytest.raises(LostWorker, match="^a worker of the map failed: RuntimeError: out of luck$"):
        run(engine, worker(tmp_path, {TEXTS[30]: "error"}), tmp_path)
    assert 'raise RuntimeError("out of luck")' in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("graceful", [True, False])
def test_a_node_that_goes_costs_its_unfinished_shards(
    cluster: Any, engine: Ray, tmp_path: Path, graceful: bool, caplog: pytest.LogCaptureFixture
) -> None:
    third = cluster.add_node(**SMALL)
    cluster.wait_for_nodes()
    assert engine.processes == 3
    reader, watched = worker(tmp_path, shard_size=2, pause=0.3), Watched(engine.address)

    def remove() -> None:
        if len(pids(tmp_path, "read")) == 3 and third in cluster.worker_nodes:
            cluster.remove_node(third, allow_graceful=graceful)

    watched.each = remove
    run(watched, reader, tmp_path)
    assert third not in cluster.worker_nodes and same(tmp_path, reader)
    assert caplog.text.count("a worker was lost (it") == 1
    assert len(TEXTS) <= len(read(tmp_path)) <= len(TEXTS) + 2 * AHEAD
    until(lambda: engine.processes == 2)  # it takes a while until a node that was not ended is known to have gone


@pytest.mark.slow
def test_a_map_that_is_interrupted_leaves_nobody_behind(engine: Ray, tmp_path: Path) -> None:
    reader, watched = worker(tmp_path, pause=0.3), Watched(engine.address)
    watched.each = lambda: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(watched, reader, tmp_path)
    assert 1 <= sum(name.endswith(".npy") for name in files(tmp_path)) < 15
    until(lambda: all(map(gone, pids(tmp_path))))


# Trainings


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_shared_training_is_that_of_one_worker(
    engine: Ray, spec: Any, tmp_path: Path, strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        two, losses = fitted(spec, tmp_path / "two", engine, strategy=strategy)
    assert f"2 workers ({strategy})" in caplog.text and "step 5/5" in caplog.text
    one, expected = fitted(spec, tmp_path / "one", Local(1))
    assert len(losses) == 5
    np.testing.assert_allclose(losses, expected, atol=1e-4)
    np.testing.assert_allclose(two.nll(make_pool(8).messages), one.nll(make_pool(8).messages), atol=1e-4)
    assert two.state == one.state


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_training_that_loses_a_worker_goes_on(
    engine: Ray, spec: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import psutil

    killed: list[int] = []

    def kill(step: int) -> None:
        if step >= 5 and not killed:
            workers = [p for p in psutil.process_iter(["name", "cmdline"]) if "RayTrainWorker" in "".join(p.cmdline())]
            assert len(workers) == 2
            killed.append(step)
            workers[1].kill()

    options = {"examples": 80, "epochs": 4, "strategy": "ddp", "checkpoint_minutes": 1e-4}
    with caplog.at_level(logging.INFO):
        two, losses = fitted(spec, tmp_path / "two", engine, each=kill, **options)
    assert "a worker of the training was lost (it" in caplog.text
    said = [int(found[1]) for r in caplog.records if (found := re.match(r"step (\d+)/40", r.message))]
    assert killed and len(losses) == 40
    assert sum(step == 1 for step in said) == 1  # it did not begin again
    one, expected = fitted(spec, tmp_path / "one", Local(1), **options)
    np.testing.assert_allclose(losses, expected, atol=1e-4)
    np.testing.assert_allclose(two.nll(make_pool(8).messages), one.nll(make_pool(8).messages), atol=1e-4)


# Models and runs


class Smol(CausalLMEmbedder):
    """In shards that are read in seconds on a processor."""

    @property
    def shard_size(self) -> int:
        return 8


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_embeddings_are_the_same_when_a_worker_and_a_machine_go(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not SMOLLM2.exists():
        pytest.skip(f"needs {SMOLLM2}")
    embedder = Smol(hub="", path=str(SMOLLM2), dtype="float32", device="cpu")
    messages = Procedural(size=160).load().messages
    (tmp_path / "one").mkdir()
    expected = np.array(embedder.embed(messages, tmp_path / "one", Local(1)))
    watched = losing(cluster, SMALL, machine=4, worker=8)
    (tmp_path / "ray").mkdir()
    with given() as sizes:
        found = np.array(embedder.embed(messages, tmp_path / "ray", watched))
    assert caplog.text.count("a worker was lost (it") == 2 and watched.done == 20
    assert 20 < len(sizes) <= 20 + 2 * AHEAD
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert farthest_first(found, 20).tolist() == farthest_first(expected, 20).tolist()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quickstart_chooses_the_same(cluster: Any, dsel_run: Any, tmp_path: Path) -> None:
    """With an evaluation by shards, and a training that two machines share."""
    shared = [*QUICK, "evaluator.per_kind=2", "evaluator.batch_size=1"]
    engines = {
        "local": ["engine.workers=1"],
        "ray": ["engine=ray", f"engine.address={cluster.address}", "trainer.strategy=ddp"],
    }
    found = {}
    for name, options in engines.items():
        own = [f"cache={tmp_path / name / 'cache'}", f"runs={tmp_path / name / 'runs'}"]
        done = dsel_run(*shared, *options, *own)
        assert done.returncode == 0, done.stderr
        (record,) = (tmp_path / name / "runs").rglob("record.json")
        found[name] = (record.parent / "selection.parquet").read_bytes(), json.loads(record.read_text())
        for shares in ("2 workers (ddp)", "evaluating: 2 workers"):
            assert (shares in done.stderr + done.stdout) == (name == "ray"), done.stderr
    assert found["ray"][0] == found["local"][0]
    one, two = (record for _, record in found.values())
    assert two["rounds"][0]["training"]["loss"] == pytest.approx(one["rounds"][0]["training"]["loss"], abs=1e-4)
    assert two["metrics"] == one["metrics"]
