"""A schematic head: which tissue is where, at any point of the head frame.

The head frame is LPS mm with its origin between the thalami: +x left, +y back, +z up, the nose at -y. Points are bent
by a few smooth seeded waves before they meet the shapes, which makes every seed another head and leaves none of them
left-right symmetric. All numbers are our own, after anatomy in general and no image in particular.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from BrainFusionLib.phantom.shapes import (
    Cone,
    Ellipsoid,
    Float32Array,
    Node,
    Points,
    Shape,
    Triple,
    common,
    hypotenuse,
    joined,
    nearest,
    tube,
    union,
    without,
)
from BrainFusionLib.phantom.tissues import Tissue

# Cranial cavity: cerebrum above a sloping base, middle fossae, posterior fossa, petrous ridges between them, canal.
# Shapes of pairs are given for the left (+x).
CEREBRUM = Ellipsoid((0, 2, 8), (66, 83, 64))
MIDDLE_FOSSA = (Ellipsoid((38, -10, -27), (24, 33, 20)),)
POSTERIOR_FOSSA = (Ellipsoid((0, 41, -34), (52, 37, 32)),)
PETROUS = tube((62, 22, -46, 13), (40, 10, -44, 9), (13, -6, -41, 5))
CANAL = tube((0, 27, -50, 12), (0, 32, -110, 10), (0, 36, -200, 10))

# The outside of the head, beside the scalp over the cranium.
FACE = (Ellipsoid((0, -36, -58), (62, 58, 60)),)
JAW = (Ellipsoid((0, -47, -94), (47, 44, 26)),)
NOSE = tube((0, -84, -30, 7), (0, -97, -56, 12))
NECK = tube((0, 22, -60, 50), (0, 30, -220, 56))
NECK_END_MM = -150.0
AURICLE = Ellipsoid((69, 20, -38), (4.5, 18, 29))

JAW_BONE = tube((0, -80, -104, 7), (28, -66, -103, 6.5), (47, -22, -92, 6), (52, -4, -56, 5))
CHEEK_BONE = tube((34, -76, -54, 5), (50, -62, -56, 6), (60, -30, -52, 3.5), (58, 4, -48, 4))
DENTAL_ARCH = tube((0, -84, -88, 4.5), (18, -75, -88, 4.5), (27, -52, -88, 5))
SPINE = tube((0, 13, -70, 8), (0, 14, -110, 9), (0, 16, -200, 10))
ORBIT = tube((32, -84, -44, 18), (15, -36, -42, 5))
EYEBALL = (Ellipsoid((32, -72, -44), (12, 12, 12)),)
EYE_LENS = (Ellipsoid((32.5, -81, -44), (4.6, 2, 4.6)),)
OPTIC_NERVE = tube((30, -60, -44, 2.2), (15, -36, -42, 2.2))
EYE_MUSCLES = (
    *tube((43, -68, -44, 1.8), (16, -37, -42, 1.5)),
    *tube((20, -68, -44, 1.8), (14, -37, -42, 1.5)),
    *tube((31, -66, -33, 1.8), (15, -37, -39, 1.5)),
    *tube((31, -66, -55, 1.8), (15, -37, -45, 1.5)),
)
NASAL_CAVITY = (Ellipsoid((0, -64, -58), (15, 34, 24)),)
MAXILLARY_SINUS = (Ellipsoid((27, -62, -69), (11, 15, 14)),)
SPHENOID_SINUS = (Ellipsoid((6, -24, -42), (7, 12, 9)), Ellipsoid((-7, -22, -43), (6, 9, 7)))
FRONTAL_SINUS = (Ellipsoid((9, -83.5, -12), (13, 4, 12)), Ellipsoid((-8, -83, -16), (8, 3.5, 8)))
MASTOID = (Ellipsoid((52, 21, -53), (11, 13, 15)),)
EAR_CANAL = tube((82, 12, -45, 3.5), (52, 10, -45, 3))
AIRWAY = tube((0, -14, -62, 8), (0, -8, -95, 9), (0, -12, -200, 9))

# The hollow under the tent holds the cerebellum.
HOLLOW = Ellipsoid((0, 42, -34), (58, 40, 40))
BRAINSTEM = tube((0, 8, -10, 14), (0, 14, -32, 13), (0, 24, -60, 7), (0, 31, -110, 6), (0, 35, -200, 6))
CHIASM_CISTERN = Ellipsoid((0, -10, -19), (13, 9, 7))
NUCLEI: tuple[Shape, ...] = (
    *tube((14, -25, 9, 6), (18, -2, 18, 4), (22, 22, 17, 2.5)),  # caudate
    Ellipsoid((26, -3, 2), (6, 19, 11)),  # putamen and pallidum
    Ellipsoid((11, 13, 4), (9, 15, 9)),  # thalamus
)
LATERAL_VENTRICLE = ((8, -34, 7, 4.5), (7, -12, 15, 5.5), (10, 14, 19, 5.5), (23, 36, 9, 7.5), (21, 60, 3, 2.5))
TEMPORAL_HORN = ((23, 36, 9, 6), (34, 14, -15, 3), (31, -8, -22, 2.5))
MIDLINE_VENTRICLES: tuple[Shape, ...] = (
    Ellipsoid((0, 7, -1), (2.6, 14, 9)),
    *tube((0, 18, -6, 1.2), (0, 28, -28, 1.4)),
    Ellipsoid((0, 33, -37), (8, 5, 9)),
)
CALCIFICATIONS = (Ellipsoid((0.5, 25, 5), (3, 3.5, 2.6)), Ellipsoid((23, 39, 8), (3.2, 4.2, 2.6)))
HAIR_MM = 0.5  # lesions stay this far below the surface of the cortex


class Layer(NamedTuple):
    """One coat of paint: `tissue` where `distance` is negative, over whatever was there before.

    `texture`, -1 to 1, moves the tissue's value within its range; `strength` scales how much of a voxel is covered.
    """

    tissue: Tissue
    distance: Float32Array
    texture: Float32Array | None = None
    strength: float = 1.0


@dataclass(frozen=True)
class HeadShape:
    """What differs from one head to the next. Lengths in mm, head frame.

    Parameters
    ----------
    size
        Scale of the head along x, y and z; 1 is average.
    waves
        Smooth bending: rows of (wave vector in 1/mm, phase, displacement in mm), 3 + 1 + 3 numbers.
    skull_mm, scalp_mm, sulcus_mm
        Typical thickness of skull and scalp; wavelength of the gyral pattern.
    phases
        Three phases of the fine patterns.
    ventricles
        Width of the left and the right lateral ventricle; 1 is average.
    tumour, haemorrhage
        The lesions; the tumour's oedema reaches further. ``None``: none.
    electrode
        A straight rod, in the head frame itself and not bent with the head. ``None``: none.
    """

    size: Triple
    waves: tuple[tuple[float, ...], ...]
    skull_mm: float
    scalp_mm: float
    sulcus_mm: float
    phases: Triple
    ventricles: tuple[float, float]
    tumour: Ellipsoid | None
    haemorrhage: Ellipsoid | None
    electrode: Cone | None

    def outside(self, p: Points) -> Float32Array:
        """Return about the distance to the skin in mm, negative inside, at points of the head frame."""
        q = self._bent(p)
        side = q.mirrored()
        return self._skin(q, side, self._cranium(q, side), self._skull_thickness(q))

    def layers(self, p: Points, margin_mm: float, blooming_mm: float = 0.0) -> Iterator[Layer]:
        """Yield the coats of paint from the skin inwards, without those farther than `margin_mm` from all points.

        `blooming_mm` widens the electrode, as its field distortion does in an MRI.
        """
        q = self._bent(p)
        side = q.mirrored()
        cranium = self._cranium(q, side)
        cavity = joined(cranium, CANAL, q, 6)
        if float(cavity.max()) > -margin_mm:
            skull = self._skull_thickness(q)
            skin = self._skin(q, side, cranium, skull)
            if float(skin.min()) >= margin_mm:
                return
            yield from self._soft_tissue(q, skin)
            yield from self._face(q, side, skin, margin_mm)
            yield from self._skull(q, side, cavity, cranium, skull, skin, margin_mm)
        if float(cavity.min()) < margin_mm:
            yield from self._brain(q, side, cavity, margin_mm)
        if self.electrode is not None and p.gap(self.electrode) <= margin_mm + blooming_mm:
            yield Layer(
                Tissue.METAL,
                self.electrode.distance(p) - blooming_mm,
                strength=_rod_strength(self.electrode.start[3] + blooming_mm, margin_mm),
            )

    def _bent(self, p: Points) -> Points:
        """Carry points of the head frame into the frame of the shapes."""
        x, y, z = (a * (1 / s) for a, s in zip((p.x, p.y, p.z), self.size, strict=True))
        for kx, ky, kz, phase, ax, ay, az in self.waves:
            wave = np.sin(p.x * kx + p.y * ky + (p.z * kz + phase))
            x += wave * ax
            y += wave * ay
            z += wave * az
        return Points(x, y, z)

    def _cranium(self, q: Points, side: Points) -> Float32Array:
        """Return the distance to the cranial cavity, without the spinal canal."""
        base: Float32Array = -27 - q.z - 0.1 * q.y
        cranium = common(CEREBRUM.distance(q), base, 14)
        cranium = joined(cranium, MIDDLE_FOSSA, side, 12)
        cranium = joined(cranium, POSTERIOR_FOSSA, q, 12)
        return without(cranium, PETROUS, side, 4)

    def _skull_thickness(self, q: Points) -> Float32Array:
        """Return the thickness of the skull, mm: uneven, thin at the temples, thick at the brow."""
        uneven = np.sin(0.061 * q.x + self.phases[0]) * np.sin(0.053 * q.y + self.phases[1])
        temples = np.exp(-((np.abs(q.x) - 66) ** 2 + (q.y + 18) ** 2 + (q.z + 8) ** 2) * (1 / 1100))
        thickness: Float32Array = self.skull_mm * (1 + 0.14 * uneven - 0.35 * temples)
        if q.low[1] < -50:
            thickness += 6 * np.exp(-(q.x**2 / 900 + (q.y + 82) ** 2 / 250 + (q.z + 13) ** 2 / 300))
        return thickness

    def _skin(self, q: Points, side: Points, cranium: Float32Array, skull: Float32Array) -> Float32Array:
        skin = cranium - (skull + self.scalp_mm)
        for shapes, blend_mm in ((FACE, 14), (JAW, 12), (NOSE, 8), (NECK, 14)):
            skin = joined(skin, shapes, q, blend_mm)
        if side.gap(AURICLE) < 25:
            # The auricles lean out towards the back; the right one sits a little lower.
            lean = Points(side.x - 0.4 * (q.y - 14), q.y, q.z + 3 * (q.x < 0))
            skin = union(skin, common(AURICLE.distance(lean), 60 - side.x, 2), 3)
        np.maximum(skin, NECK_END_MM - q.z, out=skin)
        return skin

    def _soft_tissue(self, q: Points, skin: Float32Array) -> Iterator[Layer]:
        yield Layer(Tissue.SKIN, skin)
        yield Layer(Tissue.FAT, skin + 2)
        bundles = np.sin(0.17 * q.x + 2.2 * np.sin(0.05 * q.z + 0.045 * q.y)) + 0.8 * np.sin(
            0.13 * q.y + 2.5 * np.sin(0.055 * q.x + 0.03 * q.z + self.phases[0])
        )
        yield Layer(Tissue.MUSCLE, np.maximum(skin + 6.5, 0.8 - np.abs(bundles) * 5))

    def _face(self, q: Points, side: Points, skin: Float32Array, margin_mm: float) -> Iterator[Layer]:
        if q.low[1] > 35 or q.low[2] > 0:
            return
        deep = skin + 4  # bone keeps this far below the skin
        for bone, marrow_mm in ((JAW_BONE, 2.5), (CHEEK_BONE, 2.5), (SPINE, 1.5)):
            distance = nearest(bone, side, margin_mm)
            if distance is not None:
                if bone is SPINE:
                    distance = np.maximum(distance, 1 - 9 * np.abs(np.sin(0.17 * q.z)))  # discs
                yield Layer(Tissue.BONE, np.maximum(distance, deep))
                yield Layer(Tissue.DIPLOE, distance + marrow_mm, np.sin(q.x + q.y) * np.sin(1.1 * q.z))
        arch = nearest(DENTAL_ARCH, side, margin_mm + 8)
        if arch is not None:
            gaps = 0.8 - 3.5 * np.abs(np.sin(0.42 * (side.x - 0.7 * q.y)))
            rows = np.abs(np.abs(q.z + 88) - 5) - 4
            yield Layer(Tissue.BONE, np.maximum(np.maximum(arch - 4, gaps), np.maximum(rows, deep)))
        sinus = nearest(MAXILLARY_SINUS, side, margin_mm + 2)
        if sinus is not None:
            yield Layer(Tissue.BONE, np.maximum(sinus - 2, deep))
            yield Layer(Tissue.AIR, np.maximum(sinus, skin + 6))
        nose = nearest(NASAL_CAVITY, q, margin_mm + 2)
        if nose is not None:
            yield Layer(Tissue.BONE, np.maximum(nose - 1.5, deep))
            yield Layer(Tissue.MUSCLE, np.maximum(nose, skin + 2))
            turbinates = 1.8 - np.abs(side.x - 3 - 3 * np.abs(np.sin(0.16 * (q.z + 20))))
            septum = 1.3 - np.abs(q.x - 1.5 * np.sin(0.07 * q.y))
            yield Layer(Tissue.AIR, np.maximum(np.maximum(nose + 1.2, turbinates), np.maximum(septum, skin + 6)))
        airway = nearest(AIRWAY, q, margin_mm)
        if airway is not None:
            yield Layer(Tissue.AIR, airway)
        orbit = nearest(ORBIT, side, margin_mm + 2)
        if orbit is not None:
            yield Layer(Tissue.BONE, np.maximum(orbit - 2.2, skin + 12))
            yield Layer(Tissue.FAT, np.maximum(orbit, skin + 1.5))
            for tissue, shapes in (
                (Tissue.MUSCLE, EYE_MUSCLES),
                (Tissue.WHITE_MATTER, OPTIC_NERVE),
                (Tissue.EYE, EYEBALL),
                (Tissue.LENS, EYE_LENS),
            ):
                distance = nearest(shapes, side, margin_mm)
                if distance is not None:
                    yield Layer(tissue, np.maximum(distance, skin + 1))

    def _skull(
        self,
        q: Points,
        side: Points,
        cavity: Float32Array,
        cranium: Float32Array,
        skull: Float32Array,
        skin: Float32Array,
        margin_mm: float,
    ) -> Iterator[Layer]:
        petrous = nearest((*PETROUS, *MASTOID), side, margin_mm + 3)
        if petrous is not None:
            yield Layer(Tissue.BONE, np.maximum(petrous - 2, skin + 5))
        shell = cavity - skull
        if q.low[2] < -55:
            # Around the spinal canal the same shells make a row of rings.
            shell = np.where(cranium > skull + 4, cavity - 4 - 3.5 * np.sin(0.34 * q.z), shell)
        if float(shell.min()) < margin_mm:
            slow = np.sin(0.043 * q.x + self.phases[1]) * np.sin(0.039 * q.z + 0.03 * q.y + self.phases[2])
            fine = np.sin(1.25 * q.x + self.phases[0]) * np.sin(1.15 * q.y + self.phases[1]) * np.sin(1.2 * q.z)
            yield Layer(Tissue.OUTER_TABLE, shell, slow)
            yield Layer(Tissue.DIPLOE, shell + 1.9, fine)
            yield Layer(Tissue.INNER_TABLE, np.maximum(shell + 1.9, cavity - 1.7), slow)
        cells = nearest(MASTOID, side, margin_mm)
        if cells is not None:
            walls = np.sin(0.75 * q.x) * np.cos(0.7 * q.y) + np.sin(0.7 * q.y) * np.cos(0.72 * q.z)
            cells = np.maximum(np.maximum(cells, 3 - cavity), (0.18 - np.abs(walls)) * 2.2)
            yield Layer(Tissue.AIR, np.maximum(cells, skin + 7))
        for sinus in (FRONTAL_SINUS, SPHENOID_SINUS):
            distance = nearest(sinus, q, margin_mm + 2)
            if distance is not None:
                yield Layer(Tissue.BONE, distance - 1.6)
                yield Layer(Tissue.AIR, np.maximum(distance, 1.5 - np.abs(q.x - 0.5)))
        canal = nearest(EAR_CANAL, side, margin_mm)
        if canal is not None:
            yield Layer(Tissue.AIR, canal)

    def _brain(self, q: Points, side: Points, cavity: Float32Array, margin_mm: float) -> Iterator[Layer]:
        yield Layer(Tissue.CSF, cavity)
        # A tent, high in the middle, divides cerebrum from cerebellum.
        tent = (q.z - 2 + 0.42 * side.x + 0.1 * (q.y - 45)) * 0.9
        hollow = HOLLOW.distance(q)
        fossa = np.maximum(tent, hollow)
        # The fissure between the hemispheres ends at the corpus callosum.
        callosum = (1 - np.sqrt(((q.y - 4) * (1 / 43)) ** 2 + ((q.z - 2) * (1 / 27)) ** 2 + 1e-6)) * 30
        fissure = hypotenuse(q.x, np.maximum(callosum, 0))
        hull = -cavity - 2.2
        inside = self._folded(q, side, np.minimum(hull, np.minimum(fossa - 2, fissure - 1.4)))
        yield Layer(Tissue.GREY_MATTER, -inside)
        yield Layer(Tissue.WHITE_MATTER, 2.8 - inside)
        if float(fossa.min()) < margin_mm:
            below = np.minimum(hull, -fossa - 2)
            leaves = np.abs(np.sin(0.62 * (q.z + 0.45 * q.y) + 0.6 * np.sin(0.12 * q.x))) * 1.6
            folia = np.minimum(below, hypotenuse(leaves, np.maximum(below - 10, 0)) - 0.25)
            yield Layer(Tissue.GREY_MATTER, np.maximum(-folia, fossa))
            yield Layer(Tissue.WHITE_MATTER, np.maximum(1.25 - np.minimum(folia, below - 1.5), fossa))
        falx = np.maximum(np.maximum(np.abs(q.x) - 0.8, callosum + 4), np.maximum(6 - fossa, -12 - q.z))
        yield Layer(Tissue.DURA, np.maximum(falx, cavity))
        tentorium = np.maximum(np.maximum(np.abs(tent) - 0.8, hollow), 22 - side.x * 1.6)
        yield Layer(Tissue.DURA, np.maximum(tentorium, cavity))
        cistern = nearest((*BRAINSTEM, CHIASM_CISTERN), q, margin_mm + 3)
        if cistern is not None:
            yield Layer(Tissue.CSF, np.maximum(np.maximum(cistern - 2.5, q.z + 16), cavity))
            stem = nearest(BRAINSTEM, q, margin_mm)
            if stem is not None:
                yield Layer(Tissue.WHITE_MATTER, np.maximum(stem, cavity + 1.5))
        nuclei = nearest(NUCLEI, side, margin_mm)
        if nuclei is not None:
            yield Layer(Tissue.DEEP_GREY, nuclei)
        yield from self._ventricles_and_lesions(q, inside, margin_mm)

    def _folded(self, q: Points, side: Points, depth: Float32Array) -> Float32Array:
        """Return the depth below the folded surface of the cortex, from the depth below its smooth hull, mm.

        The sulci are sheets where a gyroid vanishes, bent further so that no two gyri are alike, 8 to 14 mm deep.
        """
        k = float(2 * np.pi / self.sulcus_mm)
        a, b, c = self.phases
        u = k * q.x + 1.1 * np.sin(0.055 * q.y + 0.03 * q.z + a)
        v = k * q.y + 1.1 * np.sin(0.05 * q.z + 0.04 * q.x + b)
        w = k * q.z + 1.1 * np.sin(0.06 * q.x + 0.03 * q.y + c)
        gyroid = np.sin(u) * np.cos(v) + np.sin(v) * np.cos(w) + np.sin(w) * np.cos(u)
        sheet = np.abs(gyroid) * (1 / (1.4 * k))
        sulci = hypotenuse(sheet, np.maximum(depth - 11 - 3 * np.sin(0.4 * u - 0.3 * v), 0)) - 0.7
        # The Sylvian fissure, from the insula outwards, rising towards the back.
        slope = q.z + 9 - 0.3 * q.y + 0.3 * (side.x - 50) + 2 * np.sin(0.13 * q.y)
        sylvian = hypotenuse(slope * 0.9, np.maximum(np.maximum(37 - side.x, np.abs(q.y + 6) - 28), 0)) - 1.1
        return union(depth, np.minimum(sulci, sylvian), 3)

    def _ventricles_and_lesions(self, q: Points, inside: Float32Array, margin_mm: float) -> Iterator[Layer]:
        tumour = nearest([self.tumour], q, margin_mm + 16) if self.tumour else None
        lobes = np.float32(0)
        if tumour is not None:
            lobes = np.sin(0.22 * q.x + self.phases[0]) + np.sin(0.25 * q.y + self.phases[1]) + np.sin(0.2 * q.z)
            yield Layer(Tissue.OEDEMA, np.maximum(tumour - 7 - 2.2 * lobes, 2.8 - inside))
        for sign, width in zip((1, -1), self.ventricles, strict=True):
            horns = (*_widened(LATERAL_VENTRICLE, sign, width), *_widened(TEMPORAL_HORN, sign, width))
            ventricle = nearest(horns, q, margin_mm)
            if ventricle is not None:
                yield Layer(Tissue.VENTRICLE, ventricle)
        for tissue, shapes in ((Tissue.VENTRICLE, MIDLINE_VENTRICLES), (Tissue.CALCIFICATION, CALCIFICATIONS)):
            distance = nearest(shapes, q, margin_mm)
            if distance is not None:
                yield Layer(tissue, distance)
        if tumour is not None:
            yield Layer(Tissue.TUMOUR_RIM, np.maximum(tumour - 0.9 * lobes, HAIR_MM - inside))
            yield Layer(Tissue.TUMOUR, np.maximum(tumour - 0.5 * lobes, HAIR_MM - inside) + 3.2)
        blood = nearest([self.haemorrhage], q, margin_mm) if self.haemorrhage else None
        if blood is not None:
            yield Layer(Tissue.BLOOD, np.maximum(blood, HAIR_MM - inside))


def _rod_strength(radius_mm: float, edge_mm: float) -> float:
    """Return what keeps a rod's cross-section when its edge is drawn `edge_mm` wide, which a thin rod's is not."""
    half = edge_mm / 2
    if radius_mm >= half:
        return radius_mm**2 / (radius_mm**2 + half**2 / 3)
    return 6 * half * radius_mm**2 / (radius_mm + half) ** 3


def _widened(nodes: tuple[Node, ...], sign: int, width: float) -> tuple[Cone, ...]:
    return tube(*((sign * x, y, z, r * width) for x, y, z, r in nodes))
