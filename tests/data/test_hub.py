"""A hub data set: from a local copy, from a repository of the same layout, and without network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dsel.cache import Cache
from dsel.data import parts, workers
from dsel.data.hub import Hub
from dsel.errors import ConfigError
from tests.conftest import checked


def write(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"instruction": n, "input": "", "output": f"re {n}"}) + "\n" for n in names))
    return path


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder laid out like a data set of the hub, with two subsets, which the library reads in the same way."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "repository"
    configs = ""
    for subset in ("chat", "code"):
        write(folder / subset / "train.jsonl", f"{subset} 1", f"{subset} 2")
        write(folder / subset / "test.jsonl", f"{subset} 3")
        files = "".join(f"  - split: {s}\n    path: {subset}/{s}.jsonl\n" for s in ("train", "test"))
        configs += f"- config_name: {subset}\n  data_files:\n{files}"
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return str(folder)


def test_subsets_are_mixed_under_their_names(repository: str) -> None:
    hub = Hub(hub=repository, subsets=["code", "chat"], needs_subsets=True)
    hub.check()
    pool = hub.load()
    assert pool.sources == ["code", "code", "chat", "chat"]
    assert pool.texts[0] == "code 1\nre code 1"
    assert json.loads(pool.originals["json"][0]) == {"instruction": "code 1", "input": "", "output": "re code 1"}


@pytest.mark.parametrize("split", ["train", None, "train[1:]"])
def test_processes_read_the_files_of_a_data_set_as_the_library_does(
    repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str | None
) -> None:
    hub = Hub(hub=repository, subsets=["code", "chat"], split=split)
    here, asked = hub.load(), []

    def chunks(self: workers.Workers, units: Any) -> Any:
        asked.extend(units)
        return plain(self, units)

    plain = workers.Workers.chunks
    monkeypatch.setattr(parts, "LARGE", 0)
    monkeypatch.setattr(workers.Workers, "chunks", chunks)
    there = hub.load(Cache(tmp_path / "pools"))
    assert there.fingerprint == here.fingerprint and there.ids == here.ids
    assert list(there.originals["json"]) == list(here.originals["json"])
    assert len(asked) == {"train": 2, None: 4, "train[1:]": 0}[split]  # a part of a file is not the file


def test_split_and_limit_are_kept_to(repository: str) -> None:
    assert Hub(hub=repository, subsets=["chat"], split="test").load().prompts == [
        [{"role": "user", "content": "chat 3"}]
    ]
    assert len(Hub(hub=repository, subsets=["chat", "code"], limit=3).load()) == 3


def test_single_files_can_be_named(repository: str) -> None:
    pool = Hub(hub=repository, files="code/test.jsonl").load()
    assert pool.responses == ["re code 3"]
    assert len(Hub(hub=repository, files=["code/test.jsonl", "chat/test.jsonl"]).load()) == 2


def test_files_are_fetched_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the repository has a loading script, which the library no longer runs."""
    import huggingface_hub

    asked = []

    def fetch(hub: str, **options: object) -> str:
        asked.append((hub, options))
        write(tmp_path / "train.jsonl", "one")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    pool = Hub(hub="GAIR/lima", files="train.jsonl", revision="abc").load()
    assert pool.ids == ["lima/1"] and pool.sources == ["lima"]
    assert asked == [("GAIR/lima", {"repo_type": "dataset", "revision": "abc", "allow_patterns": ["train.jsonl"]})]


def test_an_unknown_subset_or_split_is_a_configuration_error(repository: str) -> None:
    for hub in (Hub(hub=repository, subsets=["poems"]), Hub(hub=repository, subsets=["chat"], split="dev")):
        with pytest.raises(ConfigError, match="cannot load") as caught:
            hub.load()
        assert "\n" not in str(caught.value)


