"""Which process has a run, so that others can see whether it is still there."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """The host and the number of this process; since when it runs, in the system's ticks, where that can be known."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": _since(os.getpid())}


def is_gone(process: Mapping[str, Any]) -> bool:
    """Whether a process of this host has ended; False where that cannot be seen from here.

    A number is given again to other processes: one that began at another time is another one.
    """
    pid, since = process.get("pid"), process.get("since")
    if process.get("host") != socket.gethostname() or not isinstance(pid, int) or not 0 < pid < 2**31:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's
        pass
    now = _since(pid)
    return None not in (since, now) and since != now


def _since(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19])  # the name, in brackets, may hold anything
    except (OSError, ValueError, IndexError):
        return None
