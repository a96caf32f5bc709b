"""A picture of the results: which share of the cases each method solved to within which error."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.registration.results import Row, resolutions
from BrainFusionLib.errors import MissingDependencyError
from BrainFusionLib.io import atomic_output
from simulation.cases import KINDS

# Told apart without colours, too: every method has its dashes; ours are black and thicker.
_STYLES = ("-", "--", "-.", ":", (0, (1, 4)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (3, 1, 1, 1)))
_TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
_OURS = ("fast", "standard", "thorough")


def check_matplotlib() -> None:
    """Reject a plot without matplotlib, before a long run rather than after it.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingDependencyError(
            "the plot needs matplotlib. Install it: pip install -e '.[bench]' in the checkout."
        )


def plot_errors(rows: Sequence[Row], path: Path) -> None:
    """Write cumulative error curves as a PNG, a panel for each resolution.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    ImageFileError
        The file cannot be written.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    rows = [row for row in rows if not KINDS[row["kind"]].negative]
    panels = resolutions(rows)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(8.0 * max(1, len(panels)), 4.6), layout="constrained")
    for number, resolution in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        for method in methods:
            runs = [row for row in rows if row["method"] == method and row["resolution"] == resolution]
            if not runs:
                continue
            # A refusal and a crash are errors beyond the right edge.
            found = [np.inf if row["says"] == "refused" else float(row["error_p95_mm"]) for row in runs]
            errors = np.sort(np.nan_to_num(np.array(found), nan=np.inf))
            mine = method in _OURS
            axes.step(
                [1e-6, *errors[errors < 1e3], 1e3],
                np.array([0, *range(1, int((errors < 1e3).sum()) + 1), (errors < 1e3).sum()]) / len(runs),
                where="post",
                linestyle=_STYLES[methods.index(method) % len(_STYLES)],
                linewidth=2.2 if mine else 1.4,
                color="black" if mine else str(0.3 + 0.06 * (methods.index(method) % 5)),
                label=f"{method} ({len(runs)})",
            )
        axes.set(xscale="log", xlim=(0.02, 20), ylim=(0, 1.01), title=f"resolution: {resolution}")
        axes.set(xlabel="error of a case, mm (95th percentile over the brain)", ylabel="share of the cases")
        axes.axvline(2.0, color="0.8", linewidth=1, zorder=0)
        axes.grid(axis="y", color="0.9")
        axes.set_xticks(_TICKS, labels=[f"{tick:g}" for tick in _TICKS])
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small", handlelength=4, title="method (cases)"
        )
    with atomic_output(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
