"""Many cases: from a list to one result folder for each case and one table; resumable."""

from BrainFusionLib.cohort.bids import read_bids
from BrainFusionLib.cohort.folders import read_folders
from BrainFusionLib.cohort.manifest import Entry, Problem, read_manifest
from BrainFusionLib.cohort.running import run_cohort

__all__ = ["Entry", "Problem", "read_bids", "read_folders", "read_manifest", "run_cohort"]
