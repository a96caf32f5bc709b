"""What the stored numbers of a DICOM file mean: by slope and intercept, or by a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def rescales(dataset: Dataset, frames: int) -> list[tuple[float, float]]:
    """Return slope and intercept of each frame: from its own functional groups, those of all frames, or the file.

    Raises
    ------
    ValueError
        One is not a finite number.
    """
    per_frame, shared = _groups(dataset)
    found = [_rescale(dataset, [*per_frame[n : n + 1], *shared]) for n in range(frames if per_frame else 1)]
    if not np.isfinite(found).all():
        raise ValueError("a slope or an intercept is not a number")
    return found if per_frame else found * frames


def _groups(dataset: Dataset) -> tuple[list[Dataset], list[Dataset]]:
    """Return the functional groups of each frame, and those of all frames."""
    shared = list(dataset.get("SharedFunctionalGroupsSequence", []))[:1]
    return list(dataset.get("PerFrameFunctionalGroupsSequence", [])), shared


def _rescale(dataset: Dataset, groups: list[Dataset]) -> tuple[float, float]:
    for holder in (*(item for group in groups for item in group.get("PixelValueTransformationSequence", [])), dataset):
        if holder.get("RescaleSlope") is not None or holder.get("RescaleIntercept") is not None:
            slope, intercept = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
            return float(slope if slope is not None else 1) or 1.0, float(intercept if intercept is not None else 0)
    return 1.0, 0.0


def has_table(dataset: Dataset) -> bool:
    """Return whether a file has a table of values (Modality LUT), used or not."""
    return bool(dataset.get("ModalityLUTSequence"))


def is_by_table(dataset: Dataset) -> bool:
    """Return whether a table alone says what the stored numbers mean: slope and intercept go before it."""
    groups = [dataset, *(group for several in _groups(dataset) for group in several)]
    return has_table(dataset) and not any(
        "RescaleSlope" in group or "PixelValueTransformationSequence" in group for group in groups
    )


def by_table(stored: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[np.float32]:
    """Return the values of stored numbers by the table, of the same shape; beyond it, its first or last value.

    Source: DICOM PS3.3, C.11.1.1.

    Raises
    ------
    ValueError
        The table is damaged.
    """
    item = dataset.ModalityLUTSequence[0]
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count or 1 << 16  # in two bytes
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if dataset.original_encoding[1] else ">"
        table = np.frombuffer(data, np.uint8 if bits == 8 and len(data) < 2 * count else f"{order}u2")
    else:
        table = np.array(data)
    if len(table) < count:
        raise ValueError(f"a table of {len(table)} values, where {count} are said")
    values: npt.NDArray[np.float32] = table[:count].astype(np.float32)[
        np.clip(stored.astype(np.int64) - first, 0, count - 1)
    ]
    return values
