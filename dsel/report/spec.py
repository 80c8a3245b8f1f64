"""The `report:` section of an experiment's file: what its tables and figures show.

    report:
      title: …
      paper: Yu et al. 2024, Table 2     # where the published figures are from
      rows:                              # label: the overrides that make a run one of this row
        Random: selector=random
        kMQ-64: selector=kmq clusterer.k=64
      columns:                           # label: a metric of the record, or overrides, as for rows
        MMLU: mmlu_chat
        10 %: budget=0.1
      metric: average                    # in cells whose column is overrides; the first metric column unless given
      baseline: Random                   # the row that the others are compared with
      published: {Random: {MMLU: 42.4}}  # by the labels
      differs: {mmlu_chat: in 8 bits}    # by metrics: what of the published measurement the experiment's is not
      seeds: [0, 1, 2]                   # what a full cell has
      scale: {loss: 1}                   # in place of the metric's own: 100 for shares (accuracies), 1 for all others
      decimals: 1                        # in place of one for shares, and four digits for all others
      at: model=mistral_7b               # overrides of all runs of the table
      tables: [{…}, …]                   # several tables: each has the keys above that differ for it
      figures: [budget, weights]         # see dsel.report.figures
      sweeps: [methods, seeds]           # the sweeps this experiment is meant for

A metric is a name in the record's `metrics` or a dotted path to another number in it, such as `clustering.silhouette`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from dsel.constraints import like
from dsel.errors import ConfigError, need

Overrides = tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """One column: `metric` of the runs that `overrides` make."""

    metric: str
    overrides: Overrides = ()


@dataclass(frozen=True)
class TableSpec:
    """One table of a report; its fields are described in the module's docstring."""

    rows: Mapping[str, Overrides]
    columns: Mapping[str, Column]
    metric: str
    title: str = ""
    paper: str = ""
    baseline: str | None = None
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    differs: Mapping[str, str] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    scale: float | Mapping[str, float] | None = None
    decimals: int | None = None
    at: Overrides = ()

    def factor(self, metric: str, usual: float) -> float:
        """What values of `metric` are multiplied by to be shown: `usual`, where nothing is said of it."""
        given = self.scale.get(metric) if isinstance(self.scale, Mapping) else self.scale
        return usual if given is None else float(given)


@dataclass(frozen=True)
class Spec:
    """A whole `report:` section."""

    title: str
    tables: tuple[TableSpec, ...]
    figures: tuple[str, ...] = ()
    sweeps: tuple[str, ...] = ()


COST = "cost"  # the figure that every report has
FIGURES = ("weights", "sources", "map", COST)
"""The figures that are not of a metric against a setting (dsel.report.figures)."""

OWN = frozenset({"tables", "figures", "sweeps"})
KEYS = frozenset(f.name for f in fields(TableSpec))


def read(section: Mapping[str, Any]) -> Spec:
    """The report that `section` describes. Raises `ConfigError`, in one line, for what is wrong with it."""
    _known(section, OWN | KEYS, "report")
    shared = {key: value for key, value in section.items() if key in KEYS}
    own = section.get("tables") or [{}]
    need(isinstance(own, Sequence) and not isinstance(own, str), "report.tables: give a list of tables")
    tables = []
    for number, table in enumerate(own):
        name = f"report.tables[{number}]" if "tables" in section else "report"
        _known(table, KEYS, name)
        tables.append(_table({**shared, **table}, name))
    figures, sweeps = (tuple(section.get(key) or ()) for key in ("figures", "sweeps"))
    _figures(section.get("figures") or (), tables)
    return Spec(str(section.get("title", "")), tuple(tables), figures, sweeps)


def overrides(value: Any) -> Overrides:
    """Overrides as in a command: a text with spaces between them, a list of them, or nothing."""
    if value is None:
        return ()
    return tuple(shlex.split(value) if isinstance(value, str) else map(str, value))


def keys(parts: Sequence[str]) -> list[str]:
    """What the overrides are of: the text before each first `=`."""
    return [part.partition("=")[0].lstrip("+~") for part in parts]


def _table(section: Mapping[str, Any], name: str) -> TableSpec:
    for key in ("rows", "columns"):
        need(bool(section.get(key)) and isinstance(section[key], Mapping), f"{name}.{key}: give label: overrides")
    rows = {str(label): overrides(value) for label, value in section["rows"].items()}
    given = {str(label): str(value) for label, value in section["columns"].items()}
    metric = str(section.get("metric") or next((value for value in given.values() if "=" not in value), ""))
    need(bool(metric), f"{name}.metric: name the metric of the cells")
    columns = {
        label: Column(metric, overrides(value)) if "=" in value else Column(value) for label, value in given.items()
    }
    published = {
        str(row): {str(column): float(value) for column, value in figures.items()}
        for row, figures in (section.get("published") or {}).items()
    }
    for row, figures in published.items():
        need(row in rows, f"{name}.published: {row!r} is no row of the table")
        wrong = sorted(set(figures) - set(columns))
        need(not wrong, f"{name}.published.{row}: {', '.join(map(repr, wrong))}: no column of the table")
    differs = section.get("differs") or {}
    need(isinstance(differs, Mapping), f"{name}.differs: give metric: text")
    baseline = section.get("baseline")
    need(baseline is None or str(baseline) in rows, f"{name}.baseline={baseline}: no row of the table")
    crossed = set(keys([o for parts in rows.values() for o in parts])) & set(
        keys([o for column in columns.values() for o in column.overrides])
    )
    need(not crossed, f"{name}: rows and columns both set {', '.join(sorted(crossed))}")
    try:
        return TableSpec(
            rows=rows,
            columns=columns,
            metric=metric,
            title=str(section.get("title", "")),
            paper=str(section.get("paper", "")),
            baseline=None if baseline is None else str(baseline),
            published=published,
            differs={str(metric): str(text) for metric, text in differs.items()},
            seeds=tuple(int(seed) for seed in section.get("seeds") or (0,)),
            scale=section.get("scale"),
            decimals=None if section.get("decimals") is None else int(section["decimals"]),
            at=overrides(section.get("at")),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {error}") from error


def _figures(names: Any, tables: Sequence[TableSpec]) -> None:
    """Raise `ConfigError` for what is none of `FIGURES`, and no setting (and metric) that a table has."""
    need(isinstance(names, Sequence) and not isinstance(names, str), "report.figures: give a list of figures")
    columns = [column for table in tables for column in table.columns.values()]
    varied = {o for table in tables for parts in table.rows.values() for o in parts}
    settings = sorted(set(keys([*varied, *(o for column in columns for o in column.overrides)])))
    metrics = sorted({column.metric for column in columns})
    for name in map(str, names):
        setting, _, metric = name.partition(" ")
        there = f"there are {', '.join(FIGURES)}, and against what the tables vary {', '.join(settings)}"
        near = like(name, [*FIGURES, *settings])
        need(name in FIGURES or setting in settings, f"report.figures: {name!r} is no figure{near}; {there}")
        known = f"{like(metric, metrics)}; there are {', '.join(metrics)}"
        need(metric in ("", *metrics), f"report.figures: {name!r}: no column of a table has {metric!r}{known}")


def _known(section: Any, known: frozenset[str], name: str) -> None:
    need(isinstance(section, Mapping), f"{name}: give keys and values")
    unknown = sorted(set(map(str, section)) - known)
    need(not unknown, f"{name}: unknown {', '.join(unknown)}; there are {', '.join(sorted(known))}")
