"""python -m dsel.report: the tables and figures of an experiment, made again from its logged runs.

Like dsel.run it stays light until the arguments are checked.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from dsel.constraints import like
from dsel.ending import in_one_line
from dsel.errors import ConfigError, need
from dsel.record.reader import NAME
from dsel.record.settings import literal, override
from dsel.references import refuse_overrides
from dsel.remote import is_url
from dsel.remote_runs import need_here
from dsel.report import runs as sources
from dsel.report.match import Composer, shared
from dsel.report.nearest import nearest
from dsel.report.runs import SOURCES, Found
from dsel.report.spec import COST, Overrides, Spec, keys, read
from dsel.report.tables import Report, Table, build
from dsel.secrets import RedactingFormatter, cover
from dsel.verbosity import level, without_flags

log = logging.getLogger(__name__)

HELP = """\
python -m dsel.report experiments=NAME [source=local] [runs=runs] [out=reports/NAME] [overrides …]

Makes the tables and figures that experiments/NAME.yaml describes (`report:`) from its logged runs.

  source=local          the run folders under `runs`, a folder or its URL (s3://bucket/runs)
  source=wandb_offline  the offline W&B logs under `runs`
  source=wandb          the W&B service: entity=, project= (the experiment's tracker's) and filters={state: finished, …}
  out=                  folder for report.html, report.md, report.tex, report.csv and figures/

All else are overrides as python -m dsel.run takes them: what the runs of the experiment were given on their command
lines (model=smollm2_135m), or another look at them (report.baseline=kMQ).
"""
RUNS = "runs"  # conf/config.yaml's
LOOKED_AT, NEAREST = (
    20,
    3,
)  # of runs that are in no table: the latest that are compared with what is wanted, those named
OWN = ("source", "runs", "out", "entity", "project", "filters")


@dataclass
class Arguments:
    """What is asked for. `overrides` are of the runs, `looks` of the `report:` section; both go to Hydra."""

    experiment: str
    source: str = "local"
    runs: str = RUNS
    out: Path = Path("reports")
    entity: str | None = None
    project: str | None = None
    filters: dict[str, Any] = field(default_factory=dict)
    overrides: Overrides = ()
    looks: Overrides = ()


def parse(arguments: Sequence[str]) -> Arguments:
    """The arguments of a command line. Raises `ConfigError`, in one line, for what is wrong with them."""
    own: dict[str, str] = {}
    others: list[str] = []
    looks: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        need(bool(equals), f"{argument!r}: give key=value, as in experiments=laptop; --help shows the keys")
        if key in OWN:
            own[key] = value
        elif key == "experiments":
            own["experiment"] = value
        elif key.startswith("report."):
            looks.append(f"++{argument}")  # also what the experiment's file does not set
        else:
            others.append(argument)
    need(bool(own.get("experiment")), "which experiment? Give experiments=NAME, a file of experiments/")
    source = own.get("source", "local")
    need(source in SOURCES, f"source={source}{like(source, list(SOURCES))}: give one of {', '.join(SOURCES)}")
    for key in ("entity", "project", "filters"):
        need(key not in own or source == "wandb", f"{key}= is for source=wandb, not source={source}")
    runs = own.get("runs", RUNS)
    return Arguments(
        experiment=own["experiment"],
        source=source,
        runs=runs if is_url(runs) else str(Path(runs).expanduser()),
        out=Path(own.get("out", f"reports/{own['experiment']}")).expanduser(),
        entity=own.get("entity"),
        project=own.get("project"),
        filters=_mapping(own.get("filters", "{}")),
        overrides=tuple(others),
        looks=tuple(looks),
    )


def make(asked: Arguments) -> Report:
    """The report that is asked for, of the runs that are there."""
    elsewhere = () if asked.runs == RUNS else (f"runs={literal(asked.runs)}",)
    base = (f"experiments={asked.experiment}", *asked.overrides, *elsewhere)
    composer = Composer(base)
    section = Composer(base + asked.looks).report
    need(bool(section), f"experiments/{asked.experiment}.yaml has no report: section, which says what to show")
    spec = read(section)
    if asked.source != "wandb":
        found = _found(asked, need_here(asked.runs, option="runs", wanted=_shown))
    else:
        found = _of_service(asked, composer)
    adopted = _adopt(spec, found, composer, asked.overrides)
    if any(adopted):
        composer = Composer(base + adopted[0], adopted[1])
    tables = [build(table, found.runs, composer) for table in spec.tables]
    return Report(
        title=spec.title or asked.experiment,
        tables=tables,
        figures=tuple(dict.fromkeys([*spec.figures, COST])),
        notes=_notes(asked, found, adopted, spec, tables, composer),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: anything wrong with what was asked for ends in one line and exit code 2."""
    given = without_flags(sys.argv[1:] if arguments is None else arguments)
    if not given or {"-h", "--help"} & set(given):
        sys.stdout.write(HELP)
        return
    cover()
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("%(message)s"))
    logging.basicConfig(level=level(), handlers=[handler])
    for library in ("fontTools", "matplotlib", "wandb"):
        logging.getLogger(library).setLevel(logging.WARNING)
    with in_one_line("interrupted"):
        refuse_overrides(given)
        asked = parse(given)
        report = make(asked)

        from dsel.report.document import show, write

        show(report, write(report, asked.out, command=shlex.join(["python", "-m", "dsel.report", *given])))


