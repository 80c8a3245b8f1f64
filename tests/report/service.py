"""A double of the W&B service on this machine: it speaks the queries of the public API for exactly the runs given.

It answers the three queries that `wandb.Api().runs(…)` sends (who asks, their default entity, and pages of runs) and
nothing else; the client that sends them is the real one.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VIEWER = {"id": "u", "entity": "team", "username": "me", "email": None, "flags": "{}", "teams": {"edges": []}}


def node(name: str, config: Mapping[str, Any], summary: Mapping[str, Any], state: str = "finished") -> dict[str, Any]:
    """A run as the service describes it: configuration and summary are JSON in strings."""
    return {
        "id": base64.b64encode(name.encode()).decode(), "name": name, "displayName": name, "projectId": 1, "tags": [],
        "sweepName": None, "state": state, "group": None, "jobType": None, "commit": None, "readOnly": False,
        "createdAt": "2026-01-01T00:00:00", "heartbeatAt": "2026-01-01T00:00:00", "description": None, "notes": None,
        "config": json.dumps({key: {"value": value} for key, value in config.items()}),
        "summaryMetrics": json.dumps(summary), "systemMetrics": "{}", "historyLineCount": 0, "historyKeys": None,
        "user": {"name": "me", "username": "me"},
    }  # fmt: skip


class Service(ThreadingHTTPServer):
    """Serves `nodes` as the runs of team/dsel to whoever has `key`; `asked`: the variables of each page asked for."""

    def __init__(self, nodes: Sequence[Mapping[str, Any]], key: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.nodes, self.key = nodes, key
        self.asked: list[dict[str, Any]] = []

    def answer(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        if "runs(filters" not in query:
            return {"viewer": VIEWER}
        self.asked.append(dict(variables))
        if (variables["entity"], variables["project"]) != ("team", "dsel"):
            return {"project": None}
        wanted = json.loads(variables["filters"])
        found = [n for n in self.nodes if all(n[key] == value for key, value in wanted.items())]
        start = int(variables["cursor"] or 0)
        page = found[start : start + variables["perPage"]]
        edges = [{"node": n, "cursor": str(start + i)} for i, n in enumerate(page, 1)]
        more = {"endCursor": edges[-1]["cursor"] if edges else None, "hasNextPage": start + len(page) < len(found)}
        runs = {"edges": edges, "pageInfo": more}
        return {"project": {"internalId": "1", "runCount": len(found), "readOnly": False, "runs": runs}}


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/graphql":  # the client also sends numbers about itself
            return self._send(404, {})
        key = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        if key != f"api:{self.server.key}":
            return self._send(401, {"errors": [{"message": "not logged in"}]})
        asked = json.loads(body)
        return self._send(200, {"data": self.server.answer(asked["query"], asked.get("variables") or {})})

    def _send(self, status: int, content: Mapping[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serving(nodes: Sequence[Mapping[str, Any]], key: str) -> Iterator[Service]:
    """The service while the block runs."""
    service = Service(nodes, key)
    thread = threading.Thread(target=service.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        service.server_close()
