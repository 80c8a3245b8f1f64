"""The engine of one machine."""

from __future__ import annotations

from dataclasses import dataclass

from dsel.engine.base import Engine
from dsel.shards import InProcess


@dataclass
class Local(InProcess, Engine):
    """`engine=local`: everything in this process."""
