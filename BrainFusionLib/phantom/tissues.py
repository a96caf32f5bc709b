"""The tissues of the phantom, and what they look like in CT and in MRI."""

from __future__ import annotations

from enum import IntEnum


class Tissue(IntEnum):
    """Labels of the phantom."""

    BACKGROUND = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    BONE = 4  # face, jaw, petrous bone
    OUTER_TABLE = 5
    DIPLOE = 6
    INNER_TABLE = 7
    AIR = 8  # inside the head: sinuses, mastoid cells, airway
    EYE = 9
    LENS = 10
    DURA = 11
    CSF = 12
    GREY_MATTER = 13
    WHITE_MATTER = 14
    VENTRICLE = 15
    DEEP_GREY = 16
    OEDEMA = 17
    TUMOUR = 18
    TUMOUR_RIM = 19
    CALCIFICATION = 20
    BLOOD = 21
    METAL = 22


BRAIN_TISSUES = (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.DEEP_GREY, Tissue.VENTRICLE)
SKULL_TISSUES = (Tissue.OUTER_TABLE, Tissue.DIPLOE, Tissue.INNER_TABLE)
CONTRASTS = ("T1", "T2", "FLAIR", "PD")

# CT in HU, then MRI on a scale where 1000 is as bright as it gets, in the order of CONTRASTS; T1 is after contrast
# agent, so the tumour's rim enhances.
_ROWS: dict[Tissue, tuple[float, float, float, float, float]] = {
    Tissue.BACKGROUND: (-1000, 0, 0, 0, 0),
    Tissue.SKIN: (40, 420, 300, 300, 450),
    Tissue.FAT: (-90, 900, 640, 620, 800),
    Tissue.MUSCLE: (55, 380, 210, 230, 450),
    Tissue.BONE: (1000, 90, 60, 60, 110),
    Tissue.OUTER_TABLE: (1600, 40, 25, 25, 50),
    Tissue.DIPLOE: (680, 300, 200, 190, 300),
    Tissue.INNER_TABLE: (1500, 40, 25, 25, 50),
    Tissue.AIR: (-1000, 0, 0, 0, 0),
    Tissue.EYE: (12, 170, 960, 180, 800),
    Tissue.LENS: (75, 400, 180, 250, 400),
    Tissue.DURA: (58, 330, 150, 200, 300),
    Tissue.CSF: (8, 150, 930, 90, 700),
    Tissue.GREY_MATTER: (38, 470, 540, 560, 760),
    Tissue.WHITE_MATTER: (28, 680, 370, 430, 620),
    Tissue.VENTRICLE: (6, 140, 960, 80, 720),
    Tissue.DEEP_GREY: (39, 540, 450, 500, 720),
    Tissue.OEDEMA: (18, 470, 780, 850, 800),
    Tissue.TUMOUR: (24, 300, 860, 600, 780),
    Tissue.TUMOUR_RIM: (48, 930, 600, 720, 740),
    Tissue.CALCIFICATION: (450, 110, 60, 60, 120),
    Tissue.BLOOD: (65, 600, 260, 330, 500),
    Tissue.METAL: (3000, 0, 0, 0, 0),
}
# How far a fine texture moves the value, as a fraction of it: bone is nowhere even.
_SWING = {Tissue.DIPLOE: 0.26, Tissue.OUTER_TABLE: 0.16, Tissue.INNER_TABLE: 0.16}

# Value and swing of every tissue.
CT_HU = {tissue: (row[0], row[0] * _SWING.get(tissue, 0.0)) for tissue, row in _ROWS.items()}
MRI_VALUES = {
    contrast: {tissue: (row[column], row[column] * _SWING.get(tissue, 0.0)) for tissue, row in _ROWS.items()}
    for column, contrast in enumerate(CONTRASTS, start=1)
}
