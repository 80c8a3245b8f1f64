"""Cache and runs on S3, by s3fs and a server on this machine: real requests, and machines that are folders."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dsel.record.reader import NAME, RunFolder
from tests.conftest import ROOT, offline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
pytest.importorskip("s3fs", reason="pip install 'dsel[s3]' 'moto[server]'")
pytest.importorskip("moto.server", reason="pip install 'dsel[s3]' 'moto[server]'")

SECRET = "a-secret-of-this-test"
SMALL = (
    "experiments=quickstart data.size=300 clusterer.k=10 model.steps=20 model.hidden=64 model.layers=1 "
    "evaluator.per_kind=2 tracker=none cache=s3://bucket/cache runs=s3://bucket/runs"
).split()


@dataclass
class Server:
    """keys: the environment of a machine that may use it."""

    keys: dict[str, str]

    @property
    def bucket(self) -> Any:
        import s3fs

        url, key, secret = (
            self.keys[name] for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        )
        return s3fs.S3FileSystem(endpoint_url=url, key=key, secret=secret, use_listings_cache=False)

    def names(self, below: str) -> list[str]:
        return [name.removeprefix(f"bucket/{below}/") for name in self.bucket.find(f"bucket/{below}")]


@pytest.fixture
def server() -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    made = Server(
        {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "AKIA-of-this-test",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    )
    try:
        end = time.monotonic() + 300
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.1)
        made.bucket.mkdir("bucket")
        yield made
    finally:
        process.terminate()
        process.wait()


def start(module: str, arguments: list[str], machine: Path, keys: dict[str, str]) -> subprocess.Popen[str]:
    environment = offline(machine, DSEL_SCRATCH=str(machine), **keys)
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def done(module: str, arguments: list[str], machine: Path, keys: dict[str, str]) -> str:
    process = start(module, arguments, machine, keys)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    return said


def run_of(machine: Path) -> RunFolder:
    (record,) = (machine / "runs").rglob(NAME)
    return RunFolder.read(record.parent)


def test_the_quickstart_on_two_machines_is_computed_once(server: Server, tmp_path: Path) -> None:
    """The second machine finds both runs, and what they are made of where it has to run them again."""
    asked = ["-m", *SMALL, "selector=random,kmeans_uniform"]
    tables = []
    for name in ("a", "b"):
        said = done("dsel.run", asked, tmp_path / name, server.keys)
        assert said.count("finished before, not run again") == (0 if name == "a" else 2)
        out = tmp_path / f"report-{name}"
        done(
            "dsel.report",
            ["experiments=quickstart", "runs=s3://bucket/runs", f"out={out}"],
            tmp_path / name,
            server.keys,
        )
        tables.append((out / "report.csv").read_text())
    assert tables[0] == tables[1] and "s3://bucket/runs/" in tables[0]
    assert not [name for name in server.names("cache") if name.startswith(("fits", "tasks")) or ".partial" in name]

    said = done("dsel.run", ["-m", *SMALL, "selector=kmeans_uniform", "rerun=true"], tmp_path / "c", server.keys)
    again = run_of(tmp_path / "c")
    cached = {stage.name for stage in again.stages if stage.cached}
    assert cached >= {"embed", "cluster", "model"}, said
    (earlier,) = (tmp_path / "a" / "runs").rglob("*kmeans_uniform*")
    first = RunFolder.read(earlier)
    assert (earlier / "selected.jsonl").read_bytes() == (again.folder / "selected.jsonl").read_bytes()  # type: ignore[operator]
    assert {name: m["value"] for name, m in first.facts["metrics"].items()} == {
        name: m["value"] for name, m in again.facts["metrics"].items()
    }
    for command, arguments in (
        ("dsel", ["cache", "--cache", "s3://bucket/cache", "--there"]),
        ("dsel", ["runs", "s3://bucket/runs"]),
        ("dsel", ["show", f"s3://bucket/runs/{earlier.name}"]),
        ("dsel.compare", [f"s3://bucket/runs/{earlier.name}", f"s3://bucket/runs/{again.folder.name}"]),  # type: ignore[union-attr]
    ):
        said = done(command, arguments, tmp_path / "d", server.keys)
        assert "kmeans_uniform" in said or "embeddings" in said, said
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 50 and not [path for path in written if SECRET.encode() in path.read_bytes()]
    store = server.bucket
    assert not [name for name in store.find("bucket") if SECRET.encode() in store.cat_file(name)]


def test_a_machine_that_is_killed_loses_no_training(server: Server, tmp_path: Path) -> None:
    """It is killed while it evaluates: another one, with an empty disk, has its training from the bucket."""
    asked = ["-m", *SMALL, "selector=random"]
    process = start("dsel.run", asked, tmp_path / "a", server.keys)
    end = time.monotonic() + 900
    while not any(name.startswith("fits") and name.endswith("key.json") for name in server.names("cache")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.2)
    process.kill()
    process.communicate()
    done("dsel.run", asked, tmp_path / "b", server.keys)
    stages = {stage.name: stage.cached for stage in run_of(tmp_path / "b").stages}
    assert stages["train"] and stages["model"]
    assert not [name for name in server.names("cache") if name.startswith("fits")]


def test_every_fault_is_one_line_before_anything_is_computed(server: Server, tmp_path: Path) -> None:
    keys, small = server.keys, ["experiments=quickstart", "trainer=none", "evaluator=none", "tracker=none"]
    without = {**keys, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(tmp_path)}
    for option, environment, line in (
        ("cache=s3://no-bucket/cache", keys, "there is no such bucket"),
        ("runs=s3://no-bucket/runs", keys, "there is no such bucket"),
        ("cache=s3://bucket/cache", without, "there are no credentials: set AWS_ACCESS_KEY_ID"),
        ("runs=s3://bucket/runs", {**keys, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "it cannot be reached"),
    ):
        process = start("dsel.run", [*small, option], tmp_path / "a", environment)
        said, _ = process.communicate(timeout=900)
        (last,) = (text for text in said.splitlines() if text.startswith("dsel: "))
        assert process.returncode == 2 and last.startswith(f"dsel: {option}: {line}"), said
        assert not list((tmp_path / "a").rglob(NAME))
    assert server.names("runs") == []
