"""How far a fusion is: one bar over all stages, and words with the time that is left."""

from __future__ import annotations

from slicer.i18n import tr as _

# Roughly what each stage takes of the whole, so that the bar moves at one pace.
SHARES = {"preparing": 0.05, "registration": 0.65, "resampling": 0.05, "fusion": 0.2, "checking": 0.05}
# Below this fraction an estimate of the time left would jump.
LEAST_DONE = 0.1


def fraction_done(stage: str, fraction: float) -> float:
    """Return the fraction of the whole that is done, 0 to 1, from a stage and its own fraction."""
    if stage in ("exporting", "shapes"):  # a work of its own
        return fraction
    before = 0.0
    for name, share in SHARES.items():
        if name == stage:
            break
        before += share
    return before + SHARES.get(stage, 0.0) * fraction


def words(stage: str, done: float, elapsed_s: float) -> str:
    """Return what is being done, and about how long it will take."""
    names = {
        "preparing": _("Preparing"),
        "registration": _("Registering"),
        "resampling": _("Resampling the CT"),
        "fusion": _("Fusing"),
        "checking": _("Checking the alignment"),
        "exporting": _("Exporting"),
        "shapes": _("Finding skull and brain"),
    }
    name = names.get(stage, stage)
    if done <= LEAST_DONE:
        return name
    return _("{stage}: about {seconds:.0f} s left").format(stage=name, seconds=elapsed_s * (1 - done) / done)
