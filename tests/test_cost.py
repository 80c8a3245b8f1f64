"""What choosing takes is known before, and said where it is long or does not fit."""

from __future__ import annotations

import pytest

from dsel import cost
from dsel.cost import Cost, free, speed, warnings
from dsel.selector.deita import Deita
from dsel.selector.kcenter import KCenter
from dsel.selector.quality import Quality
from dsel.selector.semdedup import SemDedup


def test_a_word_for_what_is_long_and_for_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "speed", lambda device: 1e11)
    monkeypatch.setattr(cost, "free", lambda: 8e9)
    assert list(warnings("it", Cost(operations=3.5e14, memory=7e9))) == []
    assert list(warnings("it", Cost(operations=7.2e14, memory=9e9))) == [
        "it may take 2.0 h: up to 7.2e+14 operations, of which this machine does 1.0e+11 a second",
        "it may not fit: it takes about 9 GB, and 8 GB are free",
    ]


def test_a_machine_is_measured_for_what_is_large_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "speed", lambda device: pytest.fail("measured"))
    assert Cost(operations=1e9).seconds == 0
    assert speed() > 1e8 and free() > 1e6


@pytest.mark.parametrize("selector", [KCenter(), Deita(), SemDedup(then=Quality()), Quality()])
def test_ten_times_the_pool_is_at_least_ten_times_the_memory_of_an_example(selector: KCenter) -> None:
    small, large = (selector.cost(n, 384, 1000, 100) for n in (10**6, 10**7))
    assert 5 * small.memory < large.memory < 20 * small.memory
    assert small.operations <= large.operations


def test_what_is_chosen_with_counts_too() -> None:
    n, d, budget, k = 10**6, 384, 10_000, 1000
    alone = SemDedup(then=Quality()).cost(n, d, budget, k).operations
    assert alone == n * n * d / k
    assert SemDedup(then=KCenter()).cost(n, d, budget, k).operations > alone
