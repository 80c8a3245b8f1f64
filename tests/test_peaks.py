"""What devices give, by the names that their drivers have for them."""

from __future__ import annotations

import pytest

from dsel.peaks import PEAKS, USUAL, peak


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("AMD Instinct MI300X", "MI300X"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Tesla T4", None),
        ("2 processors", None),
    ],
)
def test_a_device_is_known_by_its_name(name: str, known: str | None) -> None:
    assert peak(name) == (None if known is None else PEAKS[known])


def test_products_of_float32_take_longer_than_of_bfloat16() -> None:
    assert USUAL in PEAKS
    assert all(p.float32 < p.bfloat16 for p in PEAKS.values())
