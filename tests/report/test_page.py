"""The page: what is in it, and what a real browser makes of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from dsel.record.reader import RunFolder
from dsel.report.figures import draw
from dsel.report.match import Composer
from dsel.report.page import render
from dsel.report.spec import read
from dsel.report.tables import Report, Table, build
from tests.report.browser import CHROMIUM, Page, browser
from tests.report.conftest import SECTION
from tests.report.made import add_map, add_rounds, made_grid

EVIL = "<script>document.title='evil'</script><img src=x onerror=alert(1)>\"'&"


class Links(HTMLParser):
    """All that a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, name, value or "") for name, value in attrs if name in ("href", "src", "xlink:href")]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory, composer: Composer) -> Path:
    """The page of a report with two tables and all figures that it can have, with a wicked title and label."""
    place = tmp_path_factory.mktemp("page")
    rows = {
        "selector=random": [0.40, 0.44, 0.42], "selector=kcenter": [0.44, 0.47, 0.46], "selector=longest": [0.1],
        "selector=kmq clusterer.k=16": [0.5, 0.52], "selector=kmq clusterer.k=64": [0.53, 0.55],
    }  # fmt: skip
    runs = made_grid(place / "runs #1", "quickstart", rows, sources={"chat": 3, "code": 5}, silhouette=0.2)
    for run in runs[:2]:
        assert run.folder is not None
        add_rounds(run.folder)
        add_map(run.folder, n=500)
    section = {
        "title": f"A title {EVIL}",
        "baseline": "random",
        "seeds": [0, 1, 2],
        "columns": {"accuracy": "procedural", "silhouette": "clustering.silhouette"},
        "rows": {
            "random": "selector=random", "kcenter": "selector=kcenter", f"longest {EVIL}": "selector=longest",
            "deita": "selector=deita",
        },
        "published": {"deita": {"accuracy": 43.0}},
        "tables": [
            {"title": f"First {EVIL}"},
            {
                "title": "Second", "baseline": None, "published": {}, "at": "selector=kmq",
                "rows": {"16": "clusterer.k=16", "64": "clusterer.k=64"},
            },
        ],
    }  # fmt: skip
    spec = read(section)
    tables = [build(table, runs, composer) for table in spec.tables]
    tables[0].notes.append(f"A note {EVIL}")
    out = place / "out"
    out.mkdir()
    figures = draw(["clusterer.k", "weights", "sources", "map"], tables, out / "figures")
    assert len(figures) == 4
    report = Report(spec.title, tables, notes=[f"All of it {EVIL}"])
    (out / "report.html").write_text(render(report, figures, out, command=f"python {EVIL}"), encoding="utf-8")
    return out / "report.html"


def test_the_page_refers_to_nothing_outside_it_but_records_and_files_beside_it(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    parser = Links()
    parser.feed(text)
    sources = {value for _, name, value in parser.found if name != "href"}
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in sources)
    links = [value for tag, name, value in parser.found if tag == "a" and name == "href"]
    assert links
    for link in links:
        if link.startswith("#"):
            assert f'id="{link[1:]}"' in text
        elif link.startswith("report."):
            assert link in ("report.md", "report.tex", "report.csv")
        else:
            assert (page_file.parent / unquote(link)).is_file(), link
    assert "http://" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    assert "https://" not in text


