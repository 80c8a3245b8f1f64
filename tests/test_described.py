"""What is described as plain JSON is made again as it was, and nothing is made that is no dataclass."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsel.described import Indescribable, describe, make
from dsel.embedder.rds import Rds
from dsel.model.causal_lm import CausalLM
from dsel.model.tiny import Tiny
from dsel.trainer.job import Job
from dsel.trainer.sft import SFT


def again(value: Any) -> Any:
    return make(json.loads(json.dumps(describe(value))))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1, 2.5, float("inf"), True, "a\u2028b"],
        ((1, 2), [(3,)], {"tuple": 1, "class": "x"}, {}),
        {"path": Path("a/b"), "mapping": {"path": "c"}},
        Job(CausalLM(hub="m"), SFT(lora={"rank": 4, "alpha": 8}), "pool", 3, "before", (2, 3), 7, True),
        Rds(model=CausalLM(hub="m", lora_targets=["q_proj"]), pooling="last", store="float16"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_described_is_made_again(value: Any) -> None:
    found = again(value)
    assert found == value and type(found) is type(value)


def test_what_is_set_later_goes_with_it() -> None:
    model = Tiny()
    model.built = Path("models/tiny")
    assert again(Rds(model=model)).model.place == model.place == "models/tiny"


def test_numbers_of_numpy_become_pythons() -> None:
    assert again({"seed": np.int64(3), "rate": np.float32(0.5)}) == {"seed": 3, "rate": 0.5}


@dataclass
class Holds:
    value: Any


def test_what_another_process_could_not_make_is_refused() -> None:
    @dataclass
    class Local:
        pass

    for value, why in [
        (lambda: None, "function is no plain data"),
        (Holds({1, 2}), r"set is no plain data"),
        ({1: 2}, "dict is no plain data"),
        (np.zeros(2), "ndarray is no plain data"),
        (Local(), r"Local cannot be imported by another process"),
        (Holds, "type is no plain data"),
    ]:
        with pytest.raises(Indescribable, match=why):
            describe(value)


def test_nothing_is_made_that_is_no_dataclass() -> None:
    with pytest.raises(ValueError, match="is no dataclass"):
        make({"class": "subprocess:Popen", "fields": {"args": "true"}, "rest": {}})
