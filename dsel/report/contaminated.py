"""Which runs have chosen what they are evaluated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dsel.record.reader import RunFolder

MARK = "†"


def contaminated(rows: Mapping[str, Sequence[RunFolder]]) -> Iterator[str]:
    """A sentence about the runs of each row, where one has chosen such examples.

    Args:
        rows: the runs of each row, by its label.
    """
    found = []
    for row, runs in rows.items():
        most = max((run for run in runs if run.contaminated), key=lambda run: run.contaminated, default=None)
        if most is not None:
            found.append(f"{row} (up to {most.contaminated:,} of {most.facts['contamination'].get('of') or 0:,})")
    if found:
        yield (
            f"{MARK} Among the chosen are examples that have what the evaluator asks, in runs of words at least: "
            f"{', '.join(found)}. data.decontaminate=remove takes such examples out of the pool."
        )
