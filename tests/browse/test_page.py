"""The page: what is in it, and what a real browser makes of it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsel.browse.__main__ import run
from dsel.browse.gather import Shown, gather
from dsel.browse.page import render
from dsel.record.reader import RunFolder
from tests.browse.made import made_pool, made_run
from tests.report.browser import CHROMIUM, Page, browser

MARKUP = "</script><script>document.title='evil'</script><img src=x onerror=alert(1)><!--"
EVIL = f"{MARKUP} $x_{{$ $\\frac{{1}}{{$ \"'& %{{x}} \x1b[31m"
N, BUDGET = 600, 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run each of whose texts is wicked, with one word of its own."""
    pool = made_pool(N, texts={i: f"number{i} {EVIL}" for i in range(N)})
    return made_run(tmp_path_factory.mktemp("runs") / "a run #1", pool, budget=BUDGET)


@pytest.fixture(scope="module")
def page_file(folder: Path) -> Path:
    return run([str(folder)])


@pytest.fixture(scope="module")
def shown(folder: Path) -> Shown:
    return gather(RunFolder.read(folder))


def test_nothing_of_a_run_is_markup(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    assert text.count("<script") == 3 == text.count("</script>")
    assert "<img" not in text and "document.title='evil'" in text and "\x1b" not in text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data and "<" not in data[1]
    assert any(row.startswith(f"number7 {EVIL[:-5]}") for row in json.loads(data[1])["examples"]["text"])


def test_the_policy_names_the_two_scripts(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    for digest in digests:
        assert f"&#39;sha256-{digest}&#39;" in policy[1]
    assert policy[1].startswith("default-src &#39;none&#39;;") and "http" not in policy[1]


def test_a_title_and_a_source_of_any_name_are_text(folder: Path) -> None:
    shown = gather(RunFolder.read(folder))
    shown.title, shown.notes, shown.sources[0] = EVIL, [EVIL], EVIL
    text = render(shown, command=f"dsel show {EVIL}")
    assert text.count("<script") == 3 and "<img" not in text


ODD = [
    "\0 NUL \x1b[31m \x7f\x85\ufffe", "half \ud83d and \ude00", "\u202eright to left \u2067isolate",
    "مرحبا بالعالم " * 40, "x" * 100_000, "e" + "\u0301" * 2000, "\u200b" * 500, "\n\r\n\t" * 300, "👪" * 300,
    "\u2028\u2029", "", "𝕏" * 500, "]]>", "<!--", "&lt;&amp;", "{{ 7 * 7 }}{% raw %}", "__proto__", "constructor",
    "NaN", MARKUP,
]  # fmt: skip


def strange(shown: Shown, texts: Sequence[str]) -> Shown:
    """The same page with these texts in turn wherever it has any."""
    turn = itertools.cycle(texts)
    columns = {name: [next(turn) for _ in shown.examples.id] for name in ("id", "text", "answer")}
    clusters = [replace(cluster, source=next(turn)) for cluster in shown.clusters]
    own = {"title": next(turn), "notes": [*texts], "facts": [(next(turn), next(turn))]}
    sources = [next(turn) for _ in shown.sources]
    return replace(shown, examples=replace(shown.examples, **columns), clusters=clusters, sources=sources, **own)


@given(texts=st.lists(st.text(st.characters(codec=None), max_size=30), min_size=1, max_size=4))
@settings(deadline=None, max_examples=20)
def test_any_text_is_text(texts: list[str], shown: Shown) -> None:
    """Lone halves of signs and zero bytes too, which no file of UTF-8 and no page may have."""
    page = render(strange(shown, [*texts, *ODD]), command=f"dsel show {texts[0]}")
    assert page.count("<script") == 3 == page.count("</script>") and "<img" not in page
    assert not re.search("[\0\x1b\ud800-\udfff]", page) and page.encode()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data and len(json.loads(data[1])["examples"]["text"]) == N


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


def opened(page: Page, file: Path, **window: Any) -> None:
    page.open(file, **window)
    wait(page, "!!document.querySelector('#map canvas') && !!document.querySelector('tbody tr')")


def wait(page: Page, condition: str) -> Any:
    """What the condition comes to in the page, as soon as it is true."""
    end = time.monotonic() + 30
    while not (found := page.evaluate(condition)):
        assert time.monotonic() < end, f"never: {condition}"
        time.sleep(0.05)
    return found


def complaints(page: Page) -> list[Any]:
    """But for what a graphics driver says of its own speed."""
    return [entry for entry in page.complaints if entry.get("source") != "rendering"]


def mouse(page: Page, kind: str, x: float, y: float, **more: Any) -> None:
    page.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)


def ask(page: Page, words: str) -> str:
    """The search for these words, as they are typed; returns what it says it found."""
    page.evaluate("document.getElementById('query').select()")
    page.send("Input.insertText", text=words) if words else page.evaluate(
        "{const q = document.getElementById('query'); q.value = ''; q.dispatchEvent(new Event('input'))}"
    )
    wait(page, f"state.words.join(' ') === {json.dumps(words)}")
    return str(page.evaluate("document.getElementById('found').textContent"))


ROWS = "[...document.querySelectorAll('tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
PLACE = """(() => {
  const map = document.getElementById("map"), box = map.getBoundingClientRect(), {xaxis, yaxis} = map._fullLayout;
  return [box.left + xaxis._offset + xaxis.l2p(all.x[ROW]), box.top + yaxis._offset + yaxis.l2p(all.y[ROW])];
})()"""


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_without_a_complaint_or_a_request(page: Page, page_file: Path, width: int, dark: bool) -> None:
    opened(page, page_file, width=width, dark=dark)
    assert page.evaluate("document.title") == "iterative: 90 of 600 examples of made"
    assert page.evaluate("document.querySelectorAll('#map canvas').length") >= 1  # drawn with WebGL
    assert page.evaluate("document.querySelectorAll('#map .no-webgl').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    background, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    shades = [sum(int(value) for value in re.findall(r"\d+", colour)[:3]) for colour in (background, ink)]
    assert (shades[0] < shades[1]) == dark
    assert complaints(page) == []
    assert [url for url in page.requests if not url.startswith(("data:", "blob:"))] == [page_file.resolve().as_uri()]


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_holds_odd_texts(page: Page, shown: Shown, width: int, tmp_path: Path) -> None:
    file = tmp_path / "odd.html"
    file.write_text(render(strange(shown, ODD), command="dsel show"), encoding="utf-8")
    opened(page, file, width=width)
    rows = page.evaluate("document.querySelectorAll('tbody tr').length")
    for row in range(rows):
        page.evaluate(f"document.querySelectorAll('tbody tr')[{row}].click()")
        assert page.evaluate(f"state.selected === {row} && document.documentElement.scrollWidth <= {width}")
    tallest = page.evaluate("Math.max(...[...document.querySelectorAll('tbody tr')].map(row => row.offsetHeight))")
    assert tallest < 120
    for tab in (1, 2):
        page.evaluate(f"document.querySelectorAll('[role=tab]')[{tab}].click()")
        assert page.evaluate("document.querySelectorAll('tbody tr').length") > 0
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert complaints(page) == []


@needs_chromium
def test_a_search_narrows_the_tables_and_the_map(page: Page, page_file: Path) -> None:
    opened(page, page_file)
    mine = page.evaluate("all.text[0].split(' ')[0]")
    assert ask(page, mine) == "1 chosen, 0 not chosen"
    (row,) = page.evaluate(ROWS)
    assert row[0].startswith(mine)
    assert page.evaluate("traces.slice(1, 3).map(rows => rows.length)") == [0, 1]
    assert ask(page, "code frac") == page.evaluate(
        "`${all.id.filter((_, i) => ours(i) && named(i) === 'code').length} chosen, "
        "${all.id.filter((_, i) => !ours(i) && named(i) === 'code').length} not chosen`"
    )
    assert ask(page, "nosuchword") == "0 chosen, 0 not chosen"
    assert page.evaluate(ROWS) == [["Nothing here has all of these words."]]
    assert ask(page, "") == "" and len(page.evaluate(ROWS)) == 25
    assert complaints(page) == []


@needs_chromium
def test_a_point_tells_its_text_and_why_it_was_chosen(page: Page, page_file: Path) -> None:
    opened(page, page_file)
    row = page.evaluate("all.x.map((x, i) => [x, i]).filter(([, i]) => ours(i)).sort((a, b) => a[0] - b[0])[0][1]")
    x, y = page.evaluate(PLACE.replace("ROW", str(row)))
    mouse(page, "mouseMoved", x + 40, y + 40)
    mouse(page, "mouseMoved", x, y)
    wait(page, f"document.getElementById('tip').textContent.includes(all.text[{row}].trimEnd())")
    tip = page.evaluate("document.getElementById('tip').innerText")
    assert tip.startswith("chosen · ") and "document.title='evil'" in tip
    for kind in ("mousePressed", "mouseReleased"):
        mouse(page, kind, x, y, button="left", clickCount=1)
    wait(page, f"state.selected === {row}")
    said = page.evaluate("document.getElementById('example').innerText")
    for label in ("Round", "Cluster", "Weight", "Score", "Rank", "Feedback", "What the model in training answered"):
        assert label in said
    assert f"of {N} by score" in said and EVIL[:40] in said
    near = page.evaluate("document.querySelectorAll('.near button').length")
    assert near == 5
    page.evaluate("document.querySelector('.near button').click()")
    assert page.evaluate("ours(state.selected)") is False
    assert "were chosen" in page.evaluate("document.getElementById('example').innerText")
    assert complaints(page) == []


@needs_chromium
def test_tabs_tables_and_pages(page: Page, page_file: Path) -> None:
    opened(page, page_file)
    tabs = "[...document.querySelectorAll('[role=tab]')]"
    assert page.evaluate(f"{tabs}.map(tab => tab.textContent)") == ["Chosen (90)", "Not chosen (510)", "Clusters (12)"]
    heads = "[...document.querySelectorAll('thead th')].map(head => head.textContent)"
    assert {"Example", "Source", "Round", "Cluster", "Weight", "Score", "Rank"} <= set(page.evaluate(heads))
    page.evaluate("[...document.querySelectorAll('thead button')].find(b => b.textContent === 'Score').click()")
    scores = page.evaluate("[...document.querySelectorAll('tbody tr')].map(row => all.score[row.dataset.row])")
    assert scores == sorted(page.evaluate("all.score.slice(0, run.chosen)"), reverse=True)[:25]
    page.evaluate("document.getElementById('after').click()")
    assert page.evaluate("document.getElementById('where').textContent") == "26–50 of 90"
    page.evaluate(f"{tabs}[1].click()")
    assert page.evaluate(f"{tabs}[1].getAttribute('aria-selected')") == "true"
    gaps = page.evaluate(
        "[...document.querySelectorAll('tbody tr')].map(row => all.gap[other(Number(row.dataset.row))])"
    )
    assert gaps == sorted(gaps) and len(gaps) == 25
    page.evaluate(f"{tabs}[2].click()")
    wait(page, "document.querySelectorAll('#chart .trace').length")  # weights over rounds
    assert len(page.evaluate(ROWS)) == 12 and page.evaluate("document.querySelectorAll('tbody svg').length") == 12
    page.evaluate("document.querySelector('tbody tr').click()")  # a cluster, alone
    cluster = page.evaluate("state.filter.value")
    assert page.evaluate("document.getElementById('filters').textContent") == f"cluster {cluster} ✕"
    page.evaluate(f"{tabs}[0].click()")
    count = len([c for c in page.evaluate("all.cluster.slice(0, run.chosen)") if c == cluster])
    assert len(page.evaluate(ROWS)) == min(count, 25)
    page.evaluate("document.querySelector('#filters button').click()")
    assert len(page.evaluate(ROWS)) == 25
    assert complaints(page) == []


@needs_chromium
def test_each_colouring_and_the_medoids_are_drawn(page: Page, page_file: Path) -> None:
    opened(page, page_file)
    options = page.evaluate("[...document.getElementById('colour').options].map(option => option.value)")
    assert options == ["chosen", "cluster", "source", "score", "round"]
    for name in options:
        page.evaluate(
            f"{{const c = document.getElementById('colour'); c.value = '{name}'; c.dispatchEvent(new Event('change'))}}"
        )
        assert page.evaluate("document.querySelectorAll('#legend li').length") >= 1
    page.evaluate("document.getElementById('medoids').click()")
    assert page.evaluate("traces[3].length") == 12
    page.evaluate("document.getElementById('others').click()")
    assert page.evaluate("traces[1].length") == 0
    assert complaints(page) == []


@needs_chromium
def test_a_run_without_a_map_is_a_page_of_tables(page: Page, tmp_path: Path) -> None:
    folder = made_run(tmp_path / "run", made_pool(40), budget=10)
    for name in ("map.parquet", "clusters.parquet", "scores.parquet"):
        (folder / name).unlink()
    page.open(run([str(folder)]))
    assert len(page.evaluate(ROWS)) == 10 and page.evaluate("document.getElementById('map-card').hidden")
    assert "There is no map" in page.evaluate("document.querySelector('.notes').textContent")
    page.evaluate("document.querySelector('tbody tr').click()")
    assert "Round" in page.evaluate("document.getElementById('example').innerText")
    assert complaints(page) == []