def test_a_local_copy_is_read_instead(tmp_path: Path) -> None:
    write(tmp_path / "copy" / "a.jsonl", "one", "two")
    hub = Hub(name="alpaca", hub="nobody/nothing", path=str(tmp_path / "copy"), needs_subsets=True)
    hub.check()
    pool = hub.load()
    assert pool.name == "alpaca"
    assert pool.responses == ["re one", "re two"]
    with pytest.raises(ConfigError, match=r"data\.path=missing"):
        Hub(hub="nobody/nothing", path="missing").check()


def test_a_local_copy_is_read_as_the_hub_would_be(repository: str) -> None:
    for options in ({"subsets": ["code", "chat"]}, {"subsets": ["chat"], "split": "test"}):
        there, here = Hub(hub=repository, **options), Hub(hub=repository, path=repository, **options)  # type: ignore[arg-type]
        here.check()
        assert here.load().fingerprint == there.load().fingerprint
    with pytest.raises(ConfigError, match=r"subsets chat, code; name some with data\.subsets"):
        Hub(hub="nobody/nothing", path=repository).check()


def test_files_are_those_of_a_local_copy_too(repository: str) -> None:
    pool = Hub(hub="nobody/nothing", path=repository, files="code/test.jsonl").load()
    assert pool.ids == ["nothing/1"] and pool.responses == ["re code 3"]
    with pytest.raises(ConfigError, match=r"no file gone\.json there"):
        Hub(hub="nobody/nothing", path=repository, files="gone.json").check()


def test_a_copy_of_a_data_set_has_its_name(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-00000-of-00001.json", "one")
    write(tmp_path / "data" / "test-00000-of-00001.json", "two")
    pool = Hub(name="alpaca", hub="tatsu-lab/alpaca", path=str(tmp_path)).load()
    assert pool.ids == ["alpaca/1"] and pool.sources == ["alpaca"]


def test_a_data_set_of_hundreds_of_subsets_asks_for_some() -> None:
    with pytest.raises(ConfigError, match=r"data=p3: bigscience/P3 .*data\.subsets"):
        Hub(name="p3", hub="bigscience/P3", needs_subsets=True).check()
    Hub(name="p3", hub="bigscience/P3", needs_subsets=True, subsets=["cos_e_v1.11_rationale"]).check()


@pytest.mark.parametrize("options", [{"limit": 0}, {"on_bad_row": "no"}, {"columns": {"promt": "x"}}])
def test_options_are_checked_without_a_path_too(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="data"):
        checked(Hub(hub="nobody/nothing", **options), "data")  # type: ignore[arg-type]


OFFLINE = """
from dsel.cache import Cache
from dsel.data import parts, workers
from dsel.data.hub import Hub
from dsel.errors import ConfigError
hub = Hub(name="alpaca", hub="tatsu-lab/alpaca")
hub.check()
try:
    hub.load()
except ConfigError as error:
    raise SystemExit(f"ConfigError: {error}")
"""


def test_without_network_it_fails_in_one_clear_line(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", OFFLINE], env=environment, capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("ConfigError: data=alpaca: cannot load tatsu-lab/alpaca from the hub (")
    assert last.endswith("point data.path at a local copy")


def test_a_data_set_can_be_streamed(repository: str) -> None:
    fetched, streamed = (Hub(hub=repository, subsets=["code", "chat"], streaming=on).load() for on in (False, True))
    assert streamed.fingerprint == fetched.fingerprint
    assert Hub(hub=repository, subsets=["code"], streaming=True, limit=1).load().texts == ["code 1\nre code 1"]
    with pytest.raises(ConfigError, match="cannot load"):
        Hub(hub=repository, subsets=["poems"], streaming=True).load()
    for options in ({"split": None}, {"sample": 0.5}):
        with pytest.raises(ConfigError, match=r"data\.streaming=true reads from the beginning"):
            Hub(hub=repository, streaming=True, **options).check()  # type: ignore[arg-type]


def test_a_sample_of_a_data_set(repository: str) -> None:
    whole = Hub(hub=repository, subsets=["code", "chat"]).load()
    found = Hub(hub=repository, subsets=["code", "chat"], sample=2, sample_seed=1).load()
    assert len(found) == 2 and set(found.ids) < set(whole.ids)
