"""Which files a path stands for: those of the split that is asked for, and the sources they make up.

What the hub would make of a folder's names (`data/train-00000-of-00002.parquet`, `train.jsonl` beside `test.jsonl`, a
folder for each split, `configs` in the README) is asked of its own library, so that a local copy of a data set is read
as the data set itself.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsel.data.folder import files_of, not_read, saved_splits
from dsel.errors import ConfigError, need

NAMED_FILES = 5  # how many of the files left out the log names

# 00000-of-00002, at times with a digest after it; a number after a sign; the name of a part that Spark writes
SURE = re.compile(r"(?P<stem>.*?)[-_. ]?(?P<number>\d+)[-_]of[-_](?P<of>\d+)(-[0-9a-f]{16})?")
PART = re.compile(r"(?P<stem>part)[-_](?P<number>\d+)-[0-9a-f]{8}-.*")
NUMBERED = re.compile(r"(?P<stem>.*)[-_. ](?P<number>\d+)|(?P<whole>\d+)")
DIGEST = re.compile(r"[0-9a-f-]{24,}")


@dataclass(frozen=True)
class Source:
    """Files that are one source: what it is called where neither a label nor a column says, and its files in order.

    missing: numbers of shards that its files' names tell of and that are not there.
    """

    name: str
    files: tuple[Path, ...]
    missing: tuple[int, ...] = ()


@dataclass(frozen=True)
class Found:
    """The files that are read, and those that are not, by the split (or the reason) they are left out for."""

    files: list[Path]
    left_out: Mapping[str, list[Path]] = field(default_factory=dict)

    def __str__(self) -> str:
        """The files left out, in words."""
        parts = []
        for name, files in self.left_out.items():
            shown = ", ".join(f.name for f in files[:NAMED_FILES])
            parts.append(f"{name} ({shown}{f' and {len(files) - NAMED_FILES} more' * (len(files) > NAMED_FILES)})")
        return ", ".join(parts)


def find(path: Path, split: str | None, *, subset: str | None = None, only: Collection[str] = ()) -> Found:
    """The files of `split` at `path`, a file or a folder; all of them for a split of None.

    subset: one of the configurations of a data set's README, or a folder. only: these files of a folder.

    Raises:
        ConfigError: nothing to read there; no such split, subset or file; or a choice of subsets that has to be made.
    """
    if only and path.is_dir():
        return Found([_one(path, name) for name in only])
    if path.is_file():
        return Found(files_of(path))
    files = files_of(path)
    left = not_read(path) if files != [path] else {}
    if split is None and subset is None:
        return Found([part for file in files for part in _parts(file, None, {})], left)
    splits = _splits(path, files, subset)
    need(
        split is None or split in splits,
        f"data.path={path}: there is no split {split}, only {Found([], splits)}; "
        "set data.split to one of them, or to null for all files",
    )
    kept = [f for name, found in splits.items() if split in (None, name) for f in found]
    left |= {f"split {name}": found for name, found in splits.items() if split not in (None, name)}
    rest = sorted(set(files) - {f for found in splits.values() for f in found})
    if rest:
        left["in no split" if subset is None else f"not of {subset}"] = rest
    return Found([part for file in kept for part in _parts(file, split, left)], left)


def sources(files: Sequence[Path]) -> list[Source]:
    """`files` as sources, in the order of their first files.

    Shards are one source, and so are files that are only numbered, as where each holds one conversation: it is called
    after their folder. A name that several folders have is told apart by the nearest folder that does.
    """
    files = list(dict.fromkeys(files))
    keys = _shards(files)
    groups: dict[tuple[Path, str], list[Path]] = {}
    for file in files:
        folder, stem, _ = keys[file]
        groups.setdefault((folder, stem), []).append(file)
    names = _names(list(groups))
    out = []
    for key, members in groups.items():
        members.sort(key=lambda f: (keys[f][2] is None, keys[f][2] or 0))  # stable: the rest keeps its order
        out.append(Source(names[key], tuple(members), _missing(members)))
    return out


def _one(folder: Path, name: str) -> Path:
    need((folder / name).is_file(), f"data.path={folder}: no file {name} there (data.files=null reads what is)")
    return folder / name


def _parts(file: Path, split: str | None, left: dict[str, list[Path]]) -> list[Path]:
    """A file as it is; of a folder that `DatasetDict.save_to_disk` wrote the folder of the split, or of each."""
    names = saved_splits(file)
    if names is None:
        return [file]
    chosen = split if split in names else names[0] if len(names) == 1 else None
    need(
        split is None or chosen is not None,
        f"{file}: holds the splits {', '.join(names)}; set data.split to one of them, or to null for all",
    )
    for name in names:
        if split is not None and name != chosen:
            left.setdefault(f"split {name}", []).append(file / name)
    return [file / name for name in names if split is None or name == chosen]


def _splits(folder: Path, files: list[Path], subset: str | None) -> dict[str, list[Path]]:
    """Split → its files: as the README says, else by the names."""
    from datasets.data_files import sanitize_patterns

    names = {file.relative_to(folder).as_posix(): file for file in files if file != folder}
    if not names:  # a folder that is one saved data set
        splits = saved_splits(folder)
        return {"train": files} if splits is None else {name: [folder / name] for name in splits}
    config = _config(folder, subset)
    base = str(config.get("data_dir") or "") if config is not None else subset or ""
    if base:
        names = {n.removeprefix(f"{base}/"): file for n, file in names.items() if n.startswith(f"{base}/")}
        need(bool(names), f"data.path={folder}: no subset {base} there, neither in its README nor as a folder")
    if config is None or "data_files" not in config:
        return _by_name(names)
    found = {}
    for split, patterns in sanitize_patterns(config["data_files"]).items():
        matched = {names[n]: None for pattern in patterns for n in _matching(pattern.removeprefix("./"), names)}
        if matched:
            found[split] = list(matched)
    need(bool(found), f"data.path={folder}: none of the files that its README lists are there")
    return found


def _config(folder: Path, subset: str | None) -> dict[str, Any] | None:
    """The configuration `subset` of the data set's README, or its default one; None for a README without any."""
    if not (folder / "README.md").is_file():
        return None
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    try:
        card = DatasetCard.load(folder / "README.md", ignore_metadata_errors=True)
        configs = MetadataConfigs.from_dataset_card_data(card.data)
    except Exception as error:  # whatever the reader of YAML or the library's checks raise
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{folder / 'README.md'}: its head cannot be read ({reason}); data.split=null reads all files"
        ) from error
    if not configs:
        return None
    name = subset or configs.get_default_config_name() or (next(iter(configs)) if len(configs) == 1 else None)
    listed = ", ".join(configs)
    need(name is not None, f"data.path={folder}: it has the subsets {listed}; name some with data.subsets=[…]")
    need(str(name) in configs, f"data.path={folder}: no subset {name}; there are {listed}")
    return configs[str(name)]


