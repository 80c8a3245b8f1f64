"""One file knows what a launcher says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import dsel
from dsel import distributed

NAMES = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"}
ALL = re.compile(r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|(MASTER|TORCHELASTIC|ACCELERATE|FSDP|SLURM|OMPI)_\w+")


def test_no_other_module_reads_the_launchers_variables():
    for path in Path(dsel.__file__).parent.rglob("*.py"):
        texts = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
        read = [text for text in texts if isinstance(text, str) and ALL.fullmatch(text)]
        assert path.name == "distributed.py" or not read, (path, read)


@pytest.mark.parametrize(
    "said, expected", [({}, (1, 0, True, False)), ({"WORLD_SIZE": "8", "RANK": "3"}, (8, 3, False, True))]
)
def test_what_a_launcher_says_is_read(said, expected, monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    found = (distributed.world_size(), distributed.rank(), distributed.is_main_process(), distributed.launched())
    assert found == expected
