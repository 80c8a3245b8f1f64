"""A comparison as tables: in the terminal, as Markdown, as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from dsel.files import finite, write_json, write_text
from dsel.secrets import redact
from dsel.show import Table, plain, printable, say, show_table, to_terminal

GROUPS = 12  # sources or clusters shown; the JSON has all


def show(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the tables of a comparison, and the notes."""
    console = console or to_terminal()
    for table in tables(result):
        show_table(table, console)
    for note in result["notes"]:
        say(f"note: {note}", console)


def markdown(result: Mapping[str, Any]) -> str:
    """The same as GitHub Markdown."""
    parts = ["# Two subsets compared"]
    for table in tables(result):
        rows = [[plain(cell) for cell in row] for row in table.rows if row is not None]
        lines = [table.header, ["---:" if side == "r" else "---" for side in table.align], *rows]
        text = "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)
        parts.append(f"## {_escaped(table.title)}\n\n{text}")
    if result["notes"]:
        parts.append("\n".join(f"- {_escaped(note)}" for note in result["notes"]))
    return "\n\n".join(parts) + "\n"


def write(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `comparison.json` and `comparison.md` into `folder`, which is made when it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "comparison.json", finite(result))
    write_text(folder / "comparison.md", redact(markdown(result)))
    return [folder / "comparison.json", folder / "comparison.md"]


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """The tables that this comparison has something for."""
    yield _subsets(result)
    yield _overlap(result)
    spread = _spread(result)
    if spread.rows:
        yield spread
    for what in ("sources", "clusters"):
        if result[what] is not None:
            yield _composition(result[what], what)
    yield _distributions(result)
    if result["rounds"]:
        yield _rounds(result["rounds"])
    for which in ("a", "b"):
        if result[f"only_{which}"]:
            yield _examples(result, which)


def _subsets(result: Mapping[str, Any]) -> Table:
    a, b = result["a"], result["b"]
    rows: list[tuple[str, ...]] = [("path", a["name"], b["name"])]
    for fact in ("method", "scorer", "pool", "seed", "cost of choosing", "cost of training"):
        pair = [(s["run"] or {}).get(fact) for s in (a, b)]
        if pair != [None, None]:
            rows.append((fact, _text(pair[0]), _text(pair[1])))
    for fact in ("rounds", "examples", "distinct"):
        if fact == "examples" or any(s[fact] != {"rounds": 1, "distinct": s["examples"]}[fact] for s in (a, b)):
            rows.append((fact, _count(a[fact]), _count(b[fact])))
    return Table(rows, "Two subsets", ("", "A", "B"), "lll")


def _overlap(result: Mapping[str, Any]) -> Table:
    found, a, b = result["overlap"], result["a"], result["b"]
    rows: list[tuple[str, ...]] = [
        ("in both", _count(found["both"])),
        ("share of A", _share(found["share_of_a"])),
        ("share of B", _share(found["share_of_b"])),
        ("Jaccard index", f"{found['jaccard']:.4f}"),
        ("only in A", _count(a["distinct"] - found["both"])),
        ("only in B", _count(b["distinct"] - found["both"])),
    ]
    if found["by_chance"] is not None:
        rows.append(("in both by chance", _number(found["by_chance"])))
    return Table(rows, f"Overlap (the same {result['same_by']} is the same example)", ("", ""), "lr")


def _spread(result: Mapping[str, Any]) -> Table:
    rows: list[tuple[str, ...]] = []
    for what in ("sources", "clusters"):
        found = result[what]
        if found is None:
            continue
        covered, bits, away = found["covered"], found["entropy"], found["total_variation"]
        whole = covered.get("pool")
        rows.append((f"{what} covered", _part(covered["a"], whole), _part(covered["b"], whole), _count(whole)))
        rows.append(
            (f"entropy over {what}, bits", *(f"{bits[w]:.3f}" if w in bits else "–" for w in ("a", "b", "pool")))
        )
        if whole is not None:
            variation = (f"{away['a_pool']:.4f}", f"{away['b_pool']:.4f}")
            rows.append((f"total variation from the pool's {what}", *variation, ""))
    found = result["ngrams"]
    if found is not None:
        whole = found["pool"]
        counts = (_part(found["a"], whole), _part(found["b"], whole), _count(whole))
        rows.append(("distinct words and pairs of words", *counts))
    pool = result["pool"]
    title = "Coverage" if pool is None else f"Coverage of the pool ({pool['name']}, {pool['examples']:,} examples)"
    return Table(rows, title, ("", "A", "B", "pool"), "lrrr")


