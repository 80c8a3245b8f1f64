"""What `_procedural.yaml` calls: the rows of a file of JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def of_file(file: str, **_: Any) -> dict[str, Any]:
    """`file` as the split `test`. (Reading it here takes a millisecond; `load_dataset` takes a quarter of a second.)"""
    from datasets import Dataset

    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}
