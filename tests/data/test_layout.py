"""Which files a path stands for: splits as the hub has them, and sources."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dsel.component import content_of
from dsel.data.layout import find, sources
from dsel.errors import ConfigError


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"prompt": name, "completion": "x"}) + "\n")
    return folder


def read(folder: Path, split: str | None = "train", **options: str) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in find(folder, split, **options).files)


@pytest.mark.parametrize(
    ("names", "train"),
    [
        (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"], 1),
        (
            [
                "data/train-00000-of-00002-0123456789abcdef.parquet",
                "data/train-00001-of-00002-0123456789abcdef.parquet",
            ],
            2,
        ),
        (["train.jsonl", "test.jsonl", "validation.jsonl"], 1),
        (["gsm8k_train.jsonl", "gsm8k_test.jsonl"], 1),
        (["Train.jsonl", "Test.jsonl"], 1),
        (["chat/train.json", "chat/test.json", "code/train.json", "code/dev.json"], 2),
        (["train/0.jsonl", "train/1.jsonl", "test/0.jsonl"], 2),
        (["a.jsonl", "b.jsonl"], 2),
        (["contest.jsonl", "attestation.jsonl", "training-free.jsonl.gz"], 1),
    ],
)
def test_a_split_is_what_the_hub_makes_of_the_names(tmp_path: Path, names: list[str], train: int) -> None:
    folder = tree(tmp_path / "v[2] test=1, (#)", *names)
    found = find(folder, "train")
    assert len(found.files) == train
    assert not any("test" in f.name.lower() or "test" in f.parent.name[:4] for f in found.files if train == 1)
    assert len(found.files) + sum(map(len, found.left_out.values())) == len(names)
    assert len(find(folder, None).files) == len(names)


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    folder = tree(tmp_path, "train.jsonl", "test.jsonl", "extra.jsonl", *(f"dev_{i}.jsonl" for i in range(7)))
    tree(folder, "README.md", "notes.txt", ".cache/x.txt", "_SUCCESS")
    found = str(find(folder, "train"))
    assert "no data files (notes.txt)" in found
    assert "split test (test.jsonl)" in found
    assert "in no split (extra.jsonl)" in found
    assert "split validation (dev_0.jsonl, dev_1.jsonl, dev_2.jsonl, dev_3.jsonl, dev_4.jsonl and 2 more)" in found
    assert read(folder, "test") == ["test.jsonl"]


def test_a_split_there_is_not_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no split dev, only train \(a.jsonl, b.jsonl\); set data.split") as caught:
        find(tree(tmp_path, "a.jsonl", "b.jsonl"), "dev")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_named_is_read_whatever_its_name(tmp_path: Path) -> None:
    file = tree(tmp_path, "test.jsonl") / "test.jsonl"
    assert find(file, "train").files == [file]


README = """---
configs:
- config_name: chat
  data_files:
  - split: train
    path: [x/one.jsonl, "x/two*"]
  - split: test
    path: x/three.jsonl
- config_name: code
  data_dir: code
