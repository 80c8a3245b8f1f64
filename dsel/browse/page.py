"""The page of a run: one HTML file that works from a folder and asks nothing of the network.

Plotly draws it: 50,000 points with WebGL, out of one file of 5 MB that its package holds, and that goes into the page.
All that comes from the run is JSON in a block that is no script, and becomes text of the page, never markup: nothing
of it is handed to Plotly but numbers. The page's own policy allows two scripts, Plotly's and ours, and no request. It
has to allow them `eval`, with which Plotly's WebGL layer (regl) compiles its own drawing commands.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsel.browse.gather import Shown
from dsel.record.facts import clean

HERE = Path(__file__).parent
SCRIPTS = ("page.js", "map.js", "tables.js", "start.js")  # parts of one script, in this order


def render(shown: Shown, *, command: str) -> str:
    """The page, as text of an HTML file."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    library = get_plotlyjs()
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    scripts = " ".join(f"'sha256-{_digest(text)}'" for text in (library, script))
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src 'unsafe-eval' {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template("page.html").render(
        shown=_cleaned({"title": shown.title, "facts": shown.facts, "notes": shown.notes}),
        data=Markup(_json(asdict(shown))),
        command=clean(command),
        policy=policy,
        library=Markup(library),
        script=Markup(script),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
    )


def _json(value: Any) -> str:
    """JSON that ends no block of a page."""
    text = json.dumps(_cleaned(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {key: _cleaned(part) for key, part in value.items()}
    return [_cleaned(part) for part in value] if isinstance(value, (list, tuple)) else value


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
