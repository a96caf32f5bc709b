"""Wrong arguments of the public functions and classes are refused by name, and not met deep inside."""

from __future__ import annotations

import inspect
import os
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest

import BrainFusionLib
from BrainFusionLib import AffineTransform, Grid, RigidTransform, Settings, Volume, arguments
from BrainFusionLib.cohort import read_bids, read_folders, read_manifest, run_cohort
from BrainFusionLib.error_map import ErrorMap
from BrainFusionLib.errors import BrainFusionError, GeometryError, ImageFileError, SettingsError
from BrainFusionLib.landmarks import Landmarks
from BrainFusionLib.metrics.fusion import measure
from BrainFusionLib.settings import FusionSettings, OutputSettings, RegistrationSettings, SearchPass

GRID = Grid((4, 4, 4))
VOLUME = Volume(np.zeros((4, 4, 4)), GRID)
RIGID, AFFINE = RigidTransform.identity(), AffineTransform(np.eye(4))
POINTS = np.eye(3)
LANDMARKS = Landmarks(("a", "b", "c"), POINTS, POINTS)
SOURCE = BrainFusionLib.Source("x")
MAP = ErrorMap.of(np.ones((4, 4, 4)), GRID, 2.0)
# Of each parameter without a default, what is accepted.
GOOD = {
    "angle_deg": 3.0, "array_kji": np.zeros((4, 4, 4)), "axis": (0, 0, 1), "candidates": 9, "centre_lps_mm": (0, 0, 0),
    "ct": VOLUME, "ct_lps_mm": POINTS, "entry_lps_mm": (0, 0, 0), "first": RIGID, "fixed_point_lps_mm": (0, 0, 0),
    "fixed_points_lps_mm": POINTS, "grid": GRID, "inputs": BrainFusionLib.Inputs(VOLUME, VOLUME),
    "lps_from_ijk": np.eye(4), "moving_from_fixed_lps": np.eye(4), "mri": VOLUME, "mri_lps_mm": POINTS, "name": "x",
    "names": ("a", "b", "c"), "other": GRID, "path": "x.nrrd", "points_lps_mm": POINTS, "rotation": np.eye(3),
    "request": BrainFusionLib.Request(SOURCE, SOURCE), "rotations": 9, "size_ijk": (4, 4, 4),
    "spacing_ijk_mm": (1, 1, 1), "target_lps_mm": (0, 0, 1), "to_from_from_lps": np.eye(4), "transform": RIGID,
    "translation_mm": (0, 0, 0), "volume": VOLUME, "root": "cohort", "entries": (), "folder": "results",
}  # fmt: skip
OF_REQUEST = {"ct": SOURCE, "mri": SOURCE}
# Choices of words and other things that the functions check themselves.
OWN_CHECKS = {
    "acquisition", "align", "between", "device", "form", "grid of OutputSettings", "modality", "model", "moved",
    "reference", "search", "series", "sha256",
}  # fmt: skip
FUNCTIONS = [
    *(getattr(BrainFusionLib, name) for name in BrainFusionLib.__all__ if name[0].islower()),
    read_manifest, read_folders, read_bids, run_cohort, measure,
]  # fmt: skip
# Those that take a path.
WITH_PATHS = [
    (function, name)
    for function in FUNCTIONS
    for name in ("path", "root", "folder")
    if name in inspect.signature(function).parameters
]
CLASSES = [
    AffineTransform, Grid, RigidTransform, Settings, Volume, BrainFusionLib.Inputs, BrainFusionLib.Request, Landmarks,
    RegistrationSettings, FusionSettings, OutputSettings, SearchPass,
]  # fmt: skip
METHODS = [
    GRID.with_spacing, GRID.moved, GRID.same_as, Grid.from_lps_from_ijk, RIGID.apply, RIGID.shift_at, RIGID.describe,
    RigidTransform.from_axis_angle, RigidTransform.about_centre, AFFINE.apply, AFFINE.describe,
    AFFINE.nearest_rigid, LANDMARKS.residuals, MAP.at, MAP.bound_at, MAP.along,
]  # fmt: skip