---
"""


def test_a_readme_says_what_belongs_where(tmp_path: Path) -> None:
    folder = tree(tmp_path, "x/one.jsonl", "x/two.jsonl", "x/three.jsonl", "code/train.jsonl", "code/test.jsonl")
    (folder / "README.md").write_text(README)
    with pytest.raises(ConfigError, match=r"the subsets chat, code; name some with data.subsets"):
        find(folder, "train")
    assert read(folder, subset="chat") == ["x/one.jsonl", "x/two.jsonl"]
    assert read(folder, subset="code") == ["code/train.jsonl"]
    with pytest.raises(ConfigError, match="no subset poems; there are chat, code"):
        find(folder, "train", subset="poems")
    (folder / "README.md").write_text(README.replace("  data_dir: code", "  data_dir: code\n  default: true"))
    assert read(folder) == ["code/train.jsonl"]
    (folder / "README.md").write_text("---\nconfigs: [1\n---\n")
    with pytest.raises(ConfigError, match="README.md") as caught:
        find(folder, "train")
    assert "\n" not in str(caught.value)
    assert len(read(folder, None)) == 5


def test_a_subset_is_a_folder_without_a_readme(tmp_path: Path) -> None:
    folder = tree(tmp_path, "chat/train.jsonl", "chat/test.jsonl", "code/a.jsonl")
    (folder / "README.md").write_text("# About\n")
    assert read(folder, subset="chat") == ["chat/train.jsonl"]
    assert read(folder, subset="code") == ["code/a.jsonl"]
    with pytest.raises(ConfigError, match="no subset poems"):
        find(folder, "train", subset="poems")


def test_saved_data_sets_have_splits_too(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list([{"prompt": "a", "completion": "b"}])
    DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "all" / "both")
    rows.save_to_disk(tmp_path / "all" / "one")
    assert read(tmp_path / "all") == ["both/train", "one"]
    found = find(tmp_path / "all" / "both", "test")
    assert [f.name for f in found.files] == ["test"] and "split train" in str(found)
    assert read(tmp_path / "all", None) == ["both/test", "both/train", "one"]
    with pytest.raises(ConfigError, match="no split dev"):
        find(tmp_path / "all" / "both", "dev")


def named(folder: Path, *names: str) -> dict[str, list[str]]:
    return {
        s.name: [f.relative_to(folder).as_posix() for f in s.files] for s in sources([folder / name for name in names])
    }


def test_shards_are_one_source(tmp_path: Path) -> None:
    assert named(tmp_path, "train-00001-of-00002.parquet", "train-00000-of-00002.parquet", "b.jsonl") == {
        "train": ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        "b": ["b.jsonl"],
    }
    uuid = "8b1c4f3e-0000-4000-8000-1234567890ab-c000"
    for names in (
        ["x_00.parquet", "x_01.parquet"],
        ["x-1.json", "x-2.json", "x-3.json"],
        ["x-0.jsonl", "x-1.jsonl.gz"],
        ["x-007.json", "x-012.json"],
        ["x.00000-of-00002.json.gz", "x.00001-of-00002.json.gz"],
        [f"x/{n}.json" for n in (0, 9, 10)],
        [f"x/{digest * 16}.json" for digest in ("0f", "a1")],
        [f"x/3f2b0f6a-0b9c-4a2e-8d7e-{end}.json" for end in ("111111111111", "a22222222222")],
    ):
        assert named(tmp_path, *names) == {"x": names}
    assert list(named(tmp_path, f"part-00000-{uuid}.snappy.parquet", f"part-00001-{uuid}.snappy.parquet")) == ["part"]


@pytest.mark.parametrize("names", [["gpt-3", "gpt-4"], ["llama2", "llama3"], ["flan_2021"], ["a1", "b2"], ["x", "y"]])
def test_other_numbers_are_names(tmp_path: Path, names: list[str]) -> None:
    assert list(named(tmp_path, *(f"{n}.jsonl" for n in names))) == names


def test_the_same_name_in_several_folders_is_several_sources(tmp_path: Path) -> None:
    assert list(named(tmp_path, "chat/train.jsonl", "code/train.jsonl", "extra.jsonl")) == ["chat", "code", "extra"]
    assert list(named(tmp_path, "chat/data/train.jsonl", "code/data/train.jsonl")) == ["chat", "code"]
    assert list(named(tmp_path, "a/x/t.json", "a/y/t.json", "b/x/t.json")) == ["a/x", "a/y", "b/x"]
    assert list(named(tmp_path, "chat/t.json", "code/t.json", "chat.json")) == ["chat/t", "code", "chat/chat"]
    shards = [f"{s}/train-0000{i}-of-00002.parquet" for s in ("chat", "code") for i in (0, 1)]
    assert {k: len(v) for k, v in named(tmp_path, *shards).items()} == {"chat": 2, "code": 2}


def test_shards_that_are_not_there_are_known(tmp_path: Path) -> None:
    (source,) = sources([tmp_path / "train-00001-of-00004.parquet", tmp_path / "train-00003-of-00004.parquet"])
    assert source.missing == (0, 2)
    (source,) = sources([tmp_path / "a-1-of-2.json", tmp_path / "a-2-of-2.json"])
    assert source.missing == ()


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    one = tree(tmp_path / "one", "a/x.jsonl", "y.jsonl")
    two = tmp_path / "two"
    shutil.copytree(one, two, copy_function=shutil.copyfile)
    assert content_of(one) == content_of(str(two)) and content_of(one / "y.jsonl") == content_of(two / "y.jsonl")
    (two / "a" / "x.jsonl").write_text("{}")
    assert content_of(one) != content_of(two)
    assert content_of(None) is None
