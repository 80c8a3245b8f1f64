"""Runs that are in no cell: which cell each is nearest to, and what of it is otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsel.record.reader import RunFolder
from dsel.record.settings import literal, override
from dsel.report.match import Composer
from dsel.report.spec import Overrides, TableSpec

LOOKED_AT = 4  # cells of a table whose options are those of the run, or nearly
LISTED = 6  # differences


@dataclass(frozen=True)
class Near:
    """The row that a run is nearest to, and each difference as `trainer.epochs=1, wanted 3`."""

    run: RunFolder
    row: str
    differences: tuple[str, ...]

    def __str__(self) -> str:
        shown, more = self.differences[:LISTED], len(self.differences) - LISTED
        texts = [*shown, *([f"and {more} more"] if more > 0 else [])]
        return f"{self.run.where} is nearest to {self.row}: {'; '.join(texts) or 'the same configuration'}"


def nearest(runs: Sequence[RunFolder], tables: Sequence[TableSpec], composer: Composer) -> list[Near]:
    """What `runs` are nearest to, those with the fewest differences first; without those of which nothing is known."""
    found = [near for run in runs if (near := _nearest(run, tables, composer)) is not None]
    return sorted(found, key=lambda near: len(near.differences))


def _nearest(run: RunFolder, tables: Sequence[TableSpec], composer: Composer) -> Near | None:
    cells = [
        (row, table.at + overrides + column)
        for table in tables
        for row, overrides in table.rows.items()
        for column in dict.fromkeys(column.overrides for column in table.columns.values())
    ]
    likely = sorted(cells, key=lambda cell: len(_choices(run, composer, cell[1])))[:LOOKED_AT]
    known = [(row, apart) for row, at in likely if (apart := _apart(run, composer, at)) is not None]
    return None if not known else Near(run, *min(known, key=lambda each: len(each[1])))


def _choices(run: RunFolder, composer: Composer, at: Overrides) -> list[str]:
    """The groups of which the run has another option than the cell."""
    ours = composer.composed(at).choices
    return [group for group, name in ours.items() if run.choice(group) not in (None, name)]


def _apart(run: RunFolder, composer: Composer, at: Overrides) -> tuple[str, ...] | None:
    found = composer.recorded(run, at)
    if found is None:  # an option that there is no more
        return None
    choices, settings = found
    ours, wanted = composer.composed(at).choices, composer.wanted(at + choices, run.seed)
    named = [f"{choice}, wanted {ours.get(choice.partition('=')[0], 'none')}" for choice in choices]
    return (
        *named,
        *(f"{override(path, value)}, wanted {literal(_at(wanted, path))}" for path, value in settings.items()),
    )


def _at(config: Any, path: str) -> Any:
    for part in path.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config
