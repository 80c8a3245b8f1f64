"""python -m dsel.engine.reader: one of the processes of a map, which `dsel.engine.spread` has started.

Lines of JSON come on its standard input: the description of a worker, then shards with their rows. Lines of JSON go to
its standard output: `ready`, `done` with what a shard has said, `log` and `failure`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import IO, Any

from dsel.described import make
from dsel.distributed import die_with_parent
from dsel.engine.saying import failure, log_to, without_future_warnings
from dsel.progress import show_elsewhere


def main(given: IO[bytes], said: IO[str]) -> int:
    """Compute what shards are given until there are no more; exit code 1 where one failed, and said so."""
    lock = threading.Lock()

    def say(*what: Any) -> None:
        with lock:
            said.write(json.dumps(what) + "\n")
            said.flush()

    die_with_parent()
    without_future_warnings()
    log_to(say)
    show_elsewhere(lambda *_: None)  # shards that are done are progress enough
    try:
        read = make(json.loads(given.readline())).build()
        say("ready")
        for line in given:
            sent = json.loads(line)
            say("done", make(sent["shard"]).finish(read, sent["rows"]))
    except Exception as error:
        say("failure", *failure(error))
        return 1
    return 0


if __name__ == "__main__":
    given, ours = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what libraries read and print is none of these lines
    os.dup2(2, 1)
    code = main(given, ours)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # no threads or clients of libraries that would be waited for
