"""What is kept of a pair between jobs: never of other voxels or another grid, and of one pair only."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from BrainFusionLib import kept
from BrainFusionLib.case import Inputs, Request, Result, Source, run
from BrainFusionLib.geometry import Grid
from BrainFusionLib.intensity.inside import inside_skull
from BrainFusionLib.phantom import PhantomPair, make_pair
from BrainFusionLib.settings import RegistrationSettings, Settings
from BrainFusionLib.volume import Volume

SETTINGS = Settings(registration=RegistrationSettings(samples=10_000, search="local"), threads=1)


@pytest.fixture(autouse=True)
def keeping() -> Iterator[None]:
    kept.keep()
    yield
    kept.keep(False)


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return make_pair(spacing_mm=4.0)


def found(ct: Volume, mri: Volume, pair: PhantomPair) -> Result:
    request = Request(Source("CT"), Source("MRI"), settings=SETTINGS, start=pair.transform, fuse=False)
    return run(request, Inputs(ct, mri))


def same(a: Result, b: Result) -> bool:
    return (a.pose, a.evidence, a.verdict, a.notes) == (b.pose, b.evidence, b.verdict, b.notes)


def anew(ct: Volume, mri: Volume, pair: PhantomPair) -> Result:
    kept.keep(False)
    result = found(ct, mri, pair)
    kept.keep()
    return result


def copied(volume: Volume) -> Volume:
    return volume.with_array(volume.array_kji.copy())


def noise(seed: int = 0) -> Volume:
    return Volume(np.random.default_rng(seed).normal(size=(4, 5, 6)).astype(np.float32), Grid((6, 5, 4)))


class Finder:
    """Counts how often something is found."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> int:
        self.times += 1
        return self.times


def times_found(*volumes: Volume, first: Volume) -> int:
    """Return how often something is found in a job on one volume, and in one on each of the others after it."""
    finder = Finder()
    for volume in (first, *volumes):
        with kept.job(volume):
            kept.of(volume, "something", finder)
            kept.of(volume, "something", finder)
    return finder.times


def test_equal_voxels_on_an_equal_grid_are_known() -> None:
    assert times_found(copied(noise()), replace(noise(), name="another name"), first=noise()) == 1


def test_a_changed_voxel_spacing_position_direction_or_modality_is_not_known() -> None:
    volume = noise()
    array = volume.array_kji.copy()
    array[1, 2, 3] = np.nextafter(array[1, 2, 3], np.float32(9))
    grids = (
        replace(volume.grid, spacing_ijk_mm=(1.0, 1.0, 1.0 + 1e-12)),
        replace(volume.grid, origin_lps_mm=(0.0, 1e-12, 0.0)),
        replace(volume.grid, direction=np.diag([1.0, -1.0, 1.0])),
    )
    others = (volume.with_array(array), replace(volume, modality="CT"), *(replace(volume, grid=g) for g in grids))
    assert [times_found(other, first=volume) for other in others] == [2] * 5


def test_voxels_changed_in_place_between_two_jobs_are_not_known() -> None:
    volume, finder = noise(), Finder()
    for _ in range(2):
        with kept.job(volume):
            kept.of(volume, "something", finder)
        volume.array_kji[0, 0, 0] += 1
    assert finder.times == 2


def test_only_the_last_pair_is_kept() -> None:
    assert times_found(noise(1), noise(), first=noise()) == 3


def test_nothing_is_kept_outside_a_job_or_by_a_process_that_does_not_ask() -> None:
    volume, finder = noise(), Finder()
    for _ in range(2):
        kept.of(volume, "something", finder)
    kept.keep(False)
    assert (finder.times, times_found(volume, first=volume)) == (2, 4)


def test_results_from_a_known_pair_and_from_one_changed_after_it_was_known_are_those_of_new_ones(
    pair: PhantomPair,
) -> None:
    before = anew(pair.ct, pair.mri, pair)
    assert all(same(before, found(copied(pair.ct), copied(pair.mri), pair)) for _ in range(2))

    inside = inside_skull(pair.ct)
    assert inside is not None
    k, j, i = np.argwhere(inside.depth_on(pair.ct.grid) > 20)[0]
    with_air = copied(pair.ct)
    with_air.array_kji[k - 4 : k + 4, j - 4 : j + 4, i - 4 : i + 4] = -1000
    along_i, along_j, along_k = pair.mri.grid.spacing_ijk_mm
    longer = replace(pair.mri, grid=replace(pair.mri.grid, spacing_ijk_mm=(along_i, along_j, 1.04 * along_k)))
    after = found(with_air, longer, pair)
    assert before.evidence.inside is not None
    assert after.evidence.inside is not None
    assert after.evidence.inside.air_ml > before.evidence.inside.air_ml + 2
    assert before.pose != after.pose
    assert same(after, anew(with_air, longer, pair))
