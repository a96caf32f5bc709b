"""One case: its request, its result, and the steps from one to the other.

Importing this package loads neither torch nor SimpleITK, so that a stored result can be read in milliseconds.
"""

from BrainFusionLib.case.codec import SCHEMA_VERSION, from_document, from_plain, to_document, to_plain
from BrainFusionLib.case.decision import Decision
from BrainFusionLib.case.faces import fuse, register
from BrainFusionLib.case.record import read_record
from BrainFusionLib.case.request import Inputs, Request, Source
from BrainFusionLib.case.result import WARNING, IntensityMap, Output, Pose, Provenance, Result, Volumes
from BrainFusionLib.case.run import run
from BrainFusionLib.case.standing import decision_of, rejected, standings_of

__all__ = [
    "SCHEMA_VERSION",
    "WARNING",
    "Decision",
    "Inputs",
    "IntensityMap",
    "Output",
    "Pose",
    "Provenance",
    "Request",
    "Result",
    "Source",
    "Volumes",
    "decision_of",
    "from_document",
    "from_plain",
    "fuse",
    "read_record",
    "register",
    "rejected",
    "run",
    "standings_of",
    "to_document",
    "to_plain",
]