def _by_name(names: Mapping[str, Path]) -> dict[str, list[Path]]:
    """Splits as the hub's library infers them from names; here case does not matter: `Test.jsonl` is a test split."""
    from datasets.data_files import _get_data_files_patterns

    lower = {name.lower(): file for name, file in names.items()}
    patterns = _get_data_files_patterns(lambda pattern: _matching(pattern, lower))
    return {
        str(split): list({lower[n]: None for pattern in found for n in _matching(pattern, lower)})
        for split, found in patterns.items()
    }


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern of the hub's library matches, sorted."""
    from fsspec.utils import glob_translate

    expression = re.compile(glob_translate(pattern if glob.has_magic(pattern) else glob.escape(pattern)))
    return sorted(name for name in names if expression.match(name))


def _shards(files: Sequence[Path]) -> dict[Path, tuple[Path, str, int | None]]:
    """Each file's (folder, stem, number): shards share the first two. A stem that is empty is the folder's name."""
    out: dict[Path, tuple[Path, str, int | None]] = {}
    numbered: dict[tuple[Path, str], list[tuple[Path, str]]] = {}
    for file in files:
        stem = file.name.split(".")[0] if not file.is_dir() else file.name
        found = SURE.fullmatch(_name(file)) or PART.fullmatch(stem)
        if found:
            out[file] = (file.parent, found["stem"], int(found["number"]))
        elif DIGEST.fullmatch(stem) and any(c.isdigit() for c in stem):  # first: some end in digits alone
            numbered.setdefault((file.parent, ""), []).append((file, "0"))
        elif number := NUMBERED.fullmatch(_name(file)):
            digits = number["number"] or number["whole"]
            numbered.setdefault((file.parent, number["stem"] or ""), []).append((file, digits))
        else:
            out[file] = (file.parent, stem, None)
    for (folder, stem), members in numbered.items():
        together = len(members) > 1 and (not stem or _counts([digits for _, digits in members]))
        for file, digits in members:
            out[file] = (folder, stem, int(digits)) if together else (folder, file.name.split(".")[0], None)
    return {
        file: (folder, stem, number) if stem else (folder.parent, folder.name, number)
        for file, (folder, stem, number) in out.items()
    }


def _name(file: Path) -> str:
    """The file's name without what says its kind."""
    return re.sub(r"(\.(jsonl?|ndjson|csv|tsv|parquet|arrow|gz|zst|bz2|xz|snappy))+$", "", file.name, flags=re.I)


def _counts(digits: Sequence[str]) -> bool:
    """Whether numbers count something out, 0, 1, 2 … or 007, 012 …: `gpt-3` and `gpt-4` are no shards of `gpt`."""
    padded = len({len(d) for d in digits}) == 1 and len(digits[0]) > 1 and any(d.startswith("0") for d in digits)
    values = sorted(map(int, digits))
    return padded or (values[0] in (0, 1) and values == list(range(values[0], values[0] + len(values))))


def _missing(files: Sequence[Path]) -> tuple[int, ...]:
    """Numbers of shards (`-of-` says how many there are) that are not among `files`."""
    found = [match for file in files if (match := SURE.fullmatch(_name(file)))]
    there = {int(match["number"]) for match in found}
    total = max((int(match["of"]) for match in found), default=0)
    start = 1 if total in there and 0 not in there else 0  # some count from 1
    return tuple(sorted(set(range(start, total + start)) - there)) if found else ()


def _names(keys: Sequence[tuple[Path, str]]) -> dict[tuple[Path, str], str]:
    """A name for each (folder, stem): the stem, or the folder that tells several of the same stem apart."""
    names = {}
    stems: dict[str, list[Path]] = {}
    for folder, stem in keys:
        stems.setdefault(stem, []).append(folder)
    for stem, folders in stems.items():
        for folder, label in zip(folders, [stem] if len(folders) == 1 else _apart(folders), strict=True):
            names[folder, stem] = label
    counts = list(names.values())
    return {key: label if counts.count(label) == 1 else f"{label}/{key[1]}" for key, label in names.items()}


def _apart(folders: Sequence[Path]) -> list[str]:
    """The nearest folder in each of several paths by which all of them differ, or as many as it takes."""
    parts = [(Path.cwd() / folder).parts[::-1] for folder in folders]
    depth = max(map(len, parts))
    for level in range(depth):
        at = [p[level] if level < len(p) else "" for p in parts]
        if len(set(at)) == len(at) and all(at):
            return at
    return next(
        ends
        for level in range(1, depth + 1)
        if len(set(ends := ["/".join(p[:level][::-1]) for p in parts])) == len(parts)
    )
