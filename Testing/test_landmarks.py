"""Landmarks: files in every frame, residuals against independent computation, starts, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from BrainFusionLib import fuse
from BrainFusionLib.case import Result, Source, from_document, to_document
from BrainFusionLib.cli.main import main
from BrainFusionLib.errors import GeometryError, ImageFileError, SettingsError
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.io import write_transform, write_volume
from BrainFusionLib.io.landmark_files import read_landmarks
from BrainFusionLib.landmarks import LandmarkFit, Landmarks
from BrainFusionLib.phantom import PhantomPair, make_pair
from BrainFusionLib.registration import register
from BrainFusionLib.report.landmarks import pixels_of
from BrainFusionLib.report.pictures import PLANES, plane_pictures, prepare_scene
from BrainFusionLib.report.report import report_html
from BrainFusionLib.settings import FusionSettings, RegistrationSettings, Settings
from BrainFusionLib.transform import AffineTransform, RigidTransform
from BrainFusionLib.verdict.judge import judge

MRI = np.array([[10.0, 20.0, 30.0], [-40.0, 5.0, 12.0], [3.0, -50.0, 41.0], [22.0, 31.0, -35.0]])
TURN = RigidTransform.from_axis_angle([1, 2, 3], 25.0, [4.0, -7.0, 11.0])
CT = TURN.apply(MRI)
NAMES = ("AC", "PC", "left", "right")


def table(path: Path, ct: FloatArray = CT, mri: FloatArray = MRI) -> Path:
    rows = [",".join(map(repr, [*a.tolist(), *b.tolist()])) for a, b in zip(ct, mri, strict=True)]
    lines = [f"{name},{row}" for name, row in zip(NAMES, rows, strict=False)]
    path.write_text("\n".join(["name,ct_x,ct_y,ct_z,mri_x,mri_y,mri_z", *lines]))
    return path


def markups(
    path: Path, lps: FloatArray, frame: object = "LPS", names: tuple[str, ...] = NAMES, **first: object
) -> Path:
    signs = np.array([-1, -1, 1]) if frame in ("RAS", "0") else 1
    points: list[dict[str, object]] = [
        {"id": str(n), "label": name, "position": point, "positionStatus": "defined"}
        for n, (name, point) in enumerate(zip(names, (lps * signs).tolist(), strict=True), 1)
    ]
    points[0].update(first)
    markup = {"type": "Fiducial", "coordinateSystem": frame, "coordinateUnits": "mm", "controlPoints": points}
    path.write_text(json.dumps({"markups": [markup]}))
    return path


def fcsv(path: Path, lps: FloatArray, frame: str, placed: str = "") -> Path:
    signs = np.array([-1, -1, 1]) if frame in ("RAS", "0") else 1
    lines = ["# Markups fiducial file version = 4.11", f"# CoordinateSystem = {frame}",
             "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"]  # fmt: skip
    for name, (x, y, z) in zip(NAMES, lps * signs, strict=True):
        lines.append(f"node_{name},{x!r},{y!r},{z!r},0,0,0,1,1,1,0,{name},,{placed}".replace("np.float64", ""))
    path.write_text("\n".join(lines).replace("(", "").replace(")", ""))
    return path


def test_a_table_is_read_as_lps(tmp_path: Path) -> None:
    read = read_landmarks([table(tmp_path / "points.csv")])
    assert read == Landmarks(NAMES, CT, MRI)


@pytest.mark.parametrize("frame", ["LPS", "RAS"])
def test_point_lists_in_json_are_read_in_both_frames(tmp_path: Path, frame: str) -> None:
    paths = [markups(tmp_path / "ct.mrk.json", CT, frame), markups(tmp_path / "mri.mrk.json", MRI, "LPS")]
    assert read_landmarks(paths) == Landmarks(NAMES, CT, MRI)


@pytest.mark.parametrize("frame", ["LPS", "RAS", "0", "1"])
def test_fcsv_files_are_read_in_all_frames_and_old_numbers(tmp_path: Path, frame: str) -> None:
    paths = [fcsv(tmp_path / "ct.fcsv", CT, frame), fcsv(tmp_path / "mri.fcsv", MRI, "RAS", ",2,0")]
    read = read_landmarks(paths)
    np.testing.assert_allclose(read.ct_lps_mm, CT, rtol=0, atol=1e-12)
    np.testing.assert_allclose(read.mri_lps_mm, MRI, rtol=0, atol=1e-12)


def test_points_are_paired_by_label_whatever_their_order(tmp_path: Path) -> None:
    paths = [markups(tmp_path / "ct.mrk.json", CT), markups(tmp_path / "m.mrk.json", MRI[::-1], names=NAMES[::-1])]
    assert read_landmarks(paths) == Landmarks(NAMES, CT, MRI)


def test_points_without_common_labels_are_paired_by_order(tmp_path: Path) -> None:
    other = ("M-1", "M-2", "M-3", "M-4")
    paths = [markups(tmp_path / "ct.mrk.json", CT), markups(tmp_path / "m.mrk.json", MRI, names=other)]
    assert read_landmarks(paths) == Landmarks(NAMES, CT, MRI)


def test_a_table_of_a_german_spreadsheet_is_read(tmp_path: Path) -> None:
    path = table(tmp_path / "points.csv")
    path.write_bytes(path.read_text().replace(",", ";").replace(".", ",").encode("utf-16"))
    assert read_landmarks([path]) == Landmarks(NAMES, CT, MRI)
    path.write_bytes("name;ct_x;ct_y;ct_z;mri_x;mri_y;mri_z\nÄ;1;2;3;4;5;6".encode("cp1252"))
    with pytest.raises(ImageFileError, match="Excel: CSV UTF-8"):
        read_landmarks([path])


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_fit_at_landmarks_is_that_of_an_independent_program(flat: bool, mirrored: bool) -> None:
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    random = np.random.default_rng(3)
    mri = random.normal(0, 40, (6, 3)) * [1, 1, 0 if flat else 1]
    ct = TURN.apply(mri * [-1 if mirrored else 1, 1, 1]) + random.normal(0, 1, (6, 3))
    expected = rotation.align_vectors(ct - ct.mean(axis=0), mri - mri.mean(axis=0))[0].as_matrix()
    fit = Landmarks(tuple("abcdef"), ct, mri).rigid_fit()
    np.testing.assert_allclose(fit.rotation, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fit.apply(mri.mean(axis=0)), ct.mean(axis=0), rtol=0, atol=1e-9)


def test_points_that_were_not_placed_are_left_out_with_their_partner(tmp_path: Path) -> None:
    paths = [markups(tmp_path / "ct.mrk.json", CT, positionStatus="undefined", label="x"), markups(tmp_path / "m.mrk.json", MRI, names=("a", "b", "c", "d"))]  # fmt: skip  # noqa: E501
    assert read_landmarks(paths) == Landmarks(NAMES[1:], CT[1:], MRI[1:], 1)
    path = table(tmp_path / "points.csv")
    path.write_text(path.read_text() + "\nnot placed,,,,1,2,3\n")
    assert read_landmarks([path]) == Landmarks(NAMES, CT, MRI, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,ct_x,ct_y,ct_z,mri_x,mri_y\na,1,2,3,4,5", "lacks mri_z"),
        ("name,ct_x,ct_y,ct_z,mri_x,mri_y,mri_z\na,1,2,three,4,5,6", "must be a number"),
        ("name,ct_x,ct_y,ct_z,mri_x,mri_y,mri_z\na,1,2,nan,4,5,6", "must be a number"),
        ("name,ct_x,ct_y,ct_z,mri_x,mri_y,mri_z\na,1,2,3,4,5,6", "at least 2 landmarks"),
        ("name,ct_x,ct_y,ct_z,mri_x,mri_y,mri_z\n", "at least 2 landmarks"),
        ("", "lacks name"),
        ("name,ct_x,ct_y,ct_z,mri_x,mri_y,mri_z\na,1,5,2,3,4,5,6", "decimal point"),
        ("name;ct_x;ct_y;ct_z;mri_x;mri_y;mri_z\na;1,500;2.5;3;4;5;6", "decimal point.; got '1,500'"),
        ("\0\0\1", "is not a table"),
    ],
)
def test_a_bad_table_is_refused_with_its_name(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises((ImageFileError, GeometryError), match=words) as refused:
        read_landmarks([path])
    assert "points.csv" in str(refused.value)


@pytest.mark.parametrize("frame", ["IJK", "2", None, 7])
def test_points_in_an_unknown_frame_are_refused(tmp_path: Path, frame: object) -> None:
    bad = markups(tmp_path / "ct.mrk.json", CT, frame)
    with pytest.raises(ImageFileError, match="must be LPS or RAS"):
        read_landmarks([bad, markups(tmp_path / "mri.mrk.json", MRI)])
    with pytest.raises(ImageFileError, match="must be LPS or RAS"):
        read_landmarks([fcsv(tmp_path / "ct.fcsv", CT, str(frame)), markups(tmp_path / "mri.mrk.json", MRI)])


def test_lists_that_cannot_be_paired_and_a_single_list_are_refused(tmp_path: Path) -> None:
    ct = markups(tmp_path / "ct.mrk.json", CT)
    mri = markups(tmp_path / "mri.mrk.json", MRI[:3], names=("a", "b", "c"))
    with pytest.raises(GeometryError, match="cannot be paired"):
        read_landmarks([ct, mri])
    with pytest.raises(ImageFileError, match="one image only"):
        read_landmarks([ct])
    with pytest.raises(ImageFileError, match="must both be point lists"):
        read_landmarks([ct, table(tmp_path / "points.csv")])
    with pytest.raises(ImageFileError, match="no such file"):
        read_landmarks([tmp_path / "missing.csv"])


def test_residuals_agree_with_a_computation_by_hand() -> None:
    moved = CT + np.array([[3.0, 4.0, 0.0], [0, 0, 0], [0, 0, 1.0], [0, 0, 0]])
    found = Landmarks(NAMES, moved, MRI).residuals(TURN)
    np.testing.assert_allclose([p.residual_mm for p in found.points], [5, 0, 1, 0], atol=1e-9)
    np.testing.assert_allclose([found.median_mm, found.worst_mm], [0.5, 5.0], atol=1e-9)
    np.testing.assert_allclose(TURN.rotation @ found.points[0].shift_mm, [3, 4, 0], atol=1e-9)
    assert found.worst.name == "AC"


def test_residuals_of_an_affine_pose_are_in_the_mris_space() -> None:
    twice = AffineTransform(np.diag([2.0, 2.0, 2.0, 1.0]))
    found = Landmarks(NAMES, 2 * MRI + [2.0, 0.0, 0.0], MRI).residuals(twice)
    np.testing.assert_allclose([p.residual_mm for p in found.points], 1.0, atol=1e-9)


def test_the_rigid_fit_is_the_least_squares_one() -> None:
    noisy = CT + np.random.default_rng(0).normal(0, 1, CT.shape)
    marks = Landmarks(NAMES, noisy, MRI)
    fitted = marks.rigid_fit()
    # Independently: B. Horn's quaternion, the largest eigenvector.
    a, b = MRI - MRI.mean(axis=0), noisy - noisy.mean(axis=0)
    s = a.T @ b
    d = np.array([s[1, 2] - s[2, 1], s[2, 0] - s[0, 2], s[0, 1] - s[1, 0]])
    n = np.block([[np.trace(s), d[None]], [d[:, None], s + s.T - np.trace(s) * np.eye(3)]])
    w, x, y, z = np.linalg.eigh(n)[1][:, -1]
    horn = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    np.testing.assert_allclose(fitted.rotation, horn, atol=1e-9)
    np.testing.assert_allclose(fitted.apply(MRI.mean(axis=0)), noisy.mean(axis=0), atol=1e-9)


def test_too_few_points_or_points_on_a_line_are_no_start() -> None:
    line = np.outer(np.arange(4.0), [10.0, 5.0, 1.0])
    with pytest.raises(GeometryError, match="not on a line"):
        Landmarks(NAMES, TURN.apply(line), line).rigid_fit()
    with pytest.raises(GeometryError, match="at least 3"):
        Landmarks(NAMES[:2], CT[:2], MRI[:2]).rigid_fit()


def test_landmarks_beyond_bound_and_clicks_change_the_colour() -> None:
    codes = {}
    for name, median, worst in (("good", 1.0, 2.0), ("one far", 1.0, 30.0), ("all far", 20.0, 30.0)):
        verdict = judge(Evidence(landmarks=LandmarkFit(4, median, worst)))
        codes[name] = {f.code: f.level for f in verdict.findings if f.code.startswith("landmark")}
    assert codes["good"] == {}
    assert codes["one far"]["landmark_far"] == "amber"
    assert codes["all far"]["landmarks_far"] == "red"


# --- on a phantom ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return make_pair(2, spacing_mm=4.0)


@pytest.fixture(scope="module")
def marks(pair: PhantomPair) -> Landmarks:
    mri = pair.mri.grid.centre_lps_mm + MRI
    return Landmarks(NAMES, pair.transform.apply(mri), mri)


@pytest.fixture(scope="module")
def result(pair: PhantomPair, marks: Landmarks) -> Result:
    settings = Settings(fusion=FusionSettings("bone_over_mri"))
    moved = replace(marks, ct_lps_mm=marks.ct_lps_mm + np.outer([1, 0, 0, 0], [20.0, 0, 0]))
    return fuse(pair.ct, pair.mri, settings, transform=pair.transform, check=False, landmarks=moved)


def test_a_result_holds_the_residuals_and_the_pose_is_not_moved(pair: PhantomPair, result: Result) -> None:
    assert result.landmarks is not None
    np.testing.assert_allclose([result.landmarks.median_mm, result.landmarks.worst_mm], [0, 20], atol=1e-6)
    assert result.transform == pair.transform
    assert "landmark_far" in [finding.code for finding in result.verdict.findings]


def test_a_result_with_landmarks_is_stored_without_loss(result: Result) -> None:
    voxels: dict[str, object] = {}
    document = json.loads(json.dumps(to_document(result, voxels)))  # type: ignore[arg-type]
    assert document["landmarks"]["worst_mm"] == pytest.approx(20)
    assert [point["name"] for point in document["landmarks"]["points"]] == list(NAMES)
    assert from_document(document, Result, voxels) == result  # type: ignore[arg-type]


def test_landmarks_that_lie_outside_a_volume_are_refused(pair: PhantomPair, marks: Landmarks) -> None:
    far = replace(marks, ct_lps_mm=marks.ct_lps_mm + 1000)
    with pytest.raises(GeometryError, match="all 4 landmarks lie outside"):
        fuse(pair.ct, pair.mri, transform=pair.transform, check=False, landmarks=far)


def test_a_local_search_finds_the_pose_from_15_mm_and_10_degrees_away(pair: PhantomPair, marks: Landmarks) -> None:
    centre = pair.mri.grid.centre_lps_mm
    away = pair.transform @ RigidTransform.from_axis_angle([1, 1, 0], 10.0, [9.0, -9.0, 8.0], centre)
    settings = RegistrationSettings(search="local", samples=60_000)
    found = register(pair.ct, pair.mri, settings, start=away)
    assert "search" not in found.timings_s
    assert marks.residuals(found.transform).worst_mm < 0.5
    assert found.evidence.from_start_mm == pytest.approx(np.sqrt(226), abs=0.5)
    assert found.evidence.from_start_deg == pytest.approx(10.0, abs=0.5)
    assert "searched_near_start" in [finding.code for finding in judge(Evidence(pose=found.evidence)).findings]


def test_a_local_search_beyond_its_range_is_red_and_one_without_a_start_refused(pair: PhantomPair) -> None:
    settings = RegistrationSettings(search="local", samples=60_000)
    found = register(pair.ct, pair.mri, settings, start=pair.transform).evidence
    far = replace(found, from_start_mm=25.0)
    assert [f.level for f in judge(Evidence(pose=far)).findings if f.code == "far_from_start"] == ["red"]
    with pytest.raises(SettingsError, match="none was given"):
        register(pair.ct, pair.mri, settings)


@pytest.fixture(scope="module")
def folder(pair: PhantomPair, marks: Landmarks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("landmarks")
    write_volume(pair.ct, folder / "ct.nrrd")
    write_volume(pair.mri, folder / "mri.nrrd")
    write_transform(pair.transform, folder / "truth.lta", "lta", ct=pair.ct.grid, mri=pair.mri.grid)
    table(folder / "points.csv", marks.ct_lps_mm, marks.mri_lps_mm)
    return folder


def test_the_command_checks_a_pose_from_elsewhere_without_changing_it(
    folder: Path, pair: PhantomPair, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [str(folder / "ct.nrrd"), str(folder / "mri.nrrd")]
    given = ["--transform", str(folder / "truth.lta"), "--no-register", "--landmarks", str(folder / "points.csv")]
    assert main(["register", *inputs, *given, "-o", str(folder / "out.tfm"), "--json", str(folder / "out.json")]) == 0
    assert "Landmarks: 4, median 0.00 mm, worst 0.00 mm" in capsys.readouterr().out
    record = json.loads((folder / "out.json").read_text())
    assert record["pose"]["origin"] == "given"
    assert record["evidence"]["given"]["apart_mm"] < 1.0
    matrix = np.array(record["pose"]["transform"]["moving_from_fixed_lps"])
    np.testing.assert_allclose(matrix, pair.transform.moving_from_fixed_lps, atol=1e-5)


def test_the_command_refines_the_fit_of_the_landmarks(folder: Path) -> None:
    inputs = [str(folder / "ct.nrrd"), str(folder / "mri.nrrd")]
    options = ["--landmarks", str(folder / "points.csv"), "--start", "landmarks", "--search", "local"]
    assert main(["register", *inputs, *options, "-o", str(folder / "o.tfm"), "--json", str(folder / "o.json")]) == 0
    record = json.loads((folder / "o.json").read_text())
    assert record["landmarks"]["worst_mm"] < 0.5
    assert record["evidence"]["pose"]["from_start_mm"] < 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--start", "landmarks"], "--landmarks"),
        (["--search", "local"], "--transform"),
        (["--start", "landmarks", "--landmarks", "p.csv", "--transform", "t.tfm"], "only one start"),
        (["--no-register", "--search", "local", "--transform", "t.tfm"], "--search only applies"),
        (["--landmarks", "a", "b", "c"], "one file or two"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["register", "ct.nrrd", "mri.nrrd", *options, "-o", str(tmp_path / "o.tfm")]) == 2
    assert words in capsys.readouterr().err


# --- the report ------------------------------------------------------------------------------------------------------


def test_the_report_draws_each_residual_where_the_point_is(pair: PhantomPair, result: Result) -> None:
    page = report_html(result, pair.mri)
    assert "says little about the error elsewhere" in page
    assert page.count('<circle cx="') == 3 * len(NAMES)
    scene = prepare_scene(result.ct_in_mri, pair.mri, result.fused)
    # A voxel painted white is seen where the point at its centre is drawn.
    index = np.array(scene.centre_spl)
    painted = np.zeros_like(scene.mri_spl)
    painted[tuple(index)] = 1000.0
    point = np.linalg.inv(scene.spl_from_lps) @ [*index, 1]
    for plane in PLANES:
        picture = plane_pictures(replace(scene, mri_spl=painted), plane)
        row, column = pixels_of(scene, picture, point[None, :3])[0]
        seen = np.argwhere(picture.mri == picture.mri.max()) + 0.5
        np.testing.assert_allclose([row, column], seen.mean(axis=0), atol=0.6)


def test_a_result_without_names_has_no_file_name_in_the_landmarks(result: Result) -> None:
    marks = result.request.landmarks
    assert marks is not None
    assert result.landmarks is not None
    named = replace(
        result,
        request=replace(result.request, ct=Source("Smith"), landmarks=replace(marks, names=("Smith-1", *NAMES[1:]))),
        landmarks=replace(result.landmarks, points=(replace(result.landmarks.points[0], name="Smith-1"),)),
    ).without_names()
    assert "Smith" not in json.dumps(to_document(named, {}))


def test_a_label_of_any_length_is_read(tmp_path: Path) -> None:
    label = "x" * 140_000
    (tmp_path / "a.fcsv").write_text(f"# CoordinateSystem = LPS\n# columns = label,x,y,z\n{label},1,2,3\nb,4,5,6\n")
    assert read_landmarks([tmp_path / "a.fcsv"] * 2).names == (label, "b")


def test_more_landmarks_than_anybody_places_are_refused() -> None:
    with pytest.raises(GeometryError, match="at most 10,000 landmarks"):
        Landmarks(("a",) * 10_001, np.zeros((10_001, 3)), np.zeros((10_001, 3)))


FLIP = np.array([-1.0, -1.0, 1.0])


@pytest.mark.parametrize(
    ("ct", "mri", "words"),
    [
        (CT * FLIP, MRI * FLIP, "0.5 mm as RAS: check"),
        (MRI, CT, "0.5 mm with those of CT and MRI exchanged"),
        (MRI * FLIP, CT * FLIP, "as RAS, with those of CT and MRI exchanged"),
        (CT * FLIP, MRI, "as RAS in the CT"),
        (CT, MRI * FLIP, "as RAS in the MRI"),
    ],
)
def test_landmarks_that_fit_in_another_reading_say_which(ct: FloatArray, mri: FloatArray, words: str) -> None:
    said = Landmarks(NAMES, np.add(ct, [0.0, 0.0, 0.5]), mri).misread(TURN)
    assert said is not None
    assert "as they were read (LPS), and" in said
    assert words in said


def test_landmarks_that_fit_or_are_merely_wrong_are_not_called_misread() -> None:
    assert Landmarks(NAMES, CT, MRI).misread(TURN) is None
    off = RigidTransform.from_axis_angle([0, 0, 1], 0.0, [15.0, 8.0, 5.0])
    assert Landmarks(NAMES, off.apply(CT), MRI).misread(TURN) is None


def test_a_result_notes_landmarks_in_the_wrong_frame(pair: PhantomPair) -> None:
    mri = pair.mri.grid.centre_lps_mm + 0.3 * MRI
    landmarks = Landmarks(NAMES, pair.transform.apply(mri) * FLIP, mri * FLIP)
    result = fuse(pair.ct, pair.mri, transform=pair.transform, check=False, landmarks=landmarks)
    assert any("less than 0.01 mm as RAS" in note for note in result.notes), result.notes