def parameters():
    for function in [*FUNCTIONS, *CLASSES, *METHODS]:
        for name in inspect.signature(function).parameters:
            own = f"{name} of {function.__name__}"
            if not OWN_CHECKS & {name, own}:
                yield pytest.param(function, name, id=f"{function.__qualname__}-{name}")


def call(function, **changes):
    """Call with good arguments but for the changes."""
    needed = {n for n, p in inspect.signature(function).parameters.items() if p.default is p.empty}
    good = {**GOOD, **(OF_REQUEST if function is BrainFusionLib.Request else {})}
    good |= {name: np.zeros((16, 16)) for name in ("fused", "ct", "mri") if function is measure}
    return function(**{**{name: good[name] for name in needed}, **changes})


@pytest.mark.parametrize(("function", "name"), list(parameters()))
def test_an_argument_of_another_kind_is_refused_by_its_name(function, name):
    with pytest.raises(BrainFusionError, match=f"^{name} must be .*; got (an object|<object)"):
        call(function, **{name: object()})


def test_every_public_class_with_fields_is_tried():
    public = [getattr(BrainFusionLib, name) for name in BrainFusionLib.__all__ if name[0].isupper()]
    made_by_callers = {kind for kind in public if is_dataclass(kind)} - {BrainFusionLib.Result, BrainFusionLib.Source}
    assert made_by_callers <= set(CLASSES)


@pytest.mark.parametrize("kind", CLASSES)
def test_what_a_class_makes_of_good_arguments_is_taken_again(kind):
    made = call(kind)
    assert kind(**{field.name: getattr(made, field.name) for field in fields(kind)}) == made


def test_exchanged_arguments_are_answered_with_the_order():
    with pytest.raises(SettingsError, match=r"grid must be a Grid; got a Volume: volume\.grid is one") as refused:
        BrainFusionLib.resample_onto(VOLUME, VOLUME)
    assert "The call is resample_onto(volume, grid, transform, fill=…, device=…)." in str(refused.value)
    with pytest.raises(SettingsError, match="volume must be a Volume; got a Grid"):
        BrainFusionLib.resample_onto(GRID, VOLUME)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((4, 4, 4), 1.0), r"spacing_ijk_mm must be three numbers; got 1\.0"),
        ((4,), "size_ijk must be three whole numbers; got 4"),
        (((4, 4),), r"size_ijk must be three whole numbers; got \(4, 4\)"),
        (("444",), "size_ijk must be three whole numbers; got '444'"),
        (((4, 4, 4), (1, 1, 1), (0, 0, 0), "RAS"), "direction must be an array of numbers; got 'RAS'"),
    ],
)
def test_a_grid_says_which_of_its_arguments_is_wrong(arguments, words):
    with pytest.raises(GeometryError, match=words):
        Grid(*arguments)


def test_numbers_of_numpy_and_lists_are_taken():
    assert Grid(np.array([4, 4, 4]), [np.float32(1), 1, 1], np.zeros(3), np.eye(3).tolist()) == GRID
    assert RegistrationSettings(seed=0, passes=RegistrationSettings().passes) == RegistrationSettings()
    assert Volume(np.zeros((4, 4, 4)).tolist(), GRID) == VOLUME


def test_numbers_of_torch_are_taken_as_sizes():
    torch = pytest.importorskip("torch")
    sizes = torch.tensor([4, 4, 4])
    assert Grid(sizes, torch.ones(3), torch.zeros(3), torch.eye(3)) == GRID
    assert Grid(tuple(sizes)) == GRID
    for wrong in (torch.tensor(4), torch.tensor([4, 4]), torch.tensor([True, True, True])):
        with pytest.raises(GeometryError, match="size_ijk must be three whole numbers"):
            Grid(wrong)
    with pytest.raises(GeometryError, match=r"needed: tensor\.detach\(\)\.cpu\(\)"):
        Volume(torch.zeros(4, 4, 4, requires_grad=True), GRID)


@pytest.mark.parametrize("other", [3, None, np.eye(4), np.zeros((5, 3)), AFFINE])
def test_what_is_no_rigid_transform_after_an_at_sign_is_refused_with_the_way_to_map_points(other):
    with pytest.raises(SettingsError, match=r"@ other needs another RigidTransform; got .*apply\(points\) maps points"):
        RIGID @ other


