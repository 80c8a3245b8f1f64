"""python -m dsel.engine.worker FOLDER: one of the processes of a training, which `dsel.engine.launch` has started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dsel.distributed import die_with_parent, is_main_process, join, leave, rank, world_size
from dsel.engine.saying import failure, log_to, without_future_warnings
from dsel.interrupt import Ended, hear
from dsel.progress import show_elsewhere
from dsel.trainer.job import run
from dsel.trainer.sent import SAID, Said, received


def main(folder: Path) -> int:
    """Take part in the training that was sent to `folder`; exit code 1 where it failed, and said so."""
    die_with_parent()
    hear()
    return 0 if take_part(folder) else 1


def take_part(folder: Path) -> bool:
    """Do this process's part of the training that was sent to `folder`; False where it failed, and said so."""
    said = Said(folder / SAID.format(rank()))
    without_future_warnings()
    show_elsewhere(lambda title, total, unit, count: said.say("advance", title, total, unit, count))
    if is_main_process():  # what the others say is the same
        log_to(said.say)
    try:
        job, examples = received(folder)
        if world_size() > 1:
            join(job.trainer.strategy)
        tokenizer = job.model.load_tokenizer()
        run(job, examples, tokenizer, folder.parent, lambda metrics, step: said.say("step", metrics, step))
        if world_size() > 1:
            leave()
    except Ended:
        return False
    except Exception as error:
        said.say("failure", *failure(error))
        return False
    return True


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing that waits for the others, who may be gone
