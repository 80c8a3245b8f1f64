"""Clusters of Ray on this machine, and what befalls them: for tests and for the bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from dsel.engine.ray import Ray
from dsel.lazy import fetched


class Watched(Ray):
    """Tells of each shard that is finished, and counts them."""

    each: Callable[[], None] = staticmethod(lambda: None)
    done = 0

    def _compute(self, worker: Any, shards: Any, rows: Any, advance: Any) -> None:
        def told(count: int) -> None:
            advance(count)
            self.done += 1
            self.each()

        super()._compute(worker, shards, rows, told)


def two_nodes(node: Mapping[str, Any]) -> Any:
    """A cluster of two such nodes."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    found.add_node(**node)
    found.wait_for_nodes()
    return found


def losing(cluster: Any, node: Mapping[str, Any], *, machine: int, worker: int) -> Watched:
    """An engine on a third node too, which goes after so many shards, and one of whose workers dies after so many."""
    import psutil

    third, engine = cluster.add_node(**node), Watched(cluster.address)
    cluster.wait_for_nodes()

    def trouble() -> None:
        if engine.done == machine:
            cluster.remove_node(third)
        if engine.done == worker:
            children = psutil.Process().children(recursive=True)
            next(p for p in children if "ray::Reader" in "".join(p.cmdline())).kill()

    engine.each = trouble
    return engine


@contextmanager
def given() -> Iterator[list[int]]:
    """The sizes of the shards that `engine=ray` gives out inside."""
    sizes: list[int] = []

    def fetch(rows: Any, which: Any) -> Any:
        sizes.append(len(which))
        return fetched(rows, which)

    with patch("dsel.engine.ray.fetched", fetch):
        yield sizes
