"""Which optimiser is best on held-out heads: ``python -m training.compare_optimisers --config FILE --output FOLDER``.

Every optimiser gets the same data, steps and seeds. With the first seed each tries several learning rates, and further
ones while the best is the lowest or the highest of them; the best then runs with the other seeds. FOLDER gets
``comparison.md``, ``comparison.csv`` and ``comparison.png`` (curves with the spread over the seeds), and a folder a
run; runs that are already there are not repeated.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import BrainFusionError, SettingsError, WeightsError
from BrainFusionLib.io import atomic_output, write_text
from BrainFusionLib.io.tables import markdown_table
from training.config import OPTIMISERS, Config
from training.config_file import read_config
from training.run_folder import environment
from training.train import train

logger = logging.getLogger("training")

# The middle of three rates that each optimiser tries, a factor of `SPREAD` apart: usual ones for a network like this.
USUAL_RATES = {
    "sgd": 3e-2,
    "rmsprop": 3e-4,
    "adagrad": 1e-2,
    "adadelta": 1.0,
    "adam": 1e-3,
    "adamw": 1e-3,
    "lion": 1e-4,
}
SPREAD = 3.0
# At most so many rates more, where the best one is at an end of those tried.
FURTHER = 3
# Where the configuration has none: without it, AdamW would be Adam.
DECOUPLED_DECAY = {"adamw": 1e-2, "lion": 1e-1}


@dataclass(frozen=True, eq=False)
class Outcome:
    """How one optimiser did: its best rate, and the held-out loss of each seed (columns: epochs)."""

    name: str
    rate: float
    tried: dict[float, float]
    curves: npt.NDArray[np.float64]

    @property
    def final(self) -> npt.NDArray[np.float64]:
        """The best held-out loss of each seed."""
        best: npt.NDArray[np.float64] = self.curves.min(axis=1)
        return best


def compare(config: Config, output: Path, names: Sequence[str], seeds: int, rates: int) -> list[Outcome]:
    """Run the comparison and write its tables and plot; return the outcomes, the best first.

    Raises
    ------
    SettingsError
        No such optimiser, or fewer than one seed or rate.
    """
    unknown = sorted(set(names) - set(OPTIMISERS))
    if unknown or seeds < 1 or rates < 1:
        raise SettingsError(
            f"optimisers: {', '.join(OPTIMISERS)}; seeds and rates 1 or more; got {', '.join(names)}, {seeds}, {rates}"
        )
    outcomes = sorted((_compete(config, output, name, seeds, rates) for name in names), key=lambda o: o.final.mean())
    write_text(_csv(outcomes), output / "comparison.csv")
    write_text(_markdown(outcomes, config, seeds, rates), output / "comparison.md")
    _plot(outcomes, output / "comparison.png")
    return outcomes


def _compete(config: Config, output: Path, name: str, seeds: int, rates: int) -> Outcome:
    """Choose a learning rate with the first seed, then run the others with it."""
    tried = [USUAL_RATES[name] * SPREAD ** (n - (rates - 1) // 2) for n in range(rates)]
    first = {rate: _run(config, output, name, rate, 0) for rate in tried}
    rate = _best(first)
    while rates > 1 and len(first) < rates + FURTHER and rate in (min(first), max(first)):
        further = rate / SPREAD if rate == min(first) else rate * SPREAD
        first[further] = _run(config, output, name, further, 0)
        rate = _best(first)
    curves = np.stack([first[rate], *(_run(config, output, name, rate, seed) for seed in range(1, seeds))])
    tried_losses = {rate: float(first[rate].min()) for rate in sorted(first)}
    return Outcome(name, rate, tried_losses, curves)


def _best(curves: Mapping[float, npt.NDArray[np.float64]]) -> float:
    return min(curves, key=lambda rate: float(curves[rate].min()))


def _run(config: Config, output: Path, name: str, rate: float, seed: int) -> npt.NDArray[np.float64]:
    """Return the held-out loss after each epoch; infinite from where a run failed."""
    folder = output / f"{name}-{rate:.3g}-{seed}"
    decay = config.optimiser.weight_decay or DECOUPLED_DECAY.get(name, 0.0)
    chosen = replace(
        config,
        optimiser=replace(config.optimiser, name=name, learning_rate=rate, weight_decay=decay),
        training=replace(config.training, seed=seed),
        network={**config.network, "seed": seed},
        log=replace(config.log, tensorboard=False),
    )
    if not (folder / "weights.json").exists():
        logger.info("%s, learning rate %.3g, seed %d", name, rate, seed)
        try:
            train(chosen, folder, resume=folder.exists())
        except WeightsError as error:  # a rate that is too high is an outcome, not a fault
            logger.warning("%s: %s", folder.name, error)
    curve = np.full(config.training.epochs, np.inf)
    for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "epoch" in entry:
            curve[entry["epoch"] - 1 :] = entry["heldout_loss"]
    return curve


def _csv(outcomes: Sequence[Outcome]) -> str:
    text = io.StringIO()
    text.write("optimiser,learning_rate,seed,epoch,heldout_loss\n")
    for outcome in outcomes:
        for seed, curve in enumerate(outcome.curves):
            for epoch, loss in enumerate(curve, start=1):
                text.write(f"{outcome.name},{outcome.rate:g},{seed},{epoch},{loss:.6g}\n")
    return text.getvalue()


def _markdown(outcomes: Sequence[Outcome], config: Config, seeds: int, rates: int) -> str:
    best = outcomes[0]
    told = environment()
    lines = [
        "# Comparison of optimisers",
        "",
        f"`python -m training.compare_optimisers {shlex.join(sys.argv[1:])}`",
        "",
        f"{config.training.epochs} epochs of {config.data.source} heads, batches of {config.training.batch_size}, "
        f"network {json.dumps(config.network)}, schedule {config.schedule.name}, label {config.label.kind}. Each "
        f"tried {rates} learning rates or more with the first of {seeds} seeds. The held-out loss is that of a "
        "run's best epoch, mean ± standard deviation over the seeds.",
        "",
        f"Hardware: {told['gpu'] or told['cpu']}, CPU threads: {config.training.threads or told['threads']}; "
        f"torch {told['packages']['torch']}; source tree {told['git']}.",
        "",
    ]
    rows = []
    for outcome in outcomes:
        tried = ", ".join(f"{rate:.2g} ({loss:.4f})" for rate, loss in outcome.tried.items())
        spread = f" ± {outcome.final.std(ddof=1):.4f}" if seeds > 1 else ""
        rows.append([outcome.name, f"{outcome.rate:.2g}", f"{outcome.final.mean():.4f}{spread}", tried])
    lines.append(markdown_table(["optimiser", "learning rate", "held-out loss", "rates tried (loss)"], rows))
    lines += ["", f"**{best.name}** is best on held-out heads.{_doubt(outcomes, seeds)}", ""]
    return "\n".join([*lines, "![held-out loss](comparison.png)", ""])


def _doubt(outcomes: Sequence[Outcome], seeds: int) -> str:
    if seeds < 2 or len(outcomes) < 2:
        return " With one seed, that may be chance."
    close = [o.name for o in outcomes[1:] if o.final.min() <= outcomes[0].final.max()]
    told = f" By its best seed, so may be: {', '.join(close)}." if close else ""
    failed = [o.name for o in outcomes if o.final.max() > 3 * o.final.min()]
    return told + (
        f" Failed with some seed at the rate that was best with the first: {', '.join(failed)}." if failed else ""
    )


def _plot(outcomes: Sequence[Outcome], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (curves, bars) = plt.subplots(1, 2, figsize=(12, 4.5), constrained_layout=True)
    for outcome in outcomes:
        epochs = np.arange(1, outcome.curves.shape[1] + 1)
        mean, spread = outcome.curves.mean(axis=0), outcome.curves.std(axis=0)
        curves.plot(epochs, mean, label=f"{outcome.name} {outcome.rate:.2g}")
        curves.fill_between(epochs, mean - spread, mean + spread, alpha=0.2)
    curves.set(xlabel="epoch", ylabel="held-out loss", yscale="log")
    curves.legend()
    names = [outcome.name for outcome in outcomes]
    finals = [outcome.final for outcome in outcomes]
    bars.errorbar(names, [f.mean() for f in finals], yerr=[f.std() for f in finals], fmt="o", capsize=5)
    bars.set(ylabel="best held-out loss", title="mean and standard deviation over the seeds")
    with atomic_output(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.compare_optimisers", description="Compare optimisers.")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--optimisers", nargs="+", default=list(OPTIMISERS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--rates", type=int, default=3, metavar="N", help="learning rates that each one tries")
    arguments, overrides = parser.parse_known_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        config = read_config(arguments.config, overrides)
        outcomes = compare(config, arguments.output, arguments.optimisers, arguments.seeds, arguments.rates)
    except (BrainFusionError, OSError) as error:
        logger.error("%s", error)
        return 2
    logger.info("best on held-out heads: %s; see %s", outcomes[0].name, arguments.output / "comparison.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
