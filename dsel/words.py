"""Words of texts in any language, by the spaces between them where there are any.

Chinese, Japanese, Thai, Lao, Khmer, Burmese and their neighbours write sentences without spaces. There each letter,
with the signs that sit on it, is a word of its own: n-grams of them stand for words. In texts without such letters
all functions here find what the pattern in their first line finds, and nothing else.
"""

from __future__ import annotations

import re

# Letters of scripts without spaces (digits are left to runs of digits), and signs that belong to the letter before.
LETTERS = (
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46"  # Thai
    "\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6\u0edc-\u0edf"  # Lao
    "\u1000-\u102a\u103f\u1050-\u1055\u105a-\u105d\u1061\u1065\u1066\u106e-\u1070\u1075-\u1081\u108e"  # Burmese
    "\uaa60-\uaa7a\uaa7e\uaa7f\ua9e0-\ua9e4\ua9e6-\ua9ef\ua9fa-\ua9fe"
    "\u1780-\u17b3\u17d7\u17dc"  # Khmer
    "\u1950-\u197c\u1980-\u19c9\u1a00-\u1a16\u1a20-\u1a54"  # Tai Le, New Tai Lue, Buginese, Tai Tham
    "\u1b05-\u1b33\u1b45-\u1b4c\ua984-\ua9b2"  # Balinese, Javanese
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua48c\uf900-\ufaff\uff66-\uff9d"
    "\U0001b000-\U0001b16f\U00020000-\U000323af"  # kana, Han, Bopomofo, Yi
)
SIGNS = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u1056-\u1059\u105e-\u1060"
    "\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d\u108f\u109a-\u109d\uaa7b-\uaa7d\ua9e5\u17b4-\u17d3\u17dd"
    "\u1a17-\u1a1b\u1a55-\u1a7f\u1b00-\u1b04\u1b34-\u1b44\ua980-\ua983\ua9b3-\ua9c0\u3099\u309a\uff9e\uff9f"
)
LETTER = re.compile(f"[{LETTERS}]")
ONE, OTHER = f"[{LETTERS}][{SIGNS}]*", f"[^\\W{LETTERS}{SIGNS}]"

SPACED = re.compile(r"(?u)\b\w\w+\b")  # scikit-learn's default token_pattern
UNSPACED = re.compile(f"{ONE}|{OTHER}{{2,}}")
SPACED_SIGNS = re.compile(r"(?u)\w+|[^\w\s]")
UNSPACED_SIGNS = re.compile(f"{ONE}|{OTHER}+|[^\\w\\s]")
UNSPACED_RUNS = re.compile(f"{ONE}|{OTHER}+")


def unspaced(text: str) -> bool:
    """Whether there are letters in it of a script without spaces between words."""
    return not text.isascii() and LETTER.search(text) is not None


def words(text: str) -> list[str]:
    r"""As `\b\w\w+\b`: words of two letters or more."""
    return (UNSPACED if unspaced(text) else SPACED).findall(text)


def words_and_signs(text: str) -> list[str]:
    r"""As `\w+|[^\w\s]`: words of any length, and each sign between them."""
    return (UNSPACED_SIGNS if unspaced(text) else SPACED_SIGNS).findall(text)


def count_words(text: str) -> int:
    """As `len(text.split())`: what stands between spaces."""
    return len(UNSPACED_RUNS.findall(text)) if unspaced(text) else len(text.split())
