"""What is sent to other processes comes out as it went in, and what they say is heard once."""

from __future__ import annotations

import json
from pathlib import Path

from dsel.model.causal_lm import CausalLM
from dsel.model.tiny import Tiny
from dsel.trainer.job import Job
from dsel.trainer.sent import EXAMPLES, JOB, Said, received, send
from dsel.trainer.sft import SFT
from tests.conftest import make_pool

TRAINER = SFT(epochs=0.5, lora={"rank": 4, "alpha": 8, "dropout": 0.0}, strategy="fsdp2")


def test_a_job_and_its_examples_are_received_as_they_were_sent(tmp_path: Path) -> None:
    pool = make_pool(5, prompt="Zahl {i} – \u2028 bitte")
    job = Job(CausalLM(hub="some/model", lora_targets=["q_proj"]), TRAINER, pool.fingerprint, 3, "before", (2, 3), 7)
    send(job, pool, tmp_path)
    again, examples = received(tmp_path)
    assert again == job
    assert (list(examples.ids), list(examples.messages)) == (list(pool.ids), list(pool.messages))
    assert len((tmp_path / EXAMPLES).read_bytes().splitlines()) == 5


def test_a_model_that_builds_itself_is_sent_as_it_was_built(tmp_path: Path) -> None:
    model = Tiny()
    model.built = tmp_path / "model"
    send(Job(model, TRAINER, "", 0), make_pool(1), tmp_path)
    again, _ = received(tmp_path)
    assert isinstance(again.model, Tiny) and again.model.place == model.place
    json.loads((tmp_path / JOB).read_text())


def test_what_is_said_is_heard_once_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "said"
    worker, parent = Said(file), Said(file)
    assert list(parent.read()) == []
    worker.say("step", {"loss": 1.0}, 1)
    with file.open("a") as half:
        half.write('["step", {"lo')
    assert list(parent.read()) == [["step", {"loss": 1.0}, 1]]
    with file.open("a") as half:
        half.write('ss": 0.5}, 2]\n')
    worker.say("log", "dsel", 20, "two\nlines")
    assert list(parent.read()) == [["step", {"loss": 0.5}, 2], ["log", "dsel", 20, "two\nlines"]]
    assert list(parent.read()) == []
    assert len(parent.all()) == 3
