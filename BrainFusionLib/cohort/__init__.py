"""Many cases: a list of them in, one result folder a case and one table out; can be stopped and gone on with."""

from BrainFusionLib.cohort.bids import read_bids
from BrainFusionLib.cohort.folders import read_folders
from BrainFusionLib.cohort.manifest import Entry, read_manifest
from BrainFusionLib.cohort.running import run_cohort

__all__ = ["Entry", "read_bids", "read_folders", "read_manifest", "run_cohort"]
