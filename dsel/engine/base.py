"""What every engine is."""

from __future__ import annotations

from dsel.shards import Map


class Engine(Map):
    """Runs the maps over a pool wherever there are processors for them, and changes nothing in what comes out.

    So it is no part of any key. A worker that another process computes with is sent as its description; the shards and
    their files are those of `dsel.shards`, whoever has begun with them.
    """

    def check(self) -> None:
        """Raise `ConfigError` when it cannot run here. Loads nothing heavy."""
