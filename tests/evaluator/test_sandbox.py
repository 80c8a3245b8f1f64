"""Programs a model might write: the good pass, the others neither pass nor do harm."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from dsel.evaluator import sandbox
from dsel.evaluator.sandbox import CodeEval, in_place_of_code_eval, pass_at, passes

GOOD = "def add(a, b):\n    return a + b\nassert add(1, 2) == 3\n"


@pytest.mark.parametrize(
    ("program", "good"),
    [
        (GOOD, True),
        ("import collections, math, re, typing, numpy\nassert math.gcd(4, 6) == 2", True),
        ("if __name__ == '__main__':\n    x = 1\nx", True),
        ("import threading\nt = threading.Thread(target=lambda: None)\nt.start()\nt.join()", True),
        ("open('a.txt', 'w').write('x' * 1000)\nassert open('a.txt').read()", True),
        ("print('x' * 10**7)", True),
        ("assert 1 == 2", False),
        ("def f(:", False),
        ("import sys\nsys.exit(0)", False),
        ("import os\nos._exit(0)", False),
        ("raise KeyboardInterrupt", False),
        ("exit()", False),
        ("x = 'x' * 2**34", False),
        ("open('a.txt', 'wb').write(b'x' * 2**25)", False),
        ("def f():\n    return f()\nf()", False),
        ("import ctypes\nctypes.string_at(0)", False),
        ("import sys\nsys.stdin.read()\nassert False", False),
        ("\ud800", False),
        ("x = '\0'", False),
    ],
)
def test_a_program_passes_when_it_comes_to_its_end(program: str, good: bool) -> None:
    assert passes(program) == good


def test_time_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 2)
    monkeypatch.setattr(sandbox, "CPU_SECONDS", 1)
    start = time.monotonic()
    assert not passes("while True: pass")
    assert not passes("import time\ntime.sleep(100)")
    assert not passes("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(100)")
    assert time.monotonic() - start < 60


def test_there_is_no_environment_and_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")
    assert passes("import os\nassert not set(os.environ) - {'LC_CTYPE'}, dict(os.environ)\nassert os.listdir() == []")
    assert passes("import os, sys\nassert os.getcwd() not in sys.path")
    monkeypatch.chdir(tmp_path)
    passes("open('here', 'w')")
    assert list(tmp_path.iterdir()) == []


def test_what_a_program_starts_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(1.5)
    open({str(mark)!r}, 'w').close()
    os._exit(0)
"""
    if "network" not in sandbox._run("")[0]:
        pytest.skip("no user namespaces here")
    assert passes(program)
    time.sleep(2)
    assert not mark.exists()


def test_there_is_no_network() -> None:
    if "network" not in sandbox._run("")[0]:
        pytest.skip("no user namespaces here")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        called: list[int] = []
        server.settimeout(1)

        def listen() -> None:
            try:
                server.accept()
                called.append(1)
            except TimeoutError:
                pass

        thread = threading.Thread(target=listen)
        thread.start()
        assert not passes(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1)")
        thread.join()
        assert not called


def test_what_is_open_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    sandbox.say_what_is_open.cache_clear()
    monkeypatch.setattr(sandbox, "_run", lambda program: ([], bool(program)))
    sandbox.say_what_is_open()
    sandbox.say_what_is_open()
    assert caplog.text.count("the network and more processes cannot be kept from them here") == 1
    sandbox.say_what_is_open.cache_clear()


def test_processes_are_limited_unless_root() -> None:
    assert passes(sandbox.FORKS) == (os.geteuid() == 0)


def test_pass_at_k_is_the_chance_of_a_draw() -> None:
    for n, passed, k in [(5, 2, 1), (6, 3, 4), (4, 0, 2), (4, 4, 3), (5, 3, 3)]:
        draws = list(itertools.combinations(range(n), k))
        assert pass_at(n, passed, k) == pytest.approx(sum(min(draw) < passed for draw in draws) / len(draws))


def test_the_metric_that_tasks_load_is_confined() -> None:
    import evaluate

    load = evaluate.load
    with in_place_of_code_eval():
        metric = evaluate.load("code_eval")
        assert isinstance(metric, CodeEval)
    assert evaluate.load is load
    good, bad = "def f(x):\n    return x", "def f(x):\n    return -x"
    scores, results = metric.compute(
        references=["assert f(1) == 1"] * 2, predictions=[[good, bad], [bad, bad]], k=[1, 2, 5]
    )
    assert scores == {"pass@1": 0.25, "pass@2": 0.5}
    assert results == {0: [True, False], 1: [False, False]}
