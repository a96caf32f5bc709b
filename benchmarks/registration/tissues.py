"""Tissues of the simulated heads: where they come from in the label maps, and what they look like in CT and MRI."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from BrainFusionLib.phantom import Tissue as PhantomTissue


class Tissue(IntEnum):
    """What a voxel of a head is made of."""

    AIR = 0
    SKIN = 1
    SOFT = 2  # fat and muscle, which the label maps do not tell apart: the texture decides
    CORTICAL = 3
    CANCELLOUS = 4
    EYE = 5
    MUCOSA = 6
    VESSEL = 7
    GREY = 8
    WHITE = 9
    FLUID = 10
    LESION = 11
    BLOOD = 12
    FAT = 13
    MUSCLE = 14


BRAIN = (Tissue.GREY, Tissue.WHITE)
INSIDE_SKULL = (Tissue.GREY, Tissue.WHITE, Tissue.FLUID, Tissue.LESION, Tissue.BLOOD)
BONE = (Tissue.CORTICAL, Tissue.CANCELLOUS)

# Hounsfield units, and how far the texture (about -1 to 1) moves them.
HU: dict[Tissue, tuple[float, float]] = {
    Tissue.AIR: (-1000, 0), Tissue.SKIN: (20, 5), Tissue.SOFT: (-20, 55), Tissue.CORTICAL: (1300, 200),
    Tissue.CANCELLOUS: (600, 120), Tissue.EYE: (12, 0), Tissue.MUCOSA: (30, 8), Tissue.VESSEL: (55, 0),
    Tissue.GREY: (38, 1), Tissue.WHITE: (29, 1), Tissue.FLUID: (9, 1), Tissue.LESION: (24, 4), Tissue.BLOOD: (65, 4),
    Tissue.FAT: (-95, 5), Tissue.MUSCLE: (55, 5),
}  # fmt: skip

CONTRASTS = ("T1", "T1C", "T2", "FLAIR", "PD")
# Relative signal in the order of CONTRASTS (T1C: T1 after contrast agent). Air gives none.
SIGNAL: dict[Tissue, tuple[float, float, float, float, float]] = {
    Tissue.AIR: (0, 0, 0, 0, 0),
    Tissue.SKIN: (0.6, 0.65, 0.4, 0.45, 0.6),
    Tissue.SOFT: (0.66, 0.7, 0.45, 0.46, 0.62),
    Tissue.CORTICAL: (0.05, 0.05, 0.04, 0.04, 0.05),
    Tissue.CANCELLOUS: (0.35, 0.4, 0.25, 0.22, 0.3),
    Tissue.EYE: (0.2, 0.2, 1.0, 0.15, 0.7),
    Tissue.MUCOSA: (0.5, 0.9, 0.8, 0.6, 0.7),
    Tissue.VESSEL: (0.3, 1.0, 0.05, 0.1, 0.2),
    Tissue.GREY: (0.55, 0.58, 0.6, 0.65, 0.8),
    Tissue.WHITE: (0.8, 0.82, 0.4, 0.5, 0.65),
    Tissue.FLUID: (0.2, 0.2, 1.0, 0.12, 0.7),
    Tissue.LESION: (0.4, 0.9, 0.85, 0.85, 0.8),
    Tissue.BLOOD: (0.6, 0.6, 0.3, 0.35, 0.5),
    Tissue.FAT: (0.9, 0.9, 0.65, 0.65, 0.75),
    Tissue.MUSCLE: (0.42, 0.5, 0.25, 0.28, 0.5),
}
# How far the texture moves the signal, as a fraction of it. Where it makes muscle of fat, the signal falls.
SIGNAL_SWING = {Tissue.SOFT: -0.35, Tissue.CANCELLOUS: -0.2, Tissue.MUCOSA: 0.1}

# FreeSurfer's and SynthSeg's numbers. Brain structures that are not listed are grey matter.
_LABELS: dict[Tissue, tuple[int, ...]] = {
    Tissue.AIR: (0,),
    Tissue.WHITE: (2, 41, 7, 46, 16, 28, 60, 85),
    Tissue.FLUID: (4, 5, 14, 15, 24, 43, 44, 72),
    Tissue.SKIN: (511,),
    Tissue.SOFT: (507, 508, 512, 530),
    Tissue.CORTICAL: (515,),
    Tissue.CANCELLOUS: (516,),
    Tissue.EYE: (506,),
    Tissue.MUCOSA: (509,),
    Tissue.VESSEL: (502, 514, 30, 62),
}
_PHANTOM: dict[Tissue, tuple[PhantomTissue, ...]] = {
    Tissue.AIR: (PhantomTissue.BACKGROUND, PhantomTissue.AIR),
    Tissue.SKIN: (PhantomTissue.SKIN, PhantomTissue.DURA),
    Tissue.FAT: (PhantomTissue.FAT,),
    Tissue.MUSCLE: (PhantomTissue.MUSCLE,),
    Tissue.CORTICAL: (PhantomTissue.BONE, PhantomTissue.OUTER_TABLE, PhantomTissue.INNER_TABLE),
    Tissue.CANCELLOUS: (PhantomTissue.DIPLOE, PhantomTissue.CALCIFICATION),
    Tissue.EYE: (PhantomTissue.EYE, PhantomTissue.LENS),
    Tissue.WHITE: (PhantomTissue.WHITE_MATTER,),
    Tissue.FLUID: (PhantomTissue.CSF, PhantomTissue.VENTRICLE),
    Tissue.LESION: (PhantomTissue.OEDEMA, PhantomTissue.TUMOUR, PhantomTissue.TUMOUR_RIM),
    Tissue.BLOOD: (PhantomTissue.BLOOD,),
}


def tissue_of_label(*, phantom: bool) -> npt.NDArray[np.uint8]:
    """Return the tissue of every label, shape (1024,), of SynthSeg's label maps or of the phantom's."""
    table = np.full(1024, Tissue.GREY, np.uint8)
    for tissue, labels in (_PHANTOM if phantom else _LABELS).items():
        table[list(labels)] = tissue
    return table
