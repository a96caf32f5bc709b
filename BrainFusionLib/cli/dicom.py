"""What ``fuse --dicom`` needs before the work, and says after it."""

from __future__ import annotations

import argparse

from BrainFusionLib.case import Inputs, Result
from BrainFusionLib.case.dicom_results import PairHeaders, read_pair_headers
from BrainFusionLib.cli.pair import series_of
from BrainFusionLib.console import say


def headers_of(options: argparse.Namespace, inputs: Inputs) -> PairHeaders:
    """Read the headers of both, and check before the work that the reference is where its slices are."""
    found = read_pair_headers(options.ct, options.mri, *series_of(options), reference=options.reference)
    reference, volume = found.of(options.reference), inputs.mri if options.reference == "mri" else inputs.ct
    if reference is not None:
        reference.check_same_place(volume.grid, volume.name)
    return found


def say_dicom(headers: PairHeaders, result: Result) -> None:
    """Say what a user may not expect of the DICOM results."""
    whose = "MRI" if result.reference == "mri" else "CT"
    if headers.are_of_two_patients:
        say(f"note: the DICOM results were written for the {whose}'s patient")
    if not headers.are_both:
        say("note: no DICOM registration was written, because only one of the two is DICOM")
