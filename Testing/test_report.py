"""The report and its pictures: the right way round, complete, self-contained and safe to open."""

import json
import re
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from BrainFusionLib import report
from BrainFusionLib.acquisition import CtAcquisition, MriAcquisition, PairAcquisition
from BrainFusionLib.case import Result, Source
from BrainFusionLib.errors import GeometryError
from BrainFusionLib.evidence import BrainShift, Inside, LocalFit, PoseEvidence, SkullFit
from BrainFusionLib.geometry import RAS_FROM_LPS, Grid, anatomical_axes, rotation_matrix
from BrainFusionLib.landmarks import Landmarks
from BrainFusionLib.quantities import interval, length, number, position, quantity
from BrainFusionLib.report import pictures, report_html, write_pictures, write_report
from BrainFusionLib.report.facts import _NAMED, quality_facts
from BrainFusionLib.report.headers import acquisition_facts
from BrainFusionLib.report.page import Html, data, render
from BrainFusionLib.report.pictures import joint_histogram, plane_pictures, prepare_scene, with_edges
from BrainFusionLib.report.viewer import LocalMisalignment
from BrainFusionLib.settings import FusionSettings, Settings
from BrainFusionLib.transform import AffineTransform, RigidTransform
from BrainFusionLib.verdict.judge import CALIBRATION, Verdict
from BrainFusionLib.volume import Volume
from Testing.browser import printed_pages
from Testing.report_case import AMBER, FINDING, given, judged, result_of

nibabel = pytest.importorskip("nibabel")
Image = pytest.importorskip("PIL.Image")

# Where the bright balls of the head lie, LPS mm: one to the right, one to the front, one towards the vertex.
RIGHT, FRONT, TOP = (-45.0, 0.0, 0.0), (0.0, -60.0, 0.0), (0.0, 0.0, 48.0)


def head(grid: Grid) -> tuple[Volume, Volume, Volume]:
    """A head of 140 x 180 x 150 mm (right-left, front-back, feet-head) with three balls in it, as CT, MRI, fused."""
    i, j, k = np.indices(grid.size_ijk)
    lps = np.stack([i, j, k], axis=-1) @ grid.lps_from_ijk[:3, :3].T + grid.lps_from_ijk[:3, 3]
    radius = np.sqrt(((lps / (70, 90, 75)) ** 2).sum(axis=-1)).transpose(2, 1, 0)
    bone = (radius > 0.85) & (radius < 0.93)
    mri = np.where(radius < 1, 300.0, 0.0)
    mri[bone] = 20
    for centre in (RIGHT, FRONT, TOP):
        mri[(np.linalg.norm(lps - centre, axis=-1) < 14).transpose(2, 1, 0)] = 900
    ct = np.where(radius < 1, 40.0, -1000.0)
    ct[bone] = 1100
    return (
        Volume(ct, grid, "CT", "ct"),
        Volume(mri, grid, "MR", "mri"),
        Volume(np.where(bone, 1100, mri), grid, None, "fused"),
    )


def grid_of(axes: str, spacing_ijk: tuple[float, float, float] = (4.0, 4.0, 4.0)) -> Grid:
    """A grid around the origin whose index axes grow to the three named directions."""
    direction = np.zeros((3, 3))
    for column, letter in enumerate(axes):
        world = next(n for n, pair in enumerate(("LR", "PA", "SI")) if letter in pair)
        direction[world, column] = 1 if letter in "LPS" else -1
    extent = np.abs(direction).T @ (184, 216, 192)
    size = np.round(extent / spacing_ijk).astype(int)
    origin = -direction @ ((size - 1) / 2 * spacing_ijk)
    return Grid(tuple(size), spacing_ijk, tuple(origin), direction)


@pytest.fixture(scope="module")
def scene() -> pictures.Scene:
    return prepare_scene(*head(grid_of("LPS")))


