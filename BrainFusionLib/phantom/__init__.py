"""A head of our own making, as CT, MRI and labels, in any pose and on any grid, with exact truth."""

from BrainFusionLib.phantom.phantom import (
    LabelMap,
    Phantom,
    PhantomPair,
    head_grid,
    make_pair,
    make_phantom,
    make_sample,
)
from BrainFusionLib.phantom.tissues import BRAIN_TISSUES, Tissue

__all__ = [
    "BRAIN_TISSUES",
    "LabelMap",
    "Phantom",
    "PhantomPair",
    "Tissue",
    "head_grid",
    "make_pair",
    "make_phantom",
    "make_sample",
]
