"""The nodes that the panel's selectors have chosen: which are outputs, and which of those belong to the chosen pair."""

from __future__ import annotations

import slicer.util

from BrainFusionLib.settings import Side
from BrainFusionSlicer import ownership

# The parameter that holds each output, and the output's role.
OUTPUTS = {
    "fusedVolume": ownership.FUSED,
    "ctToMriTransform": ownership.TRANSFORM,
    "alphaVolume": ownership.ALPHA,
    "resampledCTVolume": ownership.RESAMPLED_CT,
}
CHOSEN = ("ctVolume", "mriVolume", *OUTPUTS, "startTransform", "mask")


def chosen_outputs(parameters) -> list:
    """Return the output nodes that are chosen."""
    nodes = [getattr(parameters, name) for name in OUTPUTS]
    return [node for node in nodes if node is not None]


def chosen_ids(parameters) -> tuple:
    """Return the ids of all nodes that are chosen, None for those that are not."""
    nodes = [getattr(parameters, name) for name in CHOSEN]
    return tuple(None if node is None else node.GetID() for node in nodes)


def follow_pair(parameters) -> None:
    """Choose the outputs that the chosen pair has, in place of those of another pair.

    Nodes that are nobody's outputs stay chosen.
    """
    ct, mri = parameters.ctVolume, parameters.mriVolume
    with slicer.util.NodeModify(parameters):
        for name, role in OUTPUTS.items():
            node = getattr(parameters, name)
            is_of_another = node is not None and ownership.role_of(node) and not ownership.is_output_of(node, ct, mri)
            if node is None or is_of_another:
                setattr(parameters, name, ownership.find_output(role, ct, mri))


def follow_reference(parameters, reference: Side) -> None:
    """Choose the pair's transform that leaves the reference where it is, in the place of one that moves it."""
    ct, mri, node = parameters.ctVolume, parameters.mriVolume, parameters.ctToMriTransform
    if node is not None and ownership.is_output_of(node, ct, mri) and ownership.reference_of(node) != reference:
        parameters.ctToMriTransform = ownership.find_transform(ct, mri, reference)


def leave_out(parameters, node) -> bool:
    """Choose none wherever a node is chosen, because it is about to be removed; say whether it was chosen."""
    names = [name for name in CHOSEN if getattr(parameters, name) == node]
    with slicer.util.NodeModify(parameters):
        for name in names:
            setattr(parameters, name, None)
    return bool(names)
