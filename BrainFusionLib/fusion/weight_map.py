"""The weight map of the network `FusionNetAlpha`: how much of each pixel is CT. For numpy and torch alike.

``rim.c`` computes the same where it can be anything but 0 and 1; a test compares them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from BrainFusionLib.errors import GeometryError, WeightsError
from BrainFusionLib.fusion.edges import edges, slope_and_bend, slope_of_kept
from BrainFusionLib.fusion.method import BY_WEIGHT, Fused
from BrainFusionLib.fusion.primitives import Array, as_float, module_of, padded, relu, shuffled
from BrainFusionLib.intensity.unit import Stacks
from BrainFusionLib.volume import VoxelArray

# How far from what is at least half bone, pixels, anything but the MRI may be shown.
REACH = 2
# How much darker than the MRI anything but bone may be shown, unit scale: 29 levels of an 8-bit picture. The edges of
# bright CSF and bone ask for a black line between the two (48 % of the bright pixels that touch bone came out more than
# 30 levels too dark, one in three more than 60), which a reader takes for an artefact or a vessel.
MOST_DARKENING = 0.115
# Slopes are squashed to -1 to 1: half of that is reached at these (edge strength a unit of weight, unit scale).
SQUASH = (0.2, 2.0)
# After the learned steps come plain ones up the same slope, so that nothing is lost on images unlike those that the
# network was trained on: so many, the first by at most so much weight, each shorter than the last along half a cosine.
# None goes far past the nearest top: `edges.slope_and_bend` says how near it is. (They leapt over it and back, which
# grew rounding, C against torch, to .05 of the range.)
# Where no bone is touched, a unit of difference from the MRI costs so much of what is kept of the edges. (95
# development pairs, head alone: Qabf .565 to .570, the optimum's, with less error in soft tissue, .28 to .25.)
PLAIN_STEPS, PLAIN_RATE, PRICE = 4, 0.4, 6.0
# Channels that the first layer takes: CT, MRI, bone weight, first and present α and the slope, squashed twice.
SEEN = 7
# Channels of the last one: an offset and a gain for each of the four pixels of a cell.
HEAD = 8

# The layers of one step: a convolution 4x4 of stride 2, and two 3x3.
Step = tuple[Callable[[Array], Array], Callable[[Array], Array], Callable[[Array], Array]]
Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(width: int = 16, steps: int = 3, seed: int = 0) -> Shapes:
    """Return the tensors of a weights file and their shapes; the arguments are those of `FusionNetAlpha`.

    Raises
    ------
    WeightsError
        There is no such network.
    """
    if width < 1 or not 1 <= steps <= 16:
        raise WeightsError(f"a FusionNetAlpha needs 1 channel or more and 1 to 16 steps; got {width} and {steps}")
    layers = {"see": (width, SEEN, 4, 4), "think": (width, width, 3, 3), "decide": (HEAD, width, 3, 3)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        for step in range(steps):
            shapes |= {f"{name}.{step}.weight": shape, f"{name}.{step}.bias": shape[:1]}
    return shapes


class WeightOutput:
    """What a network that predicts α does with stacks of slices; see `slices.Network`."""

    meaning = BY_WEIGHT

    def untouched(self, stacks: Stacks) -> VoxelArray:
        """See `slices.Network`."""
        return np.zeros(stacks.ct_unit.shape, dtype=np.float32)

    def finished(self, output: VoxelArray, stacks: Stacks) -> Fused:
        """See `slices.Network`."""
        if stacks.head is not None:
            output *= stacks.head
        # Blended here, in float32, so that a weight of exactly 0 or 1 gives back a source to the last bit.
        return Fused(blend(output, stacks.ct_unit, stacks.mri_unit), output)


def margin_of(steps: int) -> int:
    """Return how far away, pixels, the pixels of the input may lie that one of the result depends on."""
    # A step: 2 for the slope, 3 for each of three layers, at most; a plain one: 2; at the start: bone's rim.
    return 10 * steps + 2 * PLAIN_STEPS + REACH


def channels(slices: Array) -> tuple[Array, Array, Array]:
    """Return CT, MRI and bone weight, (B, 1, H, W) each.

    Raises
    ------
    GeometryError
        There are not three channels.
    """
    if slices.ndim != 4 or slices.shape[1] != 3:
        raise GeometryError(
            "a fusion network needs CT, MRI and bone weight, (B, 3, H, W); got slices of shape "
            f"{tuple(slices.shape)}. Add the missing channel."
        )
    return slices[:, :1], slices[:, 1:2], slices[:, 2:]


def within_limits(free: Array, most: Array) -> Array:
    """Cut off at 0 and at the greatest weight."""
    xp = module_of(free)
    return xp.minimum(xp.clip(free, 0, None), most)


def weight_map(
    slices: Array,
    steps: Sequence[Step],
    *,
    plain_steps: int = PLAIN_STEPS,
    fixed: Callable[[], AbstractContextManager[Any]] = nullcontext,
    cut: Callable[[Array, Array], Array] = within_limits,
) -> Array:
    """Return the weight of the CT, 0 to 1, (B, 1, H, W).

    Parameters
    ----------
    slices
        (B, 3, H, W): CT, MRI and bone weight (0 to 1). H and W are even.
    steps
        The layers, step by step.
    plain_steps
        How many plain steps follow.
    fixed
        The context of what no gradient goes through, in float32.
    cut
        Keeps weights between 0 and their greatest values.
    """
    xp = module_of(slices)
    ct, mri, bone = channels(slices)
    difference = ct - mri
    whole, free = as_float(bone >= 1), near(bone) * (bone < 1)
    with fixed():
        most = greatest_weight(as_float(ct), as_float(mri), bone)
        first = xp.minimum(whole + bone_and_rim(bone) * free, most)
        alpha = first
        sources = [edges(as_float(ct)), edges(as_float(mri))]
    for conv1, conv2, head in steps:
        with fixed():
            slope = slope_of_kept(as_float(alpha * difference + mri), sources) * difference
            squashed = [slope / (xp.abs(slope) + half) for half in SQUASH]
            present = alpha * 1  # without its gradient
        seen = relu(conv1(xp.concatenate([ct, mri, bone, first, present, *squashed], 1)))
        decided = shuffled(as_float(head(relu(conv2(seen)))))
        alpha = whole + free * cut(alpha + decided[:, :1] + decided[:, 1:] * squashed[0], most)
    with fixed():
        price = PRICE * xp.abs(difference) * (greatest_near(as_float(bone >= 0.5), 1) == 0) if plain_steps else 0
        for step in range(plain_steps):
            rate = plain_rate(step, plain_steps)
            slope, bend = slope_and_bend(as_float(alpha * difference + mri), sources)
            slope = slope * difference - price
            squash = SQUASH[0] + rate * bend * difference * difference
            alpha = whole + free * within_limits(alpha + rate * slope / (xp.abs(slope) + squash), most)
    return alpha


def plain_rate(step: int, plain_steps: int = PLAIN_STEPS) -> float:
    """Return by how much a plain step may change a weight."""
    return PLAIN_RATE * 0.5 * (1 + math.cos(math.pi * step / plain_steps))


def greatest_weight(ct: Array, mri: Array, bone: Array) -> Array:
    """Return the most that the CT may weigh, of the arrays' one shape: 1 in bone.

    Elsewhere it may make no pixel darker than the MRI by more than `MOST_DARKENING`: no black ring around bone,
    calcifications, clips and electrodes. To brighten, it may weigh 1.
    """
    xp = module_of(ct)
    return xp.maximum(as_float(bone >= 1), MOST_DARKENING / xp.clip(mri - ct, MOST_DARKENING, None))


def near(bone: Array) -> Array:
    """Return 1 within `REACH` pixels of what is at least half bone, else 0."""
    return greatest_near(as_float(bone >= 0.5), REACH)


def bone_and_rim(bone: Array) -> Array:
    """Return the bone weight, (B, 1, H, W), spread to the neighbours of what is at least half bone.

    A pixel that touches bone holds some of both, and bone's edge, the strongest of the slice, lies in it: shown from
    one source, the edge stays as steep as it was. On the 13 published slice pairs this rule by itself raises Qabf from
    .558 to .604, and leaves bone and soft tissue as they are.
    """
    return module_of(bone).maximum(bone, greatest_near(bone * (bone >= 0.5), 1))


def greatest_near(image: Array, reach: int) -> Array:
    """Return the greatest value within `reach` pixels, along rows and columns, of (B, 1, H, W), 0 and more.

    One direction after the other: on the CPU a third of the time of torch's `max_pool2d`, and a fifteenth where a
    single channel is stored channels last.
    """
    maximum, (height, width) = module_of(image).maximum, image.shape[-2:]
    wide = padded(image, reach)
    along = wide[..., :width]
    for step in range(1, 2 * reach + 1):
        along = maximum(along, wide[..., step : step + width])
    greatest = along[..., :height, :]
    for step in range(1, 2 * reach + 1):
        greatest = maximum(greatest, along[..., step : step + height, :])
    return greatest


def blend(alpha: VoxelArray, ct: VoxelArray, mri: VoxelArray) -> VoxelArray:
    """Return ``α·ct + (1 − α)·mri``, float32: ct where α is 1 and mri where it is 0, to the last bit."""
    fused: VoxelArray = np.empty(alpha.shape, dtype=np.float32)
    for weight, of_ct, of_mri, result in zip(alpha, ct, mri, fused, strict=True):  # slices stay in the cache
        result[...] = weight * of_ct + (1 - weight) * of_mri
    return fused
