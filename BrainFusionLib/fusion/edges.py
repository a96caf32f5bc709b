"""Edges of slices and how much of them a fused slice keeps (Qabf's formula), with the slope of that.

For numpy's arrays and torch's tensors alike.

Source: C. Xydeas and V. Petrovic, Electronics Letters 36 (2000) 308; see `BrainFusionLib.metrics.fusion.qabf`, which is
the measure itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from BrainFusionLib.fusion.primitives import Array, as_like, line_angle, module_of, padded, sigmoid
from BrainFusionLib.metrics.fusion import DIRECTION, STRENGTH

# Squares below this do not count as edges: 1e-4 of the unit scale, far below one grey level of an 8-bit picture.
TINY = 1e-8
# What is kept has its peak, a corner, where the fused edge is the source's: so near to it (share of the strength, and
# radians) the slope goes to 0, or rounding would decide which way it points (at .001, C and numpy came out .015 apart).
CORNER = 5e-2


class Edges(NamedTuple):
    """Sobel edges, (B, 1, H, W) each: steps along columns and rows, strength, direction (-pi/2 to pi/2)."""

    x: Array
    y: Array
    strength: Array
    direction: Array


def edges(image: Array) -> Edges:
    """Return the Sobel edges of (B, 1, H, W); beyond the border all is 0; differentiable."""
    return edges_of_steps(*_steps(image))


def edges_of_steps(x: Array, y: Array) -> Edges:
    """Return the edges that have these steps along columns and rows; any one shape."""
    xp = module_of(x)
    return Edges(x, y, xp.sqrt(x * x + y * y + TINY), line_angle(y, x))


def _steps(image: Array) -> tuple[Array, Array]:
    """Return Sobel's steps along columns and rows of (B, 1, H, W); beyond the border all is 0."""
    # Sums, not a convolution, so that what is flat has steps of exactly 0, whatever the batch.
    wide = padded(image, 1)
    smooth_rows = wide[..., :-2, :] + 2 * wide[..., 1:-1, :] + wide[..., 2:, :]
    smooth_columns = wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:]
    return smooth_rows[..., 2:] - smooth_rows[..., :-2], smooth_columns[..., 2:, :] - smooth_columns[..., :-2, :]


def kept(source: Edges, fused: Edges) -> Array:
    """Return how much of the source's edge the fused slice keeps at each pixel, 0 to 1."""
    xp = module_of(fused.x)
    strength = xp.minimum(source.strength, fused.strength) / xp.maximum(source.strength, fused.strength)
    turn = xp.abs(source.direction - fused.direction)
    direction = 1 - xp.minimum(turn, math.pi - turn) * (2 / math.pi)
    return _sigmoid(strength, STRENGTH) * _sigmoid(direction, DIRECTION)


def slope_of_kept(fused: Array, sources: Sequence[Edges]) -> Array:
    """Return the derivative, by each pixel of the fused slice, of all that it keeps of its sources' edges.

    That is of the sum, over pixels and sources, of ``kept · strength of the source``, Qabf's numerator. Worked out by
    hand, because going through autograd takes three times as long.
    """
    by_x, by_y, _ = slopes_by_steps(edges(fused), sources)
    return _back(by_x, by_y)


def slope_and_bend(fused: Array, sources: Sequence[Edges]) -> tuple[Array, Array]:
    """Return the slope of `slope_of_kept`, and how much it bends on the way to the nearest tops; both of its shape.

    For one top, that is the slope over the distance to it (never below `CORNER`): a step of slope / bend ends there.
    The tops of all edges that a pixel is part of add up.
    """
    by_x, by_y, bend = slopes_by_steps(edges(fused), sources)
    wide = padded(bend, 1)
    sides = wide[..., 1:-1, :-2] + wide[..., 1:-1, 2:] + wide[..., :-2, 1:-1] + wide[..., 2:, 1:-1]
    corners = wide[..., :-2, :-2] + wide[..., :-2, 2:] + wide[..., 2:, :-2] + wide[..., 2:, 2:]
    return _back(by_x, by_y), 4 * sides + 2 * corners


def _back(by_x: Array, by_y: Array) -> Array:
    """Return the derivative by the pixels, from the one by their steps."""
    # Sobel's windows are odd: to go back through them is to go through them with the opposite sign.
    return -(_steps(by_x)[0] + _steps(by_y)[1])


def slopes_by_steps(fused: Edges, sources: Sequence[Edges]) -> tuple[Array, Array, Array]:
    """Return the derivative of all that is kept by the fused slice's steps along columns and rows, and its bend.

    The bend is the sum over the tops of each pixel's strength and direction; see `slope_and_bend`. All three are of
    the steps' shape.
    """
    x, y, strength, direction = fused
    xp = module_of(x)
    by_strength, by_direction, bend = xp.zeros_like(x), xp.zeros_like(x), xp.zeros_like(x)
    for source in sources:
        weaker = strength < source.strength
        ratio = xp.minimum(strength, source.strength) / xp.maximum(strength, source.strength)
        turn = source.direction - direction
        # The shorter way round: lines that differ by half a turn are the same.
        turn = turn - math.pi * (as_like(turn > math.pi / 2, x) - as_like(turn < -math.pi / 2, x))
        q_strength = sigmoid((ratio - STRENGTH[2]) * -STRENGTH[1])
        q_direction = sigmoid((1 - xp.abs(turn) * (2 / math.pi) - DIRECTION[2]) * -DIRECTION[1])
        q = source.strength * q_strength * q_direction * (STRENGTH[0] * DIRECTION[0])
        slope_of_ratio = xp.where(weaker, 1 / source.strength, -ratio / strength)
        per_ratio = q * (1 - q_strength) * -STRENGTH[1]
        per_turn = q * (1 - q_direction) * (-DIRECTION[1] * 2 / math.pi)
        bend = bend + per_turn / (strength * strength * (xp.abs(turn) + CORNER))
        bend = bend + per_ratio * slope_of_ratio * slope_of_ratio / (1 - ratio + CORNER)
        by_strength = by_strength + per_ratio * slope_of_ratio * xp.clip((1 - ratio) / CORNER, None, 1)
        by_direction = by_direction + per_turn * xp.clip(turn / CORNER, -1, 1)
    outwards, around = by_strength / strength, by_direction / (strength * strength)
    return outwards * x - around * y, outwards * y + around * x, bend


def _sigmoid(x: Array, constants: tuple[float, float, float]) -> Array:
    gamma, kappa, sigma = constants
    return gamma * sigmoid(-kappa * (x - sigma))
