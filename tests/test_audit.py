"""`make audit`: findings fail it, and a service that cannot be asked does not."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

SOUND = {"name": "pip", "version": "24.0", "vulns": []}
BAD = {"name": "thing", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2", "3"]}]}
SKIPPED = {"name": "dsel", "skip_reason": "not found"}

STAND_IN = """
import sys
answers = {answers!r}
answer = answers.pop(0) if "--requirement" in sys.argv else answers.pop()
if answer is None:
    sys.exit("Traceback\\nnet.ConnectionError: https is not there\\nnet.ConnectionError: host")
open(sys.argv[sys.argv.index("--output") + 1], "w").write(answer)
sys.exit(1)
"""


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def says(*answers: list[Any] | None) -> int:
        """Of pip-audit when it is asked for one package, and for all."""
        texts = [None if answer is None else json.dumps({"dependencies": answer}) for answer in answers]
        (tmp_path / "tool.py").write_text(STAND_IN.format(answers=texts))
        (tmp_path / "tool").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path / "tool.py"}" "$@"\n')
        (tmp_path / "tool").chmod(0o755)
        monkeypatch.setattr(module, "_installed", lambda folder: tmp_path / "tool")
        return module.main()

    return says


@pytest.mark.parametrize(
    ("answers", "code", "words"),
    [
        (([SOUND], [SOUND, SKIPPED]), 0, "1 packages, 0 known vulnerabilities; not known to osv: dsel"),
        (([SOUND], [SOUND, BAD]), 1, "thing 1: CVE-1, fixed in 2, 3"),
        ((None, None), 0, "not done, no service that knows vulnerabilities can be reached here (osv: ConnectionError"),
        (([SKIPPED], [SKIPPED]), 0, "does not know packages"),
        (([SOUND], None), 0, "not done"),
    ],
)
def test_what_becomes_of_what_pip_audit_says(
    audit: Any, answers: Any, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(*answers) == code
    assert words in capsys.readouterr().out
