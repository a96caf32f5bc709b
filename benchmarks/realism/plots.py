"""reliability.png: what was stated against what is true, and how often quantiles of it held."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.realism.judging import Judged

GROUPS = {
    "plain": ("plain",),
    "mix": ("mix", "clinic"),
    "shift": ("brain shift to 6 mm", "brain shift 5-10 mm with air", "craniectomy", "resection"),
    "distortion, scale": ("distortion half", "distortion full", "voxel size 2-3 % too long"),
}
COLOURS = {"plain": "tab:green", "mix": "tab:blue", "shift": "tab:red", "distortion, scale": "tab:purple",
           "other": "tab:gray"}  # fmt: skip
RANGE_MM = (0.02, 8.0)
BINS = 6


def write_reliability(cases: Sequence[Judged], path: Path) -> None:
    """Draw the poses within 2 mm that have a number, of heads and scanners that calibrated nothing."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [c for c in cases if c.is_accurate and c.bound_mm is not None and c.row["half"] == "1"]
    true = np.array([case.mm("anatomy_median_mm") for case in shown])
    stated = {"expected error, mm": np.array([case.expected_mm for case in shown], float),
              "bound, mm": np.array([case.bound_mm for case in shown], float)}  # fmt: skip
    groups = np.array([_group(case) for case in shown])
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 4), layout="constrained")
    for axis, (name, values) in zip(axes, stated.items(), strict=False):
        for group, colour in COLOURS.items():
            ours = groups == group
            axis.plot(values[ours], np.maximum(true[ours], RANGE_MM[0]), ".", color=colour, label=group, markersize=4)
        axis.plot(RANGE_MM, RANGE_MM, color="black", linewidth=0.8)
        axis.set(xscale="log", yscale="log", xlim=RANGE_MM, ylim=RANGE_MM, xlabel=name, ylabel="true error, mm")
    axes[0].legend(fontsize=7, loc="lower right")
    if len(shown) >= BINS:
        _curves(axes[2], stated, true)
    axes[2].set(
        ylim=(0, 1.02), xlabel="stated, mm (median of a bin)", ylabel="share of true errors below", xscale="log"
    )
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _curves(axis, stated, true) -> None:  # type: ignore[no-untyped-def]
    for (name, values), wanted, colour in zip(stated.items(), (0.5, 0.9), ("tab:orange", "tab:blue"), strict=True):
        order = np.array_split(np.argsort(values, kind="stable"), BINS)
        middles = [float(np.median(values[part])) for part in order]
        axis.plot(middles, [float(np.mean(true[part] <= values[part])) for part in order], "o-", color=colour,
                  label=name.split(",")[0])  # fmt: skip
        axis.axhline(wanted, color=colour, linestyle=":", linewidth=0.8)
    axis.legend(fontsize=7, loc="lower right")


def _group(case: Judged) -> str:
    return next((name for name, kinds in GROUPS.items() if case.row["kind"] in kinds), "other")
