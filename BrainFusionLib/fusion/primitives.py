"""The primitives that the weight map is written in, for numpy's arrays and torch's tensors alike.

Formulas between them are written once, with the functions that numpy and torch have in common.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

# An array of numpy or a tensor of torch.
Array = Any


def module_of(array: Array) -> Any:
    """Return numpy or torch."""
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]


def padded(image: Array, reach: int) -> Array:
    """Return images (..., H, W) with a border of so many zeros."""
    if isinstance(image, np.ndarray):
        *leading, rows, columns = image.shape
        wide = np.zeros((*leading, rows + 2 * reach, columns + 2 * reach), dtype=image.dtype)
        wide[..., reach : reach + rows, reach : reach + columns] = image
        return wide
    return module_of(image).nn.functional.pad(image, (reach,) * 4)


def relu(array: Array) -> Array:
    """Return the array with 0 in the place of what is negative."""
    return np.maximum(array, 0, out=array) if isinstance(array, np.ndarray) else array.relu()


def sigmoid(array: Array) -> Array:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-array)) if isinstance(array, np.ndarray) else array.sigmoid()


def as_like(condition: Array, like: Array) -> Array:
    """Return 1 where a condition holds and 0 elsewhere, of the type of another array."""
    return module_of(like).asarray(condition, dtype=like.dtype)


def line_angle(y: Array, x: Array) -> Array:
    """Return the angle of a line, -pi/2 to pi/2: atan2(y, x) but for half a turn; 0 for no line; error 2e-7.

    Operation by operation as ``rim.c`` does it: what is kept of edges depends on angles so sharply that another
    rounding of the last bit, as numpy's and torch's own arctan2 have, came out as up to .001 of the range.
    """
    xp = module_of(x)
    across, up = xp.abs(x), xp.abs(y)
    steep = up > across
    # With its sign from here on, and not the lesser of two sizes, so that the slope at y = 0 is that of atan2.
    small, big = xp.where(steep, xp.where(y < 0, -x, x), xp.where(x < 0, -y, y)), xp.maximum(across, up)
    size, sign = xp.abs(small), 1 - 2 * as_like(small < 0, small)
    middle = size > 0.414213562 * big
    over, under = xp.where(middle, small - sign * big, small), xp.where(middle, size + big, big)
    t = over / xp.where(under > 0, under, xp.ones_like(under))  # no line: 0, and no slope
    z = t * t
    angle = t + t * z * (-0.333329552 + z * (0.199779257 + z * (-0.13879846 + z * 0.0806029706)))
    angle = xp.where(middle, angle + 0.785398163 * sign, angle)
    return xp.where(steep, 1.57079633 * sign - angle, angle)


def shuffled(array: Array) -> Array:
    """Return (B, 4 C, H, W) as (B, C, 2 H, 2 W): four channels become the four pixels of a cell."""
    batch, channels, rows, columns = array.shape
    cells = array.reshape(batch, channels // 4, 2, 2, rows, columns)
    order = (0, 1, 4, 2, 5, 3)
    cells = cells.transpose(order) if isinstance(array, np.ndarray) else cells.permute(order)
    return cells.reshape(batch, channels // 4, 2 * rows, 2 * columns)


def as_float(array: Array) -> Array:
    """Return the array as float32."""
    return array.astype(np.float32, copy=False) if isinstance(array, np.ndarray) else array.float()


class Convolution:
    """A convolution of numpy's arrays, (B, C, H, W), with zeros beyond the border.

    Parameters
    ----------
    weight, bias
        (outputs, inputs, k, k) and (outputs,), float32.
    stride
        Of the window; the border is one pixel wide.
    """

    def __init__(self, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], stride: int = 1) -> None:
        self._weight, self._bias, self._stride = weight, bias, stride
        self._flat = np.ascontiguousarray(weight.reshape(len(weight), -1))

    def __call__(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the image after the convolution."""
        size, step = self._weight.shape[-1], self._stride
        wide = padded(image, 1)
        rows, columns = ((n - size) // step + 1 for n in wide.shape[-2:])
        windows = np.empty((image.shape[1], size, size, rows, columns), np.float32)
        result = np.empty((len(image), len(self._weight), rows, columns), np.float32)
        for one, out in zip(wide, result, strict=True):
            for y in range(size):
                for x in range(size):
                    windows[:, y, x] = one[:, y : y + step * rows : step, x : x + step * columns : step]
            np.matmul(self._flat, windows.reshape(len(self._flat[0]), -1), out=out.reshape(len(out), -1))
            out += self._bias[:, None, None]
        return result
