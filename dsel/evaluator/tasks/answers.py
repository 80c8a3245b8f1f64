"""What `_gsm8k_local.yaml` calls: answers compared as numbers, so that `$29.00` is 29 and `2,9` is not."""

from __future__ import annotations

import re
from decimal import Decimal

WHOLE = re.compile(r"([-−]?)\$?([-−]?)((?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)?(?:\.[0-9]*)?)")  # commas at thousands only


def number(text: str) -> Decimal | None:
    """The number that `text` is, whatever its dollar sign, separators and zeros after the point; None for another."""
    found = WHOLE.fullmatch(text.strip().rstrip(",."))
    if found is None or not found[3]:
        return None
    return Decimal(found[3].replace(",", "")) * (-1 if found[1] or found[2] else 1)


def exact_match(references: list[str], predictions: list[str]) -> float:
    """1.0 where the answer is the number behind the reference's last `#### `, else 0.0.

    (The harness hands over one of each. Its own metric of this name compares texts; the YAML puts this one in place.)
    """
    wanted, found = references[0].rpartition("#### ")[2].strip(), predictions[0].strip()
    value = number(wanted)
    return float(number(found) == value) if value is not None else float(found == wanted)
