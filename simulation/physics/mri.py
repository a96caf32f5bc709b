"""An MRI of a head by a magnet: signal, distortion, coil, slices, motion, noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from BrainFusionLib.geometry import FloatArray, Grid, rotation_matrix
from BrainFusionLib.volume import Volume, VoxelArray
from simulation.physics.anatomy import Anatomy, distance_mm
from simulation.physics.magnet import Magnet, head_field
from simulation.physics.sampling_torch import pulled, read_out, smooth_on
from simulation.physics.slices import slice_stack
from simulation.physics.strengths import MriProtocol, MriScanner, Patient
from simulation.render import signal, smooth_noise
from simulation.tissues import APPEARANCE, BONE, BRAIN, CODES, Coarse, CodeArray

# Columns: where the index axes point, LPS, and which extents (left-right, front-back, feet-head) they have.
PLANES = {
    "axial": (np.eye(3), (0, 1, 2)),
    "sagittal": (np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]), (1, 2, 0)),
    "coronal": (np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), (0, 2, 1)),
}
# Share of fat in the signal: the marrow of the vault is yellow; where its brightness is drawn, nearly all of it is fat.
FAT_SHARE = {Coarse.FAT: 1.0, Coarse.CANCELLOUS: 0.6}
YELLOW_SHARE = 0.9
# Where the field is stronger than this, gradient echoes have no signal.
VOID_PPM = 12.0
# Signal varies inside a tissue by so much, as a share.
UNEVEN = 0.09


def mri_grid(anatomy: Anatomy, protocol: MriProtocol, random: np.random.Generator) -> Grid:
    """Lay the slices around the head, turned by up to the protocol's obliqueness."""
    axes, extents = PLANES[protocol.plane]
    spacing = (protocol.pixel_mm, protocol.pixel_mm, protocol.thickness_mm + protocol.gap_mm)
    i, j, k = (max(2, round(protocol.field_of_view_mm[e] / s)) for e, s in zip(extents, spacing, strict=True))
    turn = np.eye(3)
    if protocol.oblique_deg:
        turn = rotation_matrix(random.normal(0, 1, 3), protocol.oblique_deg * random.uniform(0.5, 1))
    direction = turn @ axes
    at = anatomy.head.centre_lps_mm + np.array([0.0, 0.0, protocol.up_mm]) + random.uniform(-4, 4, 3)
    around_origin = Grid((i, j, k), spacing, (0.0, 0.0, 0.0), direction)
    x, y, z = (float(v) for v in at - around_origin.centre_lps_mm)
    return Grid((i, j, k), spacing, (x, y, z), direction)


def magnet_for(anatomy: Anatomy, scanner: MriScanner, protocol: MriProtocol, patient: Patient, grid: Grid) -> Magnet:
    """Return where a scanner draws the points of a head in slices on a grid."""
    field, field_grid = None, anatomy.coarse_grid
    if patient.susceptibility or patient.dental_mm:
        field, field_grid = head_field(anatomy, patient.dental_mm, patient.dental_ppm)
        field = field * np.float32(patient.susceptibility or 1.0)
    isocentre = anatomy.head.centre_lps_mm - np.asarray(patient.isocentre_mm)
    readout = protocol.polarity * grid.direction[:, protocol.readout]
    return Magnet(scanner, protocol, isocentre, readout, grid.direction[:, 2], field, field_grid)


def mri_image(
    anatomy: Anatomy,
    tissue_kji: CodeArray,
    magnet: Magnet,
    grid: Grid,
    patient: Patient,
    look: np.random.Generator,
    noise: np.random.Generator,
) -> Volume:
    """Return the MRI, in whole numbers on a scale of its own."""
    protocol = magnet.protocol
    water, fat, white = _signals(anatomy, tissue_kji, protocol, patient.marrow, look)
    if patient.membranes_mm:
        bright = _beside_membranes(anatomy, patient.membranes_mm)
        water, fat = water * bright, fat * bright
    stack = slice_stack(grid, protocol.thickness_mm)
    offset = magnet.fat_offset_mm
    if np.linalg.norm(offset) < 1e-6:
        image = pulled((water + fat)[None], anatomy.grid, stack.fine, magnet.before_readout, 0.0)[0]
    else:
        image = pulled(water[None], anatomy.grid, stack.fine, magnet.before_readout, 0.0)[0]
        image += pulled(fat[None], anatomy.grid, stack.fine, lambda y: magnet.before_readout(y - offset), 0.0)[0]
    if magnet.field_ppm is not None:
        ppm = smooth_on(stack.fine, lambda y: magnet.ppm(magnet.before_readout(y)), 3.0)
        if protocol.volumetric and protocol.contrast in ("T1", "T1C"):
            image *= np.exp(-((ppm / np.float32(VOID_PPM)) ** 2))
        step = protocol.polarity * protocol.mm_per_ppm(magnet.scanner.field_t) / protocol.pixel_mm
        image = read_out(image, ppm * np.float32(step), protocol.readout)
    image = stack.averaged(image)
    if protocol.bias > 1.01:
        image = image * coil(anatomy, grid, protocol.bias, look)
    if patient.motion_mm:
        image = _with_motion(image, patient.motion_mm / protocol.pixel_mm, protocol.readout, look)
    sigma = np.float32(white / protocol.snr)
    real = sigma * noise.standard_normal(image.shape, dtype=np.float32)
    # The imaginary channel is the real one's noise mirrored in all axes: nobody can tell, and it is free.
    image += real
    image *= image
    image += np.square(real[::-1, ::-1, ::-1])
    np.sqrt(image, out=image)
    image *= np.float32(look.uniform(200, 1500))
    return Volume(np.rint(image), grid, "MR", f"MRI {protocol.contrast}")


