"""Many cases: a manifest in, one result folder a case and one table out; can be stopped and gone on with."""

from BrainFusionLib.cohort.manifest import Entry, read_manifest
from BrainFusionLib.cohort.running import run_cohort

__all__ = ["Entry", "read_manifest", "run_cohort"]
