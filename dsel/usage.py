"""What `dsel --help` and `dsel help` say: the commands, the groups, and every option of every choice."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dsel
from dsel import config_groups
from dsel.config_groups import FOLDERS, ROOT
from dsel.constraints import like
from dsel.errors import need
from dsel.options import CONF, Option, described, heading, roles, top

HEAD = "dsel: choose the examples to finetune a language model on, train on them, and measure the result."
WIDEST = 120  # columns of a line


@dataclass(frozen=True)
class Command:
    """The module whose `main` it is, what follows it, what it does, and arguments that it stands for."""

    module: str
    follows: str
    does: str
    given: Sequence[str] = ()


COMMANDS = {
    "select": Command("dsel.subset.__main__", "FILE --budget N", "only the subset: rows of your file, as a file"),
    "run": Command("dsel.run", "[group=choice …]", "choose, train, evaluate; each run leaves a folder in runs/"),
    "plan": Command("dsel.run", "[group=choice …]", "what a run would do, in what time and memory", ["plan=true"]),
    "show": Command("dsel.browse.__main__", "RUN", "the page of one run: its map, its choices, and why"),
    "report": Command("dsel.report.__main__", "experiments=NAME", "tables and figures of an experiment's runs"),
    "compare": Command("dsel.compare.__main__", "A B", "two subsets side by side"),
    "runs": Command("dsel.housekeeping", "[FOLDER]", "runs and how they ended; removes old ones", ["runs"]),
    "cache": Command("dsel.housekeeping", "[KIND …]", "what is kept to be used again, its size; removes it", ["cache"]),
}


def version() -> str:
    return f"dsel {dsel.__version__}"


def screen() -> Iterator[str]:
    """All commands and all groups, on one screen."""
    yield from (HEAD, "")
    known = {f"dsel {name} {c.follows}": c.does for name, c in COMMANDS.items()}
    known["dsel help GROUP[.CHOICE]"] = "the choices of a group; every option of a choice"
    room = max(map(len, known))
    yield from (f"  {command:{room}}  {does}" for command, does in known.items())
    yield from ("", "A run is one choice from each group, which is a folder with a file for each choice:", "")
    room = max(map(len, roles())) + 1
    yield from (f"  {f'{group}:':{room}}  {role}" for group, role in roles().items())
    yield from (
        "",
        f"  {CONF}/<group>/",
        "",
        "  dsel select my.jsonl --budget 1000             1,000 of your examples, in my.selected.jsonl",
        "  dsel run experiments=quickstart                the whole loop on this machine, offline",
        "  dsel run -m experiments=laptop sweeps=laptop   a grid; dsel report experiments=laptop makes a table of it",
        "",
        "--help after a command says what it takes; -q says less, -v more. For the shell: " + COMPLETION,
    )


def run_screen() -> Iterator[str]:
    """What a run takes: every group with what it is for and its choices, and the options that are in no group."""
    yield from (HEAD, "", "dsel run [group=choice …] [group.option=value …]", "")
    for group, role in _groups().items():
        yield _filled(f"{group}: {role}: {', '.join(config_groups.options(group))}")
    yield ""
    yield from _table(top())
    yield from (
        "",
        "  dsel help selector.kmq                    every option of a choice, as in the files in",
        f"                                            {CONF}/<group>/",
        "  dsel run experiments=quickstart           the whole loop on this machine, offline",
        "  dsel run --cfg job                        the configuration a run would have",
        "  dsel run -m selector=random,kmq seed=0,1  a grid",
        "  dsel run --hydra-help                     what Hydra takes besides; -q says less, -v more",
        "",
        "`python -m dsel.run` is the same command. For the shell: " + COMPLETION,
    )


COMPLETION = 'eval "$(dsel -sc install=bash)"'


def help_on(asked: str) -> Iterator[str]:
    """The choices of a group, every option of a choice (`selector.kmq`, `selector=kmq`, `kmq`), or one of the run's."""
    known, name = _groups(), asked.replace("=", ".")
    group, _, choice = name.partition(".")
    option = [each for each in top() if each.name == name]
    homes = [each for each in known if name in config_groups.options(each)]
    if name in COMMANDS:
        yield f"dsel {name} {COMMANDS[name].follows}: {COMMANDS[name].does}; dsel {name} --help says what it takes"
    elif option:
        yield from _table(option)
    elif name in known:
        yield from _group(name, known[name])
    elif group in known:
        there = config_groups.options(group)
        need(choice in there, f"{group}={choice}: no such choice{like(choice, there)}; there are {', '.join(there)}")
        yield from _choice(group, choice)
    else:
        every = [*known, *COMMANDS, *(choice for each in known for choice in config_groups.options(each))]
        need(bool(homes), f"help {asked}: no group or choice{like(name, every)}; there are {', '.join(known)}")
        need(len(homes) == 1, f"help {asked}: which one? {', '.join(f'{home}.{name}' for home in homes)}")
        yield from _choice(homes[0], name)


def say(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _groups() -> dict[str, str]:
    """Every group, those inside of another too, and what it is for."""
    found = {}
    for group, role in roles().items():
        found[group] = role
        inside = [path.name for path in _folder(group).iterdir() if path.is_dir()]
        found |= {f"{group}/{name}": f"of some choices of {group}" for name in sorted(inside)}
    return found


def _group(group: str, role: str) -> Iterator[str]:
    there = config_groups.options(group)
    room = max(map(len, there))
    yield from (f"{group}: {role}", "")
    yield from (_filled(f"  {choice:{room}}  {heading(_file(group, choice))}", room + 4) for choice in there)
    yield from ("", f"dsel help {group}.{there[0]} shows the options of that one")


def _choice(group: str, choice: str) -> Iterator[str]:
    file = _file(group, choice)
    yield _filled(f"{group}={choice}: {heading(file)}")
    yield ""
    if group in FOLDERS:
        yield file.read_text(encoding="utf-8").rstrip()
    else:
        (one,) = described(group, [choice])
        yield one.says
        yield ""
        yield from _table(one.options, group.replace("/", ".") + ".")
    yield from ("", str(file))


def _table(options: Sequence[Option], prefix: str = "") -> Iterator[str]:
    """Each option with its value and what it may be, and below it what it means."""
    for option in options:
        value = option.values[0].replace("`", "")
        yield _filled(f"{prefix}{option.name}={value}" + (f"   ({option.wants})" if option.wants else ""))
        yield from (_filled(f"    {meaning}") for meaning in option.meanings)


def _filled(text: str, indent: int = 4) -> str:
    """Lines as wide as the terminal; one line where there is none."""
    if not sys.stdout.isatty():
        return text
    width = min(shutil.get_terminal_size().columns, WIDEST)
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)


def _folder(group: str) -> Path:
    return (ROOT if group in FOLDERS else CONF) / group


def _file(group: str, choice: str) -> Path:
    return _folder(group) / f"{choice}.yaml"
