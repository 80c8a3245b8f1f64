"""How commands end."""

from __future__ import annotations

import pytest

from dsel.ending import TRACES, in_one_line
from dsel.errors import ConfigError


@pytest.mark.parametrize("set_before", [None, "0"])
def test_the_environment_is_as_it_was(
    set_before: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(TRACES, raising=False)
    if set_before is not None:
        monkeypatch.setenv(TRACES, set_before)
    for _ in range(2):  # the second time would have shown a traceback
        with pytest.raises(SystemExit) as ended, in_one_line():
            raise ConfigError("wrong")
        assert ended.value.code == 2 and capsys.readouterr().err == "dsel: wrong\n"


def test_a_ctrl_c_says_what_is_to_be_said() -> None:
    with pytest.raises(SystemExit, match="enough"), in_one_line("enough"):
        raise KeyboardInterrupt
