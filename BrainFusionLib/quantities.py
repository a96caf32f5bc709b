"""Numbers for users, with units and only meaningful digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

MINUS = "\N{MINUS SIGN}"
# Errors of a pose cannot be told from smaller ones, and ones from this on are given in whole millimetres.
_LEAST_ERROR_MM, _WHOLE_MM = 0.1, 9.95
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
# Beyond these decimals is rounding, which three significant digits of a number near 0 would show: -0.00000164 nats.
_MOST_DECIMALS = {"nats": 4, "NMI": 4, "HU": 3}


def number(value: float, digits: int = 3) -> str:
    """Return a number with `digits` significant digits and no exponent; whole numbers and truth values in full."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or not math.isfinite(value):
        return str(value).replace("-", MINUS)
    decimals = digits - 1 - (math.floor(math.log10(abs(value))) if value else 0)
    return _fixed(value, max(0, decimals))


def _fixed(value: float, decimals: int) -> str:
    """Return a number with at most `decimals` decimals, and without a sign for 0."""
    text = f"{value:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if decimals else text
    return "0" if text == "-0" else text.replace("-", MINUS)


def length(mm: float) -> str:
    """Return a length with its unit: two decimals below 1 mm, one below 10 mm. Small ones are not rounded to 0."""
    if 0 < mm < 0.01:
        return "less than 0.01 mm"
    decimals = 2 if abs(mm) < 0.995 else 1 if abs(mm) < 9.95 else 0
    return f"{_fixed(mm, decimals)} mm"


def error_length(mm: float) -> str:
    """Return an estimated error with its unit: one decimal, which is more than it is known to, and never 0."""
    if mm < _LEAST_ERROR_MM / 2:
        return f"less than {_LEAST_ERROR_MM} mm"
    return f"{mm:.0f} mm" if mm >= _WHOLE_MM else f"{mm:.1f} mm"


def bound_length(mm: float) -> str:
    """Return a bound on an error as `error_length`, rounded up, so that it still holds."""
    if mm <= _LEAST_ERROR_MM:
        return f"{_LEAST_ERROR_MM} mm"
    if not math.isfinite(mm):
        return f"{mm} mm"
    step = 1.0 if mm >= _WHOLE_MM else _LEAST_ERROR_MM
    return error_length(math.ceil(mm / step - 1e-9) * step)


def quantity(value: float, unit: str) -> str:
    """Return a number with its unit; for ``%`` the value is a share."""
    if unit == "mm":
        return length(value)
    if unit.startswith("%"):
        return f"{number(100 * value)} {unit}"
    most = _MOST_DECIMALS.get(unit.partition(" ")[0])
    if most is not None and isinstance(value, float) and abs(value) < 1:
        value = round(value, most)
    return f"{number(value)} {unit}".rstrip()


def position(lps_mm: npt.ArrayLike) -> str:
    """Return a point as Slicer shows it: ``L 4.0 P 0.0 S 6.0 mm``."""
    return f"{' '.join(coordinate(axis, lps_mm) for axis in range(3))} mm"


def coordinate(axis: int, lps_mm: npt.ArrayLike) -> str:
    """Return one coordinate of a point, for example ``L 4.0``."""
    mm = round(float(np.asarray(lps_mm, dtype=np.float64)[axis]), 1)
    return f"{'LPS'[axis] if mm >= 0 else 'RAI'[axis]} {abs(mm):.1f}"


def interval(low: float, high: float, unit: str = "") -> str:
    """Return a range as ``42 ± 2 HU``: its middle and half its width, rounded up.

    The middle is rounded to the first digit of half the width. An infinite end gives ``≤ 3`` or ``≥ 1990``.
    """
    unit = f" {unit}" if unit else ""
    if math.isinf(low):
        return f"≤ {number(_outward(high, math.ceil))}{unit}"
    if math.isinf(high):
        return f"≥ {number(_outward(low, math.floor))}{unit}"
    middle, half = (low + high) / 2, (high - low) / 2
    if not half > 0:
        return f"{number(middle)}{unit}"
    place = math.floor(math.log10(half))
    step = 10.0**place
    rounded = round(middle / step) * step
    # Widened, because the middle was rounded.
    width = math.ceil((half + abs(middle - rounded)) / step - 1e-6) * step
    decimals = max(0, -place)
    text = f"{rounded:.{decimals}f} {PLUS_MINUS} {width:.{decimals}f}{unit}"
    return text.replace("-", MINUS)


def _outward(value: float, rounding: Callable[[float], int]) -> float:
    """Round to three significant digits away from the range, so that the bound holds."""
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 2) if value else 1.0
    return rounding(value / step) * step


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 case``, ``2 cases``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(values: Sequence[float], digits: int = 3) -> str:
    """Return numbers separated by commas."""
    return ", ".join(number(value, digits) for value in values)
