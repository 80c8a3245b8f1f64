"""How figures look and are kept: PDF, PNG, and SVG for the page. No display, no global state."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f8c2f")  # told apart by all
MARKERS = "osD^vPX*"
INK = "#1b1f24"  # of all that is not data; in the page it becomes the page's own text colour
GREY = "#8a919a"  # of points, which become pictures: it is seen on light and on dark
ROOM = 48  # characters of a label


@dataclass(frozen=True)
class Drawn:
    """One figure: its name (that of its files), what it shows, the SVG for the page, and whether that is a wide one."""

    name: str
    caption: str
    svg: str
    wide: bool = False


def short(label: str) -> str:
    """`label` as long as there is room for in a figure; an underscore at its start hides a name from matplotlib."""
    text = label if len(label) <= ROOM else label[: ROOM - 1] + "…"
    return f" {text}" if text.startswith("_") else text


@contextmanager
def style() -> Iterator[None]:
    import matplotlib

    looks: Any = {
        "font.size": 9, "axes.titlesize": 9, "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK,
        "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "grid.color": INK, "grid.alpha": 0.15, "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.markersize": 5,
        "legend.fontsize": 8, "svg.hashsalt": "dsel", "pdf.fonttype": 42,
        "text.parse_math": False,  # a source may be called $x_{$
    }  # fmt: skip
    with matplotlib.rc_context(looks):
        yield


def blank(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns)


def save(figure: Figure, path: Path) -> str:
    """Write the PDF and the PNG; returns the SVG, as large as its place and in the colours of the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    figure.savefig(path.with_suffix(".png"), dpi=200, metadata={"Software": None})
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"|(<svg[^>]*?)', lambda m: m[1] or m[2], svg, count=1)


def legend(axes: Axes) -> None:
    labels = [label for label in axes.get_legend_handles_labels()[1] if label]
    if len(labels) > 1:
        axes.figure.legend(loc="outside upper center", ncols=min(4, len(labels)), frameon=False)  # type: ignore[union-attr]
