"""dsel: choose the examples to finetune a language model on, and measure whether the choosing helped.

`dsel.select` chooses rows of a data set that a program has at hand; all else is what the command `dsel` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsel.subset.choose import select as select

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`select`, which is loaded when it is asked for: importing dsel costs nothing."""
    if name == "select":
        from dsel.subset.choose import select

        return select
    raise AttributeError(f"module 'dsel' has no attribute {name!r}")
