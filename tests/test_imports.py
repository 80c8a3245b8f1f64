"""Imports go one way, downwards, and never in a circle: also those that are for types alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from dsel.config_groups import ROOT

LAYERS = {
    "commands": "__init__ __main__ cli usage subset housekeeping run report compare browse plan forecast sweep summary "
    "answer leftovers",
    "experiment": "experiment testing",
    "record": "computed decontaminate record remote_runs",
    "what asks the learner": "selector evaluator",
    "study and learner": "study resources questions learner snapshot",
    "engine": "engine memory",
    "components": "targets embedder clusterer scorer trainer model tracker",
    "readers": "data",
    "ground": "pool stored columns batches messages lazy cache stage distributed files npy errors component "
    "constraints protocols hub secrets guard checked configured reading progress interrupt words ngrams arrays "
    "blocks retrieval contamination hashed_words tasks cost peaks spent references overrides config_groups shards "
    "explain show options verbosity ending described originals json_columns remote remote_cache",
}
"""The layers, from the top: each may import what is in it or below it. Names are of modules and folders."""

DEPTH = {name: depth for depth, names in enumerate(LAYERS.values()) for name in names.split()}


@cache
def imports() -> dict[str, set[str]]:
    """Each module of dsel, and those of dsel that it imports, anywhere in it."""
    files = {_name(path): path for path in Path(ROOT, "dsel").rglob("*.py")}
    return {name: {m for m in _imported(path) if m in files} - {name} for name, path in files.items()}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT / "dsel").with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("dsel.") for alias in node.names if alias.name.startswith("dsel."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dsel":
            module = str(node.module).removeprefix("dsel").removeprefix(".")
            yield module
            yield from (f"{module}.{alias.name}".removeprefix(".") for alias in node.names)


def _top(module: str) -> str:
    return module.split(".")[0]


def test_every_module_has_its_layer() -> None:
    missing = sorted({_top(module) for module in imports()} - DEPTH.keys())
    assert not missing, f"say in LAYERS where these are: {missing}"


def test_nothing_is_imported_from_above() -> None:
    upward = {
        importer: found
        for importer, modules in imports().items()
        if (found := {m for m in modules if DEPTH[_top(m)] < DEPTH[_top(importer)]})
    }
    assert not upward, f"imported from above: {upward}"


def test_nothing_is_imported_in_a_circle() -> None:
    left = dict(imports())
    while free := {name for name, modules in left.items() if not modules & left.keys()}:
        left = {name: modules for name, modules in left.items() if name not in free}
    while above := left.keys() - set().union(*left.values()):  # what imports a circle, and is in none
        left = {name: modules for name, modules in left.items() if name not in above}
    circles = {name: modules & left.keys() for name, modules in left.items()}
    assert not circles, f"these import each other: {circles}"


def test_only_commands_import_the_experiment_and_reports_no_run() -> None:
    commands = LAYERS["commands"].split()
    assert {_top(name) for name, modules in imports().items() if "experiment" in modules} <= {*commands, "testing"}
    assert not [name for name, modules in imports().items() if _top(name) in ("report", "compare") and "run" in modules]