def coil(anatomy: Anatomy, grid: Grid, ratio: float, random: np.random.Generator) -> VoxelArray:
    """Return the coil's sensitivity, up to `ratio` times as high at the rim of the head as in the middle."""
    centre = anatomy.head.centre_lps_mm + np.array([0.0, 0.0, -10.0])
    # A ring of elements, unequally near: often the back ones are nearest.
    turn = random.uniform(0, 2 * np.pi) + np.arange(7) * 2 * np.pi / 7
    reach = random.uniform(95, 135, 7)
    height = random.uniform(-50, 60, 7)
    places = centre + np.stack([reach * np.sin(turn), 1.15 * reach * np.cos(turn), height], axis=-1)
    gains = random.uniform(0.4, 1.0, 7)
    size = random.uniform(35, 70)

    def sensitivity(points: FloatArray) -> FloatArray:
        squares = np.zeros(points.shape[:-1])
        for place, gain in zip(places, gains, strict=True):
            near = np.sum((points - place) ** 2, axis=-1) / size**2
            squares += (gain / (1 + near)) ** 2
        return np.sqrt(squares)

    values = smooth_on(grid, sensitivity, 12.0)
    ijk = (anatomy.head.points_lps_mm - grid.lps_from_ijk[:3, 3]) @ grid.direction / grid.spacing_ijk_mm
    i, j, k = np.clip(np.rint(ijk).astype(int), 0, np.asarray(grid.size_ijk) - 1).T
    low, high = np.percentile(values[k, j, i], (2, 98))
    power = np.log(ratio) / np.log(high / low)
    made: VoxelArray = np.clip(values / np.float32(low), 0.3, 2.5 * high / low) ** np.float32(power)
    return made / np.float32(np.sqrt(ratio))


def _signals(
    anatomy: Anatomy, tissue_kji: CodeArray, protocol: MriProtocol, marrow: float, look: np.random.Generator
) -> tuple[VoxelArray, VoxelArray, float]:
    """Return the signals of water and of fat on the head's grid, and that of white matter."""
    both = signal(tissue_kji, anatomy.texture, protocol.contrast, look)
    own = smooth_noise(tissue_kji.shape, 7 / anatomy.grid.spacing_ijk_mm[0], look)
    own += smooth_noise(tissue_kji.shape, 22 / anatomy.grid.spacing_ijk_mm[0], look)
    own *= np.float32(UNEVEN)
    own += 1
    both *= own
    share = np.zeros(CODES, np.float32)
    for tissue, part in FAT_SHARE.items():
        share[tissue] = part
    if marrow:
        fat_signal, usual = (APPEARANCE[t].signal[protocol.contrast] for t in (Coarse.FAT, Coarse.CANCELLOUS))
        both[tissue_kji == Coarse.CANCELLOUS] *= np.float32(marrow * fat_signal / usual)
        share[Coarse.CANCELLOUS] = YELLOW_SHARE
    fat = share[tissue_kji] * both
    both -= fat
    fat *= np.float32(1 - protocol.fat_suppressed)
    white = float(np.median(both[::4, ::4, ::4][tissue_kji[::4, ::4, ::4] == BRAIN[1]]))
    return both, fat, white


# The distance takes seconds.
@lru_cache(maxsize=8)
def _beside_membranes(anatomy: Anatomy, most_mm: float) -> VoxelArray:
    """Return 1, less where dark membranes on the bone fill a part of the voxel; how thick they are changes over 4 cm.

    They belong to the head, so each head always has the same.
    """
    spacing, tissue_kji = anatomy.grid.spacing_ijk_mm[0], anatomy.head.tissue_kji
    random = np.random.default_rng(list(anatomy.head.name.encode()))
    thickness = most_mm * (0.5 + 0.5 * np.clip(smooth_noise(tissue_kji.shape, 40 / spacing, random), -1, 1))
    bone = np.isin(tissue_kji, BONE)
    # From the surface of the bone, which is half a voxel before the first voxel outside.
    outside = distance_mm(bone, anatomy.grid) - 0.5 * spacing
    shown: VoxelArray = np.where(bone, 1, np.clip((outside - thickness) / spacing + 0.5, 0, 1)).astype(np.float32)
    return shown


def _with_motion(image_kji: VoxelArray, steps_voxels: float, readout: int, random: np.random.Generator) -> VoxelArray:
    """Shift the head while outer lines of k-space are taken: ghosts and ringing along the phase direction.

    The lines in the middle, which say where the head is, stay; so the truth does.
    """
    space = np.fft.fft2(image_kji, axes=(1, 2))
    v, u = np.meshgrid(*(np.fft.fftfreq(n) for n in image_kji.shape[1:]), indexing="ij")
    phase_axis = v if readout == 0 else u
    for _ in range(int(random.integers(1, 4))):
        start = random.uniform(0.06, 0.3)
        taken = (phase_axis * random.choice([-1.0, 1.0]) > start) & (np.abs(phase_axis) < start + 0.15)
        dv, du = random.uniform(-1, 1, 2) * steps_voxels
        space[:, taken] *= np.exp(-2j * np.pi * (v * dv + u * du))[taken]
    # Nor are the last lines taken: Gibbs' ringing.
    space[:, np.abs(phase_axis) > random.uniform(0.4, 0.5)] = 0
    return np.abs(np.fft.ifft2(space, axes=(1, 2))).astype(np.float32)