def case(grid: Grid | None = None) -> tuple[Result, Volume]:
    """A result and its MRI; of a quarter of the size, where only the words matter, without a grid."""
    ct, mri, fused = head(grid or grid_of("LPS"))
    if grid is None:
        ct, mri, fused = (Volume(v.array_kji, Grid(v.grid.size_ijk), v.modality, v.name) for v in (ct, mri, fused))
    return result_of(fused, ct, mri), mri


@pytest.fixture(scope="module")
def page() -> str:
    return report_html(*case(grid_of("LPS")))


def page_of(**changes) -> str:
    result, mri = case()
    return report_html(replace(result, **changes), mri)


def bright_spots(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the balls, as fractions of the picture from its middle, -0.5 to 0.5."""
    rows, columns = np.nonzero(picture > 180)
    return rows / picture.shape[0] - 0.5, columns / picture.shape[1] - 0.5


def test_axial_picture_has_right_at_left_and_front_on_top(scene):
    rows, columns = bright_spots(plane_pictures(scene, "axial").mri)
    assert columns[np.abs(rows) < 0.1].max() < -0.2  # the ball at the patient's right
    assert rows[np.abs(columns) < 0.1].max() < -0.2  # the ball at the front


def test_coronal_picture_has_right_at_left_and_vertex_on_top(scene):
    rows, columns = bright_spots(plane_pictures(scene, "coronal").mri)
    assert columns[np.abs(rows) < 0.1].max() < -0.2
    assert rows[np.abs(columns) < 0.1].max() < -0.2


def test_sagittal_picture_has_front_at_left_and_vertex_on_top(scene):
    rows, columns = bright_spots(plane_pictures(scene, "sagittal").mri)
    assert columns[np.abs(rows) < 0.1].max() < -0.2
    assert rows[np.abs(columns) < 0.1].max() < -0.2


def test_frame_agrees_with_nibabel_for_every_orientation():
    for axes in nibabel_axis_codes():
        grid = grid_of(axes)
        stored = np.arange(np.prod(grid.size_ijk), dtype=np.float32).reshape(grid.shape_kji)
        image = nibabel.Nifti1Image(stored.transpose(2, 1, 0), RAS_FROM_LPS @ grid.lps_from_ijk)
        ours = pictures.spl_view(stored, grid)
        ras = nibabel.as_closest_canonical(image).get_fdata()
        np.testing.assert_array_equal(ours, ras[::-1, ::-1].transpose(2, 1, 0), err_msg=axes)


def nibabel_axis_codes() -> list[str]:
    """All 48 orientations."""
    codes = []
    for flips in np.ndindex(2, 2, 2):
        names = [pair[flip] for pair, flip in zip(("LR", "PA", "SI"), flips, strict=True)]
        codes += [names[a] + names[b] + names[3 - a - b] for a in range(3) for b in range(3) if a != b]
    return codes


@pytest.mark.parametrize("axes", ["RAS", "LIP", "ASR", "PSL", "SRA"])
def test_storage_order_does_not_change_a_pixel(scene, axes):
    spacing = (4.0, 4.0, 4.0)
    other = prepare_scene(*head(grid_of(axes, spacing)))
    for plane in pictures.PLANES:
        expected, found = plane_pictures(scene, plane), plane_pictures(other, plane)
        for name in ("ct", "mri", "fused", "checkerboard", "edges"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=f"{plane} {name}")
    np.testing.assert_allclose(other.centre_lps_mm, scene.centre_lps_mm, atol=1e-9)


def test_thick_slices_have_true_proportions():
    scene = prepare_scene(*head(grid_of("LPS", (2.0, 2.0, 6.0))))
    edges = plane_pictures(scene, "coronal").edges > 200
    rows, columns = np.flatnonzero(edges.any(axis=1)), np.flatnonzero(edges.any(axis=0))
    # The skull's outer surface is 130 mm wide and 140 mm high; a slice of 6 mm decides how well the height shows.
    assert (columns[-1] - columns[0]) * 0.5 == pytest.approx(0.93 * 140, abs=3)
    assert (rows[-1] - rows[0]) * 0.5 == pytest.approx(0.93 * 150, abs=8)


def test_outline_is_on_the_surface_of_the_bone(scene):
    shown = plane_pictures(scene, "axial")
    row = shown.edges[shown.edges.shape[0] // 2]
    crossings = np.flatnonzero(row > 90) * shown.mm_per_pixel
    middle = (crossings[0] + crossings[-1]) / 2
    distances = np.abs(crossings - middle)
    radii = np.array([0.85, 0.93]) * 70
    # Voxels of 4 mm: the surface is known to half of one.
    assert all(np.abs(distance - radii).min() < 2.5 for distance in distances)
    assert all(np.abs(distances - radius).min() < 2.5 for radius in radii)


def test_a_head_holder_is_not_outlined(scene):
    """It is as dense as bone, and shown in the CT, but no bone of the head."""
    ct, mri, fused = head(grid_of("LPS"))
    held = ct.array_kji.copy()
    held[:, -2:, :] = 900.0
    shown = prepare_scene(ct.with_array(held), mri, fused)
    before, after = plane_pictures(scene, "axial"), plane_pictures(shown, "axial")
    assert (after.edges > 0).sum() == (before.edges > 0).sum()


def test_the_head_that_a_run_has_found_is_not_looked_for_again(monkeypatch):
    from BrainFusionLib.intensity import head as heads

    looked, find = [], heads.ct_head_mask
    monkeypatch.setattr(heads, "ct_head_mask", lambda ct: looked.append(ct) or find(ct))
    volumes = head(grid_of("LPS"))
    found = heads.head_of(volumes[0])
    for _time in range(2):
        prepare_scene(*volumes)
    assert looked == [volumes[0]]
    assert (found == find(volumes[0])).all()
    kept = len(heads._known)
    del volumes, looked[:]
    assert len(heads._known) == kept - 1


def test_shifted_ct_shifts_the_outline_only(scene):
    ct, mri, fused = head(grid_of("LPS"))
    shifted = prepare_scene(ct.with_array(np.roll(ct.array_kji, 3, axis=2)), mri, fused)
    before, after = plane_pictures(scene, "axial"), plane_pictures(shifted, "axial")
    # The picture may have grown to the left side of the patient to hold the shifted skull.
    left_before, left_after = (np.flatnonzero((p.edges > 90).any(axis=0))[0] for p in (before, after))
    ball_before, ball_after = (np.nonzero(p.mri > 180)[1].min() for p in (before, after))
    assert (left_after - ball_after) - (left_before - ball_before) == pytest.approx(12 / 0.5, abs=2)


def test_checkerboard_holds_both_images(scene):
    shown = plane_pictures(scene, "axial")
    from_mri, from_ct = shown.checkerboard == shown.mri, shown.checkerboard == shown.ct
    assert (from_mri | from_ct).all()
    assert (from_mri & ~from_ct).any()
    assert (from_ct & ~from_mri).any()


def test_bone_is_brighter_than_tissue_in_fused(scene):
    shown = plane_pictures(scene, "axial")
    bone = shown.ct == shown.ct.max()
    assert shown.fused[bone].min() > shown.mri_as_fused.max() + 20


def test_joint_histogram_peaks_at_soft_tissue(scene):
    picture, hu_range, mri_range = joint_histogram(scene, bins=50)
    row, column = np.unravel_index(picture.sum(axis=2, dtype=int).argmax(), picture.shape[:2])
    hu = hu_range[0] + (column + 0.5) / 50 * (hu_range[1] - hu_range[0])
    value = mri_range[1] - (row + 0.5) / 50 * (mri_range[1] - mri_range[0])
    assert hu == pytest.approx(40, abs=20)
    assert value == pytest.approx(300, abs=20)


def test_centre_is_inside_a_short_ct():
    ct, mri, fused = head(grid_of("LPS"))
    short = ct.array_kji.copy()
    short[: short.shape[0] * 2 // 3] = -1000
    scene = prepare_scene(ct.with_array(short), mri, fused)
    assert scene.ct_spl[scene.centre_spl[0]].max() > 0


def test_tilted_grid_is_shown_along_its_axes_with_a_note():
    straight = grid_of("LPS")
    turn = np.eye(4)
    turn[:3, :3] = rotation_matrix((1, 0, 0), 20)
    tilted = straight.moved(turn)
    assert anatomical_axes(tilted.direction) == "LPS"
    volumes = [Volume(v.array_kji, tilted, v.modality, v.name) for v in head(straight)]
    scene = prepare_scene(*volumes)
    assert scene.tilt_deg == pytest.approx(20)
    assert "up to 20° from the body" in report_html(result_of(volumes[2], volumes[0], volumes[1]), volumes[1])


def test_volumes_on_different_grids_are_rejected():
    ct, mri, fused = head(grid_of("LPS"))
    elsewhere = Volume(ct.array_kji, Grid(ct.grid.size_ijk, ct.grid.spacing_ijk_mm), "CT", "ct")
    with pytest.raises(GeometryError, match="ct is on another"):
        prepare_scene(elsewhere, mri, fused)


def test_edges_colour_only_their_pixels():
    grey = np.full((4, 5), 100, dtype=np.uint8)
    edges = np.zeros((4, 5), dtype=np.uint8)
    edges[1, 2] = 255
    picture = with_edges(grey, edges)
    assert tuple(picture[1, 2]) == pictures.EDGE_RGB
    assert (np.delete(picture.reshape(-1, 3), 1 * 5 + 2, axis=0) == 100).all()


def test_page_shows_everything_in_the_result(page):
    for words in (
        "head_ct.nrrd on head_t1.nii.gz",
        "2024-02-03T04:05:06",
        "fusion: Bone over MRI",
        "device: cpu",
        "22.0 s in all",
        "brainfusion 0.1.0",
        "Amber: check the alignment before use",
        "Expected error 0.8 mm (in 9 of 10 such cases below 1.6 mm)",
        "two refinements ended 0.7 mm apart (limit 0.6 mm)",
        "always check the images yourself",
        "rotated by 3.0 degrees, not shifted.",
        "overlap of the heads</th><td>93.4 %",
        "distance between two refinements</th><td>0.12 mm",
        "largest misalignment, median of neighbouring regions</th><td>5 mm at R 10.0 P 20.0 S 30.0 mm",
        "soft-tissue error of the fused volume</th><td>0.345 % of the MRI&#x27;s range",
        "a second, thorough search was needed</th><td>yes",
        "registration: search</th><td>12.25 s<",
        "registration: climb 2 mm</th><td>1.75 s, 34 iterations",
        "registration: pass 2, rotations tried</th><td>480",
        "fusion: method</th><td>bone_over_mri",
        "no orientation in the file",
        "the MRI&#x27;s value outside bone",
        "−1000 HU to 0, −100 HU to 45, 300 HU to 900",
        "For research and planning review, not for diagnosis.",
    ):
        assert words in page


def test_every_number_of_the_evidence_is_shown():
    def leaves(value):
        if is_dataclass(value):
            return sum(leaves(getattr(value, field.name)) for field in fields(value))
        return not isinstance(value, np.ndarray)

    for result in (case()[0], given(case()[0])):
        shown = quality_facts(result)
        assert len({fact.label for fact in shown}) == len(shown)
        # Beside the fields: regions compared, the largest misalignment, a second search. Headers have a table of their
        # own.
        measured = leaves(result.evidence) - leaves(result.evidence.acquisition)
        assert len(shown) == measured + leaves(result.fidelity) + 3


def test_what_the_headers_say_is_a_table_of_its_own():
    result = case()[0]
    assert acquisition_facts(result) == []
    mri = MriAcquisition("Siemens", None, 3.0, 200.0, 1.0, "j", True, isocentre_mm=31.4)
    pair = PairAcquisition(CtAcquisition("Siemens", "SOMATOM", kernel="Hr60"), mri, days_apart=-1)
    shown = acquisition_facts(replace(result, evidence=replace(result.evidence, acquisition=pair)))
    words = {fact.label: fact.value for fact in shown}
    assert words["MRI: correction of gradient distortion"] == "unknown"
    assert words["MRI: expected shift of fat"] == "2.2 mm"
    assert words["MRI: centre of the volume to the isocentre (usually)"] == "31 mm"
    assert (words["CT: scanner"], words["CT acquired"]) == ("Siemens SOMATOM", "1 day before the MRI")
    assert "MRI: echo planar" not in words


def test_labels_are_not_names_of_fields(page):
    labels = re.findall(r"<th>(.*?)</th>", page)
    assert len(labels) > 40
    assert [label for label in labels if "_" in label] == []


def test_every_picture_can_be_decoded(page):
    import base64
    import io

    uris = re.findall(r'(?:src|href)="data:image/(\w+);base64,([^"]+)"', page)
    assert len(uris) == 3 * 3 + 3 + 6 * 2 + 2 + 1  # three rows, outlines; strip with outlines; before, after; histogram
    for kind, content in uris:
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        image.load()
        assert image.format.lower() == kind
        assert min(image.size) > 50


def test_page_refers_to_nothing_outside(page):
    without_volumes = re.sub(r'id="viewer-data">.*?</script>', "></script>", page, flags=re.DOTALL)
    without_pictures = re.sub(r'"data:image/[^"]+"', '"data:"', without_volumes)
    assert not re.search(r"https?:|//\w|@import|url\(|<link|<iframe|fetch\(|XMLHttp", without_pictures)
    assert set(re.findall(r'(?:src|href)="([^"]*)"', without_pictures)) == {"data:"}
    assert "default-src 'none'" in page


def test_names_of_volumes_are_not_in_the_page():
    ct, mri, fused = (Volume(v.array_kji, v.grid, v.modality, "DOE^JANE", ("born 1970",)) for v in head(grid_of("LPS")))
    page = report_html(result_of(fused, ct, mri), mri)
    assert "DOE" not in page
    assert "1970" not in page


@pytest.mark.parametrize(("count", "points"), [(0, 0), (6, 0), (2, 12)])
def test_the_report_prints_on_two_pages(tmp_path, count, points):
    result, mri = case(grid_of("LPS", (2.0, 2.0, 2.0)))
    text = "CT and MRI match hardly better than when mirrored (by 0.01 nats, minimum 0.015): left and right, too"
    pair = PairAcquisition(
        CtAcquisition("Siemens", "SOMATOM", kernel="Hr60"),
        MriAcquisition("Siemens", None, 3.0, 200.0, 1.0, "j", True, isocentre_mm=31.4),
        days_apart=-40,
    )
    result = replace(
        result,
        verdict=replace(AMBER, findings=(replace(FINDING, text=text),) * count),
        evidence=replace(result.evidence, acquisition=pair if count else None),
        notes=("the gantry was tilted by 12.0 degrees: the slices were shifted onto a perpendicular grid",) * count,
    )
    if points:
        places = np.random.default_rng(0).normal(size=(points, 3)) * 20
        landmarks = Landmarks(tuple(f"point {n}" for n in range(points)), places, places + 1.0)
        result = replace(result, landmarks=landmarks.residuals(result.transform))
    path = tmp_path / "report.html"
    write_report(result, mri, path)
    assert printed_pages(path) == 2


def test_notes_stand_beside_the_verdict():
    words = page_of(notes=("CT and MRI give different patient IDs",))
    box = words[words.index('<section class="verdict') :]
    said = re.findall("<li>(.*?)</li>", box[: box.index("</section>")])
    assert said == [FINDING.text, "CT and MRI give different patient IDs", CALIBRATION]


class Tags(HTMLParser):
    """The names of all elements."""

    def __init__(self, page):
        super().__init__()
        self.names = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_markup_in_any_text_is_shown_as_text(page):
    evil = "\"'><script>alert(1)</script><b onclick=x>"
    result, mri = case()
    result = replace(
        result,
        request=replace(
            result.request, ct=Source(evil), mri=Source(evil), mri_mask=Source(evil),
            settings=Settings(fusion=FusionSettings(rule=evil, weights=evil)),
        ),
        pose=replace(result.pose, movement=evil),
        verdict=Verdict("amber", (replace(FINDING, text=evil),)),
        provenance=replace(
            result.provenance, date=evil, versions={evil: evil}, device=evil, timings_s={evil: 1.0},
            registration_timings_s={evil: 1.0}, registration_iterations={evil: 1},
        ),
        intensity=replace(result.intensity, meaning=evil),
        notes=(evil,),
        warning=evil,
    )  # fmt: skip
    planted = report_html(result, mri)
    assert evil not in planted
    assert planted.count("&lt;script&gt;") >= 15
    plain = [name for name in Tags(page).names if name not in ("li", "tr", "th", "td")]
    assert [name for name in Tags(planted).names if name not in ("li", "tr", "th", "td")] == plain


def test_templates_escape_all_but_marked_html():
    assert render("cell", text="<i>&\"'") == "<td>&lt;i&gt;&amp;&quot;&#x27;</td>"
    assert render("cell", text=Html("<i>x</i>")) == "<td><i>x</i></td>"
    assert render("cell", text=[Html("<i>"), "<b>"]) == "<td><i>&lt;b&gt;</td>"
    planted = LocalMisalignment(["</script>"], 1.0)
    assert "</" not in data(planted)
    assert json.loads(data(planted))["place"] == ["</script>"]


@pytest.mark.parametrize("parts", [{}, {"text": "x", "more": "y"}])
def test_template_rejects_missing_and_unknown_values(parts):
    with pytest.raises(TypeError, match=r"template cell needs \['text'\]"):
        render("cell", **parts)


def test_no_html_and_no_colour_stands_in_the_code():
    for path in Path(report.__file__).parent.glob("*.py"):
        code = path.read_text(encoding="utf-8")
        assert not re.search(r"</?(?!!)[a-z]+[ >]", re.sub(r'""".*?"""', "", code, flags=re.DOTALL)), path
        assert path.name == "palette.py" or not re.search(r"#[0-9a-f]{6}\b", code), path
    sheet = (Path(report.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b", sheet)


@pytest.mark.parametrize(
    ("colour", "sentence"),
    [
        ("green", "Green: no sign of misalignment"),
        ("amber", "Amber: check the alignment before use"),
        ("red", "Red: do not use, the alignment is probably wrong"),
    ],
)
def test_verdict_has_a_sentence_and_a_sign(colour, sentence):
    page = page_of(verdict=Verdict(colour))
    assert f"<h2>{sentence}</h2>" in page
    assert page.count('class="sign"') == 1


def test_error_that_was_not_estimated_is_not_a_number():
    assert "Expected error: not estimated" in page_of(verdict=Verdict("amber"))


@pytest.mark.parametrize("origin", [lambda result: result, given])
def test_no_expected_error_beside_red(origin):
    result, mri = case()
    page = report_html(judged(origin(result), replace(AMBER, colour="red")), mri)
    assert "Expected error" not in page


@pytest.mark.parametrize("mm", [0.0, 0.003, 0.04, 0.0499])
def test_small_error_is_not_rounded_to_zero(mm):
    page = page_of(verdict=Verdict("green", (), mm, 2 * mm))
    assert not re.search(r"[^0-9.]0\.0+ mm", page[: page.index("Planes through")])


def test_lengths_have_few_digits():
    lengths = (0.0, 0.004, 0.063, 0.5, 0.999, 1.0, 2.34, 9.97, 12.4)
    assert [length(mm) for mm in lengths] == [
        "0 mm", "less than 0.01 mm", "0.06 mm", "0.5 mm", "1 mm", "1 mm", "2.3 mm", "10 mm", "12 mm",
    ]  # fmt: skip


def test_numbers_have_no_exponents():
    assert [number(value) for value in (0.0, -1234.5, 0.00001234, 1e6, 7)] == [
        "0",
        "−1234",
        "0.0000123",
        "1000000",
        "7",
    ]
    assert number(True) == "yes"


def test_what_is_rounding_is_shown_as_0_without_a_sign():
    assert quantity(-1.64e-6, "nats a voxel") == "0 nats a voxel"
    assert quantity(0.0356, "NMI") == "0.0356 NMI"
    assert quantity(-0.2604, "nats") == "−0.26 nats"
    assert quantity(0.000181, "HU") == "0 HU"
    assert quantity(-0.001, "mm") == "0 mm"


def test_position_is_written_as_in_slicer():
    assert position((4.0, -0.04, 6.0)) == "L 4.0 P 0.0 S 6.0 mm"
    assert position((-1.25, -3.0, -100.06)) == "R 1.2 A 3.0 I 100.1 mm"


def test_interval_holds_what_it_is_made_from():
    for low, high in np.sort(np.random.default_rng(0).normal(0, 500, (200, 2)), axis=1):
        middle, half = (float(part.replace("−", "-")) for part in interval(low, high).split(" ± "))
        assert middle - half <= low
        assert high <= middle + half
        assert half <= 2.5 * (high - low) / 2
    assert interval(5.0, 5.0) == "5"
    assert interval(-np.inf, -946.1, "HU") == "≤ −946 HU"
    assert interval(1990.2, np.inf, "HU") == "≥ 1990 HU"


def test_rigid_transform_is_shown_beside_an_affine_one():
    stretched, rigid = AffineTransform(np.diag([1, 1, 0.98, 1])), RigidTransform.from_axis_angle((0, 0, 1), 5)
    result, mri = case()
    pose = replace(result.pose, transform=stretched, rigid=rigid, movement=stretched.describe((0, 0, 0)))
    page = report_html(replace(result, pose=pose), mri)
    assert "CT onto MRI, affine and not rigid: not rotated" in page
    assert "+2.04 % feet-head" in page
    assert "The rigid transform beside it: rotated by 5.0 degrees" in page
    assert "not rigid" not in page_of()
    assert "beside it" not in page_of()


def test_page_of_a_noisy_head_is_below_6_megabytes():
    coarse = head(grid_of("LPS"))
    size = tuple(4 * n for n in coarse[0].grid.size_ijk)
    noise = np.random.default_rng(0).standard_normal(size[::-1], dtype=np.float32) * 20
    ct, mri, fused = (
        Volume(np.kron(v.array_kji, np.ones((4, 4, 4), dtype=np.float32)) + noise, Grid(size), v.modality, v.name)
        for v in coarse
    )
    assert len(report_html(result_of(fused, ct, mri), mri)) < 6_000_000


def test_report_is_one_file(tmp_path):
    result, mri = case()
    write_report(result, mri, tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8").endswith("</html>\n")


def test_still_pictures_are_files_of_their_own(tmp_path):
    written = write_pictures(*case(grid_of("LPS")), tmp_path)
    assert len(written) == 15
    assert sorted(tmp_path.iterdir()) == sorted(written)
    with Image.open(tmp_path / "axial-outline.png") as outline:
        assert outline.mode == "RGB"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("pose", PoseEvidence), ("local.fit", LocalFit), ("skull", SkullFit), ("inside", Inside),
     ("brain_shift", BrainShift)],
)  # fmt: skip
def test_every_measure_has_words_of_its_own_in_the_report(path, kind):
    numbers = [field.name for field in fields(kind) if "FloatArray" not in str(field.type)]
    assert [name for name in numbers if f"{path}.{name}" not in _NAMED] == []
