"""The tissues of simulated heads: what they are called in label maps, and what they look like in CT and MRI.

The phantom tells 23 tissues apart (`BrainFusionLib.phantom.Tissue`), a label map about 14 (`Coarse`). The two have one
range of codes and one table of values, `APPEARANCE`; each value is defined once, the phantom's in the library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from BrainFusionLib.phantom.tissues import BRAIN_TISSUES, CT_HU, MRI_VALUES, Tissue

CodeArray = npt.NDArray[np.uint8]


class Coarse(IntEnum):
    """Tissues as whole-head label maps tell them apart; the codes go on where `Tissue` ends."""

    AIR = 0  # the phantom's background, too
    SKIN = 32
    SOFT = 33  # fat and muscle, which the label maps do not tell apart: the texture decides
    CORTICAL = 34  # compact bone, whichever table
    CANCELLOUS = 35
    EYE = 36
    MUCOSA = 37
    VESSEL = 38
    GREY = 39
    WHITE = 40
    FLUID = 41
    LESION = 42
    BLOOD = 43
    FAT = 44
    MUSCLE = 45


AnyTissue = Tissue | Coarse
CODES = 1 + max(Coarse)

BRAIN = (Coarse.GREY, Coarse.WHITE, *(tissue for tissue in BRAIN_TISSUES if tissue != Tissue.VENTRICLE))
INSIDE_SKULL = (Coarse.GREY, Coarse.WHITE, Coarse.FLUID, Coarse.LESION, Coarse.BLOOD)
BONE = (Coarse.CORTICAL, Coarse.CANCELLOUS)

# Sequences that coarse tissues have values for. (T1C: T1 after contrast agent, as the phantom's T1 is.)
CONTRASTS = ("T1", "T1C", "T2", "FLAIR", "PD")


@dataclass(frozen=True)
class Appearance:
    """What a tissue looks like.

    Attributes
    ----------
    hu
        Hounsfield units.
    hu_swing
        How far a texture of -1 to 1 moves them.
    signal
        MRI signal by sequence, on a scale where 1000 is as bright as it gets.
    signal_swing
        How far the texture moves the signal, as a fraction of it.
    """

    hu: float
    hu_swing: float
    signal: dict[str, float]
    signal_swing: float = 0.0


def _coarse(hu: float, hu_swing: float, *signal: float, signal_swing: float = 0.0) -> Appearance:
    return Appearance(hu, hu_swing, dict(zip(CONTRASTS, signal, strict=True)), signal_swing)


APPEARANCE: dict[AnyTissue, Appearance] = {
    **{
        tissue: Appearance(hu, swing, {contrast: values[tissue][0] for contrast, values in MRI_VALUES.items()})
        for tissue, (hu, swing) in CT_HU.items()
    },
    Coarse.AIR: _coarse(-1000, 0, 0, 0, 0, 0, 0),
    Coarse.SKIN: _coarse(20, 5, 600, 650, 400, 450, 600),
    # Where the texture makes muscle of fat, the signal falls.
    Coarse.SOFT: _coarse(-20, 55, 660, 700, 450, 460, 620, signal_swing=-0.35),
    Coarse.CORTICAL: _coarse(1300, 200, 50, 50, 40, 40, 50),
    Coarse.CANCELLOUS: _coarse(600, 120, 350, 400, 250, 220, 300, signal_swing=-0.2),
    Coarse.EYE: _coarse(12, 0, 200, 200, 1000, 150, 700),
    Coarse.MUCOSA: _coarse(30, 8, 500, 900, 800, 600, 700, signal_swing=0.1),
    Coarse.VESSEL: _coarse(55, 0, 300, 1000, 50, 100, 200),
    Coarse.GREY: _coarse(38, 1, 550, 580, 600, 650, 800),
    Coarse.WHITE: _coarse(29, 1, 800, 820, 400, 500, 650),
    Coarse.FLUID: _coarse(9, 1, 200, 200, 1000, 120, 700),
    Coarse.LESION: _coarse(24, 4, 400, 900, 850, 850, 800),
    Coarse.BLOOD: _coarse(65, 4, 600, 600, 300, 350, 500),
    Coarse.FAT: _coarse(-95, 5, 900, 900, 650, 650, 750),
    Coarse.MUSCLE: _coarse(55, 5, 420, 500, 250, 280, 500),
}

# FreeSurfer's labels of the brain and charm's of the rest of the head, as SynthSeg's label maps have them, with the
# tissue that each is in detail (`label_maps` adds what labels do not tell) and coarsely.
LABELS: tuple[tuple[tuple[int, ...], Tissue, Coarse], ...] = (
    ((0,), Tissue.BACKGROUND, Coarse.AIR),
    ((2, 7, 16, 28, 41, 46, 60, 85), Tissue.WHITE_MATTER, Coarse.WHITE),
    ((3, 8, 17, 18, 42, 47, 53, 54, 136, 137, 163, 164), Tissue.GREY_MATTER, Coarse.GREY),
    ((10, 11, 12, 13, 26, 49, 50, 51, 52, 58), Tissue.DEEP_GREY, Coarse.GREY),
    ((4, 5, 14, 15, 43, 44, 72), Tissue.VENTRICLE, Coarse.FLUID),
    ((24,), Tissue.CSF, Coarse.FLUID),
    ((25, 57), Tissue.CSF, Coarse.GREY),
    ((30, 62), Tissue.CSF, Coarse.VESSEL),
    # Arteries and veins: bright in no sequence without contrast agent.
    ((502, 514), Tissue.DURA, Coarse.VESSEL),
    ((506,), Tissue.EYE, Coarse.EYE),
    ((507, 508), Tissue.MUSCLE, Coarse.SOFT),
    ((509,), Tissue.MUSCLE, Coarse.MUCOSA),
    ((511,), Tissue.SKIN, Coarse.SKIN),
    ((512, 530), Tissue.WHITE_MATTER, Coarse.SOFT),
    ((515,), Tissue.BONE, Coarse.CORTICAL),
    ((516,), Tissue.DIPLOE, Coarse.CANCELLOUS),
)
TISSUE_OF_LABEL: dict[int, Tissue] = {label: tissue for labels, tissue, _ in LABELS for label in labels}
COARSE_OF_LABEL: dict[int, Coarse] = {label: coarse for labels, _, coarse in LABELS for label in labels}

# What each tissue of the phantom is, coarsely.
COARSE_OF_TISSUE: dict[Tissue, Coarse] = {
    **dict.fromkeys((Tissue.BACKGROUND, Tissue.AIR), Coarse.AIR),
    **dict.fromkeys((Tissue.SKIN, Tissue.DURA), Coarse.SKIN),
    **dict.fromkeys((Tissue.BONE, Tissue.OUTER_TABLE, Tissue.INNER_TABLE), Coarse.CORTICAL),
    **dict.fromkeys((Tissue.DIPLOE, Tissue.CALCIFICATION), Coarse.CANCELLOUS),
    **dict.fromkeys((Tissue.EYE, Tissue.LENS), Coarse.EYE),
    **dict.fromkeys((Tissue.CSF, Tissue.VENTRICLE), Coarse.FLUID),
    **dict.fromkeys((Tissue.OEDEMA, Tissue.TUMOUR, Tissue.TUMOUR_RIM), Coarse.LESION),
    **dict.fromkeys((Tissue.GREY_MATTER, Tissue.DEEP_GREY, Tissue.METAL), Coarse.GREY),
    Tissue.FAT: Coarse.FAT,
    Tissue.MUSCLE: Coarse.MUSCLE,
    Tissue.WHITE_MATTER: Coarse.WHITE,
    Tissue.BLOOD: Coarse.BLOOD,
}


def coarse_codes(codes: npt.NDArray[np.integer], known: dict[int, Coarse] | dict[Tissue, Coarse]) -> CodeArray:
    """Return coarse tissues of labels or of the phantom's tissues; what is not known is grey matter."""
    table = np.full(max(int(codes.max(initial=0)), *known) + 1, Coarse.GREY, np.uint8)
    for code, coarse in known.items():
        table[code] = coarse
    found: CodeArray = table[codes]
    return found


def values_by_code(tissues: Iterable[AnyTissue], values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return values of tissues as an array to index with codes, float32, NaN where there is no such tissue."""
    table = np.full(CODES, np.nan, np.float32)
    table[[int(tissue) for tissue in tissues]] = values
    return table
