"""What devices give in floating-point operations: the facts behind estimates, and behind shares that are measured."""

from __future__ import annotations

from dataclasses import dataclass

SHARE = 0.3
"""Of a device's peak, what estimates go by: well-kept training codes report 0.35 to 0.45, small models reach less."""


@dataclass(frozen=True)
class Peak:
    """A device's dense operations a second, a multiplication and an addition being two.

    bfloat16: with sums in float32, without sparsity. float32: in float32 throughout, without TF32.
    """

    bfloat16: float
    float32: float


PEAKS = {
    "A10": Peak(125e12, 31.2e12),
    "A100": Peak(312e12, 19.5e12),
    "A30": Peak(165e12, 10.3e12),
    "A40": Peak(150e12, 37.4e12),
    "A6000": Peak(155e12, 38.7e12),
    "A800": Peak(312e12, 19.5e12),
    "B200": Peak(2250e12, 75e12),
    "GB200": Peak(2500e12, 80e12),
    "GH200": Peak(989e12, 67e12),
    "H100": Peak(989e12, 67e12),
    "H100 NVL": Peak(835e12, 60e12),
    "H100 PCIe": Peak(756e12, 51e12),
    "H200": Peak(989e12, 67e12),
    "H800": Peak(989e12, 67e12),
    "L4": Peak(121e12, 30.3e12),
    "L40": Peak(181e12, 90.5e12),
    "L40S": Peak(362e12, 91.6e12),
    "MI300X": Peak(1307e12, 163e12),
    "RTX 3090": Peak(71e12, 35.6e12),
    "RTX 4090": Peak(165e12, 82.6e12),
    "RTX 5090": Peak(209e12, 105e12),
    "RTX 6000 Ada": Peak(364e12, 91.1e12),
}
"""By words of the names that the makers' drivers give, and by the makers' data sheets; H100 alone is the SXM module."""

USUAL = "H100"  # what is planned for where there is no GPU


def peak(device: str) -> Peak | None:
    """The peak of a device by its name (`torch.cuda.get_device_name`, `nvidia-smi`), or None for one that is not known.

    A part of a device (MIG) and those of laptops are others.
    """
    words = set(device.replace("-", " ").split())
    known = [name for name in PEAKS if set(name.split()) <= words]
    if not known or words & {"MIG", "Laptop"}:
        return None
    return PEAKS[max(known, key=lambda name: len(name.split()))]
