"""python -m dsel.engine.worker FOLDER: one of the processes of a training, which `dsel.engine.launch` has started."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

from dsel.distributed import die_with_parent, is_main_process, join, leave, rank
from dsel.errors import ConfigError, world
from dsel.progress import show_elsewhere
from dsel.secrets import redact
from dsel.trainer.job import run
from dsel.trainer.sent import SAID, Said, received
from dsel.verbosity import level


class Tell(logging.Handler):
    """Hands lines of the log on to the parent."""

    def __init__(self, said: Said):
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.say("log", record.name, record.levelno, redact(record.getMessage()))


def main(folder: Path) -> int:
    """Take part in the training that was sent to `folder`; exit code 1 where it failed, and said so."""
    die_with_parent()
    said = Said(folder / SAID.format(rank()))
    warnings.simplefilter("ignore", FutureWarning)  # as in the parent
    show_elsewhere(lambda title, total, unit, count: said.say("advance", title, total, unit, count))
    if is_main_process():  # what the others say is the same
        logging.basicConfig(level=logging.WARNING, handlers=[Tell(said)])
        logging.getLogger("dsel").setLevel(level())
    try:
        job, examples = received(folder)
        join(job.trainer.strategy)
        tokenizer = job.model.load_tokenizer()
        run(job, examples, tokenizer, folder.parent, lambda metrics, step: said.say("step", metrics, step))
        leave()
    except Exception as error:
        known = str(error) if isinstance(error, ConfigError) else world(error)
        kind = "config" if isinstance(error, ConfigError) else "world" if known else None
        line = known or f"{type(error).__name__}: {error}"
        said.say("failure", time.time(), kind, redact(line), redact(traceback.format_exc()))
        return 1
    return 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing that waits for the others, who may be gone