def test_each_number_links_to_the_record_of_its_run(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    body = text.partition("<tbody>")[2].partition("</tbody>")[0]
    random = next(row for row in body.split("<tr") if ">random " in row)
    assert re.findall(r'<li>(\d): <a href="[^"]*/0_(\d)/record.json"[^>]*>([\d.]+)</a>', random)[:3] == [
        ("0", "0", "40.0"), ("1", "1", "44.0"), ("2", "2", "42.0"),
    ]  # fmt: skip
    longest = next(row for row in body.split("<tr") if "longest" in row)
    assert re.search(
        r'<a href="\.\./runs%20%231/2_0/record\.json"[^>]*><span class="value[^>]*>10\.0</span></a>', longest
    )


def test_what_comes_from_runs_is_escaped(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert "<img" not in text
    assert "&lt;script&gt;document.title" in text


def test_an_address_that_is_no_web_address_is_not_linked_as_one(table: Table, tmp_path: Path) -> None:
    cell = table.cells["kmeans_closest", "accuracy"]
    run = dataclasses.replace(cell.runs[0], where="javascript:alert(1)")
    table.cells["kmeans_closest", "accuracy"] = dataclasses.replace(cell, runs={0: run})
    text = render(Report("t", [table]), [], tmp_path, command="")
    assert "javascript%3Aalert" in text
    assert '"javascript:' not in text


def test_runs_on_the_service_are_linked_there(table: Table, tmp_path: Path) -> None:
    cell = table.cells["kmeans_closest", "accuracy"]
    run: RunFolder = dataclasses.replace(cell.runs[0], where="https://wandb.example/team/dsel/runs/abc")
    table.cells["kmeans_closest", "accuracy"] = dataclasses.replace(cell, runs={0: run})
    assert 'href="https://wandb.example/team/dsel/runs/abc"' in render(Report("t", [table]), [], tmp_path, command="")


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


ROWS = """[...document.querySelectorAll("table")[%d].tBodies[0].rows].map(r => r.cells[0].innerText.split("\\n")[0])"""
CLICK = """document.querySelectorAll("table")[%d].tHead.querySelectorAll("button")[%d].click()"""
SORTED = """[...document.querySelectorAll("table")[%d].tHead.rows[0].cells].map(c => c.getAttribute("aria-sort"))"""


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_opens_without_a_complaint_or_a_request(page: Page, page_file: Path, dark: bool) -> None:
    page.open(page_file, dark=dark)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith("data:")] == [page_file.resolve().as_uri()]
    assert page.evaluate("document.title").startswith("A title <script>")
    assert page.evaluate("document.querySelectorAll('svg').length") == 4
    background, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (sum(channels(background)) < sum(channels(ink))) == dark


def channels(colour: str) -> list[int]:
    return [int(value) for value in re.findall(r"\d+", colour)[:3]]


@needs_chromium
def test_the_policy_of_the_page_stops_scripts_and_requests(page: Page, page_file: Path) -> None:
    """What would happen if something came through unescaped."""
    page.open(page_file)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.1:9/x.png\">')")
    page.evaluate("{const s = document.createElement('script'); s.textContent = 'document.title = 1';"
                  "document.body.append(s)}")  # fmt: skip
    assert page.evaluate("document.title") != "1"
    assert not [url for url in page.requests if url.startswith("http")]
    assert any("Content Security Policy" in str(complaint) for complaint in page.complaints)


@needs_chromium
def test_tables_sort_by_their_headers(page: Page, page_file: Path) -> None:
    page.open(page_file)
    longest = f"longest {EVIL}"
    assert page.evaluate(ROWS % 0) == ["random baseline", "kcenter", longest, "deita"]
    page.evaluate(CLICK % (0, 1))
    assert page.evaluate(ROWS % 0) == ["kcenter", "random baseline", longest, "deita"]
    assert page.evaluate(SORTED % 0) == [None, "descending", None]
    page.evaluate(CLICK % (0, 1))
    assert page.evaluate(ROWS % 0) == [longest, "random baseline", "kcenter", "deita"]  # the missing one stays last
    assert page.evaluate(SORTED % 0) == [None, "ascending", None]
    page.evaluate(CLICK % (0, 0))
    assert page.evaluate(ROWS % 0) == ["deita", "kcenter", longest, "random baseline"]
    assert page.evaluate(SORTED % 0) == ["ascending", None, None]
    assert page.evaluate(ROWS % 2) == ["16", "64"]  # another table is as it was
    page.evaluate(CLICK % (2, 1))
    assert page.evaluate(ROWS % 2) == ["64", "16"]
    assert page.complaints == []


@needs_chromium
def test_a_phone_shows_the_page_without_scrolling_it_sideways(page: Page, page_file: Path) -> None:
    page.open(page_file, width=360, height=740)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("parseFloat(getComputedStyle(document.querySelector('td')).fontSize)") >= 13
    heights = page.evaluate("[...document.querySelectorAll('thead button')].map(b => b.getBoundingClientRect().height)")
    assert min(heights) >= 32  # for a finger


@needs_chromium
def test_a_figures_card_is_as_tall_as_its_figure(page: Page, page_file: Path) -> None:
    page.open(page_file, width=1400, height=900)
    empty = page.evaluate("""[...document.querySelectorAll("figure")].map(card => {
        const end = card.querySelector("figcaption").getBoundingClientRect().bottom;
        return card.getBoundingClientRect().bottom - end})""")
    assert len(empty) > 2 and max(empty) < 20  # the padding


@needs_chromium
def test_the_page_prints(page: Page, page_file: Path) -> None:
    page.open(page_file)
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000


def test_a_report_with_nothing_yet_is_a_page_of_commands(composer: Composer, tmp_path: Path) -> None:
    table = build(read({**SECTION, "published": {}}).tables[0], [], composer)
    text = render(Report("Nothing", [table]), [], tmp_path, command="python -m dsel.report")
    assert text.count(">missing</a>") == 3
    assert (
        "<code>python -m dsel.run -m experiments=quickstart selector=random,kcenter,longest seed=0,1,2</code>" in text
    )