def test_an_array_before_an_at_sign_is_refused_by_its_class():
    with pytest.raises(TypeError, match=r"'numpy\.ndarray' and 'RigidTransform'"):
        np.eye(4) @ RIGID


@pytest.mark.parametrize(("function", "name"), WITH_PATHS)
def test_an_empty_path_is_refused_and_is_not_the_current_folder(function, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=f"^{name} must be a path, but it is empty"):
        call(function, **{name: ""})
    assert not list(tmp_path.iterdir())


def test_the_current_folder_in_the_place_of_a_file_is_named_as_that(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read in (BrainFusionLib.read_volume, BrainFusionLib.read_transform, read_manifest):
        with pytest.raises(ImageFileError, match=r"^the current folder: "):
            read(Path())
    with pytest.raises(ImageFileError, match=r"^the current folder: .* under a name without an ending"):
        BrainFusionLib.write_volume(VOLUME, Path())


def test_the_path_of_a_table_in_the_place_of_its_cases_is_refused_with_the_way_to_read_it():
    with pytest.raises(
        SettingsError, match=r"entries must be a sequence, each of it an Entry; .*read_manifest\(path\)"
    ):
        run_cohort("cohort.csv", "results")


@pytest.mark.parametrize(
    ("function", "name", "shape"),
    [(Volume, "array_kji", (4, 4, 4)), (RIGID.apply, "fixed_points_lps_mm", (5, 3)), (measure, "ct", (16, 16))],
)
def test_a_masked_array_is_refused_unless_nothing_is_masked(function, name, shape):
    array = np.ma.array(np.zeros(shape))
    call(function, **{name: array})
    array[0] = np.ma.masked
    with pytest.raises(BrainFusionError, match=rf"{name} is a masked array.*{name}\.filled\(number\)"):
        call(function, **{name: array})


@pytest.mark.parametrize("kind", [object, complex, "f4,f4", "S5", "M8[s]"])
def test_an_array_of_anything_but_numbers_is_refused(kind):
    for function, name, shape in ((Volume, "array_kji", (4, 4, 4)), (measure, "ct", (16, 16))):
        with pytest.raises(BrainFusionError, match=f"{name} must be an array of numbers; got a ndarray"):
            call(function, **{name: np.zeros(shape, kind)})


def test_an_array_in_the_order_of_nibabel_is_refused_with_the_way_to_turn_it():
    with pytest.raises(GeometryError, match=r"needs \(6, 5, 4\)\. If its order is i, j, k.*array\.T"):
        Volume(np.zeros((4, 5, 6)), Grid((4, 5, 6)))


def test_directions_of_simpleitk_are_refused_with_the_way_to_shape_them():
    with pytest.raises(GeometryError, match=r"Give np\.reshape\(direction, \(3, 3\)\)"):
        Grid((4, 4, 4), direction=np.eye(3).ravel())


@pytest.mark.parametrize("points", [(1.0, 2.0), [[1.0, 2.0]], 3.0, "0 0 0"])
def test_points_have_three_coordinates(points):
    with pytest.raises(SettingsError, match="fixed_points_lps_mm must be points of three coordinates each"):
        RIGID.apply(points)


def test_every_hint_is_about_a_class_that_callers_know():
    known = {*BrainFusionLib.__all__, "Entry", *(kind.__name__ for kind in CLASSES)}
    assert set(arguments.HOW) <= known


def test_a_missing_or_unknown_argument_is_told_with_the_functions_name():
    with pytest.raises(TypeError, match=r"fuse\(\) missing 1 required positional argument: 'mri'"):
        BrainFusionLib.fuse(VOLUME)
    with pytest.raises(TypeError, match=r"fuse\(\) got an unexpected keyword argument 'masks'"):
        BrainFusionLib.fuse(VOLUME, VOLUME, masks=None)


@pytest.mark.parametrize("read", [BrainFusionLib.read_case, BrainFusionLib.read_volume, BrainFusionLib.read_transform])
def test_what_stands_for_a_path_is_taken_as_one(read, tmp_path):
    class Entry(os.PathLike):
        def __fspath__(self):
            return str(tmp_path / "none.nrrd")

    with pytest.raises(ImageFileError, match="there is no such file"):
        read(Entry())
