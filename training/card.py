"""Model cards: ``python -m training.card WEIGHTS.npz --measures means.json`` puts new measures into manifest and card.

``means.json`` is what `training.evaluate` wrote. The arrays, and with them their sha256, stay as they are; the card is
``NAME.md`` beside them.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.fusion.weights import Manifest, load_weights
from BrainFusionLib.io import write_json, write_text
from BrainFusionLib.io.tables import markdown_table
from training.config_file import config_from

logger = logging.getLogger("training")

GOLDEN_TOLERANCE = 1e-4


def model_card(manifest: Manifest) -> str:
    """Return the model card of a network, Markdown."""
    details = manifest.details
    config = config_from(details["config"])
    rows = [(name, f"{value:.4f}") for name, value in details["measures"].items()]
    titles = [f"measure, {details.get('measured_on', 'held-out heads')}", "mean"]
    table = f"\n{markdown_table(titles, rows)}\n" if rows else ""
    return f"""# Model card: {config.network["name"]}

Fuses a CT and an MRI slice of one head, registered to each other, on the unit scale of `BrainFusionLib.intensity`.
**For research and planning review, not for diagnosis.** Not tried on patients' data unless it is named below.

- **Network**: {json.dumps(manifest.architecture)}, {details["parameters"]} parameters; arrays and names only, nothing
  is run when they are read. sha256 of the arrays: `{manifest.sha256}`
- **Licence**: {manifest.licence}
- **Learned from**: {manifest.training_data}
- **Label**: {config.label.kind}. **Loss**: {json.dumps(details["config"]["loss"])}
- **How**: {config.optimiser.name}, learning rate {config.optimiser.learning_rate:g}, {details["steps"]} steps of
  {config.training.batch_size} slices, {config.training.precision}; source tree {details["git"]}, version
  {manifest.library_version}, {manifest.created}
- **Held-out loss**: {details["heldout_loss"]:.5f}
- **Check**: `golden.npz` holds an input and the output that it must give, to {GOLDEN_TOLERANCE:g} of the unit scale.
{table}
Known limits: slices are fused one by one; sequences, artefacts and implants beyond those in the data above are untried;
what the registration got wrong, the fusion shows wrong.
"""


def update_measures(weights: Path, measures: Mapping[str, float], measured_on: str) -> None:
    """Replace the measures in the manifest and in the card of a weights file.

    Parameters
    ----------
    measured_on
        In words, what they were measured on.

    Raises
    ------
    WeightsError
        The weights are missing or damaged.
    ImageFileError
        The folder cannot be written to.
    """
    loaded = load_weights(weights)
    details = {**loaded.manifest.details, "measures": dict(measures), "measured_on": measured_on}
    manifest = replace(loaded.manifest, details=details)
    write_json(asdict(manifest), loaded.path.with_suffix(".json"))
    write_text(model_card(manifest), loaded.path.with_suffix(".md"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.card", description="Put new measures into a model card.")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS.npz")
    parser.add_argument("--measures", type=Path, required=True, metavar="FILE", help="means.json of training.evaluate")
    parser.add_argument("--measured-on", default="held-out heads", metavar="WORDS", help="what they were measured on")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        measures = json.loads(arguments.measures.read_text(encoding="utf-8"))
        update_measures(arguments.weights, measures, arguments.measured_on)
    except (BrainFusionError, OSError, ValueError) as error:
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