def _shown(name: PurePosixPath) -> bool:
    """Whether a report reads a file of a run."""
    return name.name == NAME or name.suffix in (".parquet", ".wandb")


def _found(asked: Arguments, folder: Path) -> Found:
    read = sources.local if asked.source == "local" else sources.wandb_offline
    return read(asked.experiment, folder)


def _of_service(asked: Arguments, composer: Composer) -> Found:
    entity = asked.entity or composer.setting("tracker.entity")
    project = asked.project or composer.setting("tracker.project") or "dsel"
    return sources.wandb(asked.experiment, entity=entity, project=project, filters=asked.filters)


def _adopt(spec: Spec, found: Found, composer: Composer, asked: Overrides) -> tuple[Overrides, dict[str, Any]]:
    """What all runs of the experiment have beside what the tables tell apart (a smaller model, a limit).

    Whoever runs a whole experiment with another model does not have to say so again. Returns the options chosen, which
    are ours, and the settings, which are as recorded. asked: what the command of the report sets itself, which stays.
    """
    cells = [o for t in spec.tables for parts in (t.at, *t.rows.values()) for o in parts]
    cells += [o for t in spec.tables for column in t.columns.values() for o in column.overrides]
    each = [recorded for run in found.runs if (recorded := composer.recorded(run, unread=True)) is not None]
    settings = {override(path, value): (path, value) for _, own in each for path, value in own.items()}
    whole = [(*choices, *(override(*setting) for setting in own.items())) for choices, own in each]
    common = [o for o in shared(whole, keys(cells)) if keys([o])[0] not in keys(asked)]
    return tuple(o for o in common if o not in settings), dict(settings[o] for o in common if o in settings)


def _notes(
    asked: Arguments,
    found: Found,
    adopted: tuple[Overrides, dict[str, Any]],
    spec: Spec,
    tables: Sequence[Table],
    composer: Composer,
) -> list[str]:
    """What a reader of the whole report has to know."""
    sources = {"local": f"run folders under {asked.runs}", "wandb_offline": f"offline W&B logs under {asked.runs}"}
    source = sources.get(asked.source, "W&B")
    if any(table.placed for table in tables):
        notes = [f"Made of {_count(len(found.runs), 'finished run')} ({source})."]
    else:
        notes = list(_none(asked, found, spec, composer, source))
    if found.left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(found.left_out.items()))
        notes.append(f"Left out: {reasons}.")
    if asked.overrides:
        notes.append(f"With settings of this command: {' '.join(asked.overrides)}.")
    if any(adopted):
        everywhere = sorted([*adopted[0], *(override(*setting) for setting in adopted[1].items())])
        notes.append(f"All of the runs differ from the experiment's file in: {' '.join(everywhere)}.")
    placed = {id(run) for table in tables for run in table.placed}
    earlier = {id(run) for table in tables for run in table.superseded} - placed
    if earlier:
        notes.append(f"{_count(len(earlier), 'run')} not shown: a later one has the same configuration and seed.")
    placed |= earlier
    others = Counter(composer.coordinates(run) for run in found.runs if id(run) not in placed)
    if others and placed:
        several = sorted(others.items(), key=lambda item: (-item[1], str(item[0])))
        gone, own = "options there are no more, or values that are none", "the experiment's own"
        listed = [f"{n} with {gone if o is None else ' '.join(o) or own}" for o, n in several[:5]]
        more = f"; and {_count(len(several) - 5, 'other kind')}" if len(several) > 5 else ""
        notes.append(f"{_count(others.total(), 'run')} in no table, with other settings: {'; '.join(listed)}{more}.")
    return notes


def _none(asked: Arguments, found: Found, spec: Spec, composer: Composer, source: str) -> Iterator[str]:
    """Why no run is in any table: what those that come nearest have otherwise."""
    if found.runs:
        yield f"None of {_count(len(found.runs), 'finished run')} ({source}) is in a table."
    else:
        yield f"There is no finished run of experiments={asked.experiment} ({source})."
    runs = found.runs or found.others
    if not found.runs and runs:
        without = f"no experiments={asked.experiment}, which it takes to count"
        yield f"Finished runs with {without}: {len(runs)}."
    yield from (f"{near}." for near in nearest(runs[-LOOKED_AT:], spec.tables, composer)[:NEAREST])


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _mapping(text: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    try:
        found = OmegaConf.to_container(OmegaConf.create(text))
    except Exception as error:  # whatever the YAML parser says
        raise ConfigError(f"filters={text}: not a mapping such as '{{config.seed: 0}}'") from error
    need(isinstance(found, dict), f"filters={text}: not a mapping such as '{{config.seed: 0}}'")
    return found  # type: ignore[return-value]


if __name__ == "__main__":
    main()