def _composition(found: Mapping[str, Any], what: str) -> Table:
    pool, named = "pool" in found["covered"], any(row.get("source") for row in found["rows"])
    header = [what[:-1], *(["mostly"] if named else []), "A", "", "B", "", "A − B, points", *(["pool"] if pool else [])]
    rows: list[tuple[str, ...]] = []
    for row in found["rows"][:GROUPS]:
        cells = [str(row["name"])]
        if named:
            cells.append(f"{row['source']} {_share(row['share_source'])}" if row["source"] else "")
        cells += [_count(row["a"]), _share(row["share_a"]), _count(row["b"]), _share(row["share_b"])]
        cells.append(f"{row['points']:+.2f}")
        if pool:
            cells.append(_share(row["share_pool"]))
        rows.append(tuple(cells))
    more = f"; {GROUPS} of {len(found['rows']):,}, those that differ most" if len(found["rows"]) > GROUPS else ""
    title = f"{what.capitalize()} (total variation between A and B {found['total_variation']['a_b']:.4f}{more})"
    left = 2 if named else 1
    return Table(rows, title, header, "l" * left + "r" * (len(header) - left))


def _distributions(result: Mapping[str, Any]) -> Table:
    rows: list[tuple[str, ...] | None] = []
    for found in result["distributions"]:
        name, known = found["name"], [found[which] for which in ("a", "b", "pool") if found[which] is not None]
        if known and rows:
            rows.append(None)
        digits = _digits(max((abs(stats["mean"]) for stats in known), default=0.0))
        for label, which in (("A", "a"), ("B", "b"), ("pool", "pool")):
            stats = found[which]
            if stats is not None:
                numbers = [stats[k] for k in ("mean", "lower_quartile", "median", "upper_quartile")]
                rows.append((name, label, _count(stats["n"]), *(f"{v:,.{digits}f}" for v in numbers), "", ""))
                name = ""
        if found["difference"] is not None:
            p = "–" if found["p"] is None else "< 0.0001" if found["p"] < 1e-4 else f"{found['p']:.4f}"
            rows.append(
                (name, "A − B", "", f"{found['difference']:+,.{digits}f}", "", "", "", p, _share(found["above"]))
            )
    header = ("", "", "examples", "mean", "25 %", "median", "75 %", "p", "A above B")
    title = "Distributions (p: Mann-Whitney, two-sided, of what is only in A against what is only in B)"
    return Table(rows, title, header, "llrrrrrrr")


def _rounds(found: list[Mapping[str, Any]]) -> Table:
    names = ("round", "a", "a_in_b", "b", "b_in_a", "both", "both_so_far")
    rows = [(*(_count(row[n]) for n in names), f"{row['jaccard_so_far']:.4f}") for row in found]
    header = ("round", "A", "in all of B", "B", "in all of A", "in both", "both so far", "Jaccard so far")
    return Table(rows, "Rounds", header, "r" * 8)


def _examples(result: Mapping[str, Any], which: str) -> Table:
    listed, left = result[f"only_{which}"], result[which]["distinct"] - result["overlap"]["both"]
    scored = any(row["score"] is not None for row in listed)
    rows: list[tuple[str, ...]] = []
    for row in listed:
        score = [_number(row["score"])] if scored else []
        rows.append((row["id"], _text(row["source"]), *score, row["prompt"], row["response"]))
    order = f"highest {result['score']} first" if scored else "in its order"
    title = f"Only in {which.upper()} ({len(listed)} of {left:,}, {order})"
    header = ("id", "source", *(["score"] if scored else []), "prompt", "response")
    return Table(rows, title, header, "llrll" if scored else "llll")


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _part(value: int, whole: int | None) -> str:
    return f"{value:,} ({value / whole:.1%})" if whole else f"{value:,}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.{_digits(value)}f}"


def _digits(value: float) -> int:
    """How many decimals make four significant digits of a number like this."""
    before = math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
    return min(max(3 - before, 0), 6)


def _escaped(text: str) -> str:
    for character in "\\`*_<>|[]":
        text = text.replace(character, "\\" + character)
    return printable(text)
