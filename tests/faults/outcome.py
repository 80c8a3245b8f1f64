"""What a fault did, and how that is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Trial = Callable[[], "Outcome"]
"""A fault that is still to be tried."""


@dataclass(frozen=True)
class Outcome:
    """fault: what was done. where: to what. happened: what was seen. wrong: empty where all is as it should be."""

    fault: str
    where: str
    happened: str
    wrong: str = ""


def table(outcomes: Iterable[Outcome]) -> list[str]:
    """Lines of a Markdown table: a row for each place and happening, its faults in one cell."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for one in outcomes:
        rows.setdefault((one.where, one.happened, one.wrong), []).append(one.fault)
    lines = ["| where | fault | what happened | what was lost |", "|---|---|---|---|"]
    for (where, happened, wrong), faults in rows.items():
        lines.append(f"| {where} | {', '.join(faults)} | {happened} | {_cell(wrong) or 'nothing'} |")
    return lines


def count(outcomes: Sequence[Outcome]) -> str:
    bad = sum(bool(one.wrong) for one in outcomes)
    return f"{len(outcomes)} tried, {bad} went wrong"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())[:300]
