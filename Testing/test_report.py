"""The report and its pictures: the right way round, complete, self-contained and safe to open."""

import re

import numpy as np
import pytest

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import RAS_FROM_LPS, Grid, anatomical_axes, rotation_matrix
from BrainFusionLib.report import pictures, report_html, write_readme_picture, write_report
from BrainFusionLib.report.pictures import joint_histogram, plane_pictures, prepare_scene, with_edges
from BrainFusionLib.transform import AffineTransform, RigidTransform, told
from BrainFusionLib.volume import Volume

nibabel = pytest.importorskip("nibabel")
Image = pytest.importorskip("PIL.Image")

# Where the bright balls of the head lie, LPS mm: one to the right, one to the front, one towards the vertex.
RIGHT, FRONT, TOP = (-45.0, 0.0, 0.0), (0.0, -60.0, 0.0), (0.0, 0.0, 48.0)
RESULT = {
    "case": {"ct": "head_ct.nrrd", "mri": "head_t1.nii.gz"},
    "versions": {"brainfusion": "0.1.0"},
    "device": "cpu",
    "timings_s": {"register": 20.5, "fuse": 1.5},
    "transform": {"moving_from_fixed_lps": np.eye(4).tolist(), "words": "rotated by 3.0 degrees"},
    "quality": {"overlap_of_heads": 0.934},
    "verdict": {
        "colour": "amber",
        "reasons": ["not calibrated yet"],
        "expected_error_mm": 0.8,
        "interval_mm": [0.4, 1.6],
    },
    "settings": {"registration": {"levels_mm": [8, 4, 2, 1]}},
    "notes": ["no orientation in the file"],
    "rule": "bone over MRI",
    "warning": "for research and planning review, not for diagnosis",
}


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


@pytest.fixture(scope="module")
def page() -> str:
    ct, mri, fused = head(grid_of("LPS"))
    return report_html(RESULT, fused, ct, mri)


def page_of(result: dict) -> str:
    """A page of a head of a quarter of the size, where only the words matter."""
    volumes = [Volume(v.array_kji, Grid(v.grid.size_ijk), v.modality, v.name) for v in head(grid_of("LPS"))]
    return report_html(result, volumes[2], volumes[0], volumes[1])


def bright_spots(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the balls, as fractions of the picture from its middle, -0.5 to 0.5."""
    rows, columns = np.nonzero(picture > 180)
    return rows / picture.shape[0] - 0.5, columns / picture.shape[1] - 0.5


def test_right_is_at_the_viewers_left_and_front_on_top_in_an_axial_picture(scene):
    rows, columns = bright_spots(plane_pictures(scene, "axial").mri)
    assert columns[np.abs(rows) < 0.1].max() < -0.2  # the ball at the patient's right
    assert rows[np.abs(columns) < 0.1].max() < -0.2  # the ball at the front


def test_right_is_at_the_viewers_left_and_the_vertex_on_top_in_a_coronal_picture(scene):
    rows, columns = bright_spots(plane_pictures(scene, "coronal").mri)
    assert columns[np.abs(rows) < 0.1].max() < -0.2
    assert rows[np.abs(columns) < 0.1].max() < -0.2


def test_front_is_at_the_viewers_left_and_the_vertex_on_top_in_a_sagittal_picture(scene):
    rows, columns = bright_spots(plane_pictures(scene, "sagittal").mri)
    assert columns[np.abs(rows) < 0.1].max() < -0.2
    assert rows[np.abs(columns) < 0.1].max() < -0.2


def test_the_frame_agrees_with_nibabel_for_every_orientation():
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
def test_the_storage_order_does_not_change_a_pixel(scene, axes):
    spacing = (4.0, 4.0, 4.0)
    other = prepare_scene(*head(grid_of(axes, spacing)))
    for plane in pictures.PLANES:
        expected, found = plane_pictures(scene, plane), plane_pictures(other, plane)
        for name in ("ct", "mri", "fused", "checkerboard", "edges"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=f"{plane} {name}")
    np.testing.assert_allclose(other.centre_lps_mm, scene.centre_lps_mm, atol=1e-9)


def test_thick_slices_are_shown_with_true_proportions():
    scene = prepare_scene(*head(grid_of("LPS", (2.0, 2.0, 6.0))))
    edges = plane_pictures(scene, "coronal").edges > 200
    rows, columns = np.flatnonzero(edges.any(axis=1)), np.flatnonzero(edges.any(axis=0))
    # The skull's outer surface is 130 mm wide and 140 mm high; a slice of 6 mm decides how well the height shows.
    assert (columns[-1] - columns[0]) * 0.5 == pytest.approx(0.93 * 140, abs=3)
    assert (rows[-1] - rows[0]) * 0.5 == pytest.approx(0.93 * 150, abs=8)


def test_the_outline_lies_on_the_surface_of_the_bone(scene):
    shown = plane_pictures(scene, "axial")
    row = shown.edges[shown.edges.shape[0] // 2]
    crossings = np.flatnonzero(row > 90) * shown.mm_per_pixel
    middle = (crossings[0] + crossings[-1]) / 2
    distances = np.abs(crossings - middle)
    radii = np.array([0.85, 0.93]) * 70
    # Voxels of 4 mm: the surface is known to half of one.
    assert all(np.abs(distance - radii).min() < 2.5 for distance in distances)
    assert all(np.abs(distances - radius).min() < 2.5 for radius in radii)


def test_a_shifted_ct_shifts_the_outline_and_not_the_mri(scene):
    ct, mri, fused = head(grid_of("LPS"))
    shifted = prepare_scene(ct.with_array(np.roll(ct.array_kji, 3, axis=2)), mri, fused)
    before, after = plane_pictures(scene, "axial"), plane_pictures(shifted, "axial")
    # The picture may have grown to the left side of the patient to hold the shifted skull.
    left_before, left_after = (np.flatnonzero((p.edges > 90).any(axis=0))[0] for p in (before, after))
    ball_before, ball_after = (np.nonzero(p.mri > 180)[1].min() for p in (before, after))
    assert (left_after - ball_after) - (left_before - ball_before) == pytest.approx(12 / 0.5, abs=2)


def test_a_checkerboard_holds_both_images_and_nothing_else(scene):
    shown = plane_pictures(scene, "axial")
    from_mri, from_ct = shown.checkerboard == shown.mri, shown.checkerboard == shown.ct
    assert (from_mri | from_ct).all()
    assert (from_mri & ~from_ct).any()
    assert (from_ct & ~from_mri).any()


def test_bone_is_brighter_than_any_tissue_in_the_fused_picture(scene):
    shown = plane_pictures(scene, "axial")
    bone = shown.ct == shown.ct.max()
    assert shown.fused[bone].min() > shown.mri_as_fused.max() + 20


def test_the_joint_histogram_is_brightest_where_soft_tissue_meets_brain(scene):
    picture, hu_range, mri_range = joint_histogram(scene, bins=50)
    row, column = np.unravel_index(picture.sum(axis=2, dtype=int).argmax(), picture.shape[:2])
    hu = hu_range[0] + (column + 0.5) / 50 * (hu_range[1] - hu_range[0])
    value = mri_range[1] - (row + 0.5) / 50 * (mri_range[1] - mri_range[0])
    assert hu == pytest.approx(40, abs=20)
    assert value == pytest.approx(300, abs=20)


def test_the_centre_lies_in_the_part_that_a_short_ct_covers():
    ct, mri, fused = head(grid_of("LPS"))
    short = ct.array_kji.copy()
    short[: short.shape[0] * 2 // 3] = -1000
    scene = prepare_scene(ct.with_array(short), mri, fused)
    assert scene.ct_spl[scene.centre_spl[0]].max() > 0


def test_a_tilted_grid_is_shown_in_its_own_axes_and_says_so():
    straight = grid_of("LPS")
    turn = np.eye(4)
    turn[:3, :3] = rotation_matrix((1, 0, 0), 20)
    tilted = straight.moved(turn)
    assert anatomical_axes(tilted.direction) == "LPS"
    volumes = [Volume(v.array_kji, tilted, v.modality, v.name) for v in head(straight)]
    scene = prepare_scene(*volumes)
    assert scene.tilt_deg == pytest.approx(20)
    assert "up to 20° from the body" in report_html(RESULT, volumes[2], volumes[0], volumes[1])


def test_volumes_on_different_grids_are_refused():
    ct, mri, fused = head(grid_of("LPS"))
    elsewhere = Volume(ct.array_kji, Grid(ct.grid.size_ijk, ct.grid.spacing_ijk_mm), "CT", "ct")
    with pytest.raises(GeometryError, match="ct is on another"):
        prepare_scene(elsewhere, mri, fused)


def test_edges_colour_only_the_pixels_that_they_cover():
    grey = np.full((4, 5), 100, dtype=np.uint8)
    edges = np.zeros((4, 5), dtype=np.uint8)
    edges[1, 2] = 255
    picture = with_edges(grey, edges)
    assert tuple(picture[1, 2]) == pictures.EDGE_RGB
    assert (np.delete(picture.reshape(-1, 3), 1 * 5 + 2, axis=0) == 100).all()


def test_the_page_shows_everything_that_the_result_says(page):
    for words in (
        "head_ct.nrrd on head_t1.nii.gz",
        "rule: bone over MRI",
        "device: cpu",
        "22 s in all",
        "brainfusion 0.1.0",
        "AMBER: Check the alignment before use",
        "Expected error: 0.8 mm (0.4 to 1.6 mm)",
        "not calibrated yet",
        "rotated by 3.0 degrees",
        "overlap of heads",
        "0.934",
        "registration.levels_mm",
        "8, 4, 2, 1",
        "no orientation in the file",
        "For research and planning review, not for diagnosis.",
    ):
        assert words in page


def test_every_picture_of_the_page_can_be_decoded(page):
    import base64
    import io

    uris = re.findall(r'(?:src|href)="data:image/(\w+);base64,([^"]+)"', page)
    assert len(uris) == 3 * 3 + 3 + 6 * 2 + 2 + 1  # three rows, outlines; strip with outlines; before, after; histogram
    for kind, data in uris:
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        image.load()
        assert image.format.lower() == kind
        assert min(image.size) > 50


def test_the_page_refers_to_nothing_outside_itself(page):
    without_volumes = re.sub(r'id="viewer-data">.*?</script>', "></script>", page, flags=re.DOTALL)
    without_pictures = re.sub(r'"data:image/[^"]+"', '"data:"', without_volumes)
    assert not re.search(r"https?:|//\w|@import|url\(|<link|<iframe|fetch\(|XMLHttp", without_pictures)
    assert set(re.findall(r'(?:src|href)="([^"]*)"', without_pictures)) == {"data:"}
    assert "default-src 'none'" in page


def test_names_of_volumes_and_their_notes_do_not_get_into_the_page():
    ct, mri, fused = (Volume(v.array_kji, v.grid, v.modality, "DOE^JANE", ("born 1970",)) for v in head(grid_of("LPS")))
    page = report_html(RESULT, fused, ct, mri)
    assert "DOE" not in page
    assert "1970" not in page


def test_markup_in_any_value_is_shown_as_text():
    evil = "<script>alert(1)</script>"
    result = {
        "case": {"ct": evil, "mri": evil},
        "versions": {evil: evil},
        "device": evil,
        "timings_s": {evil: evil},
        "transform": {
            "words": evil,
            "moving_from_fixed_lps": [[evil]],
            "rotation_axis_lps": [evil],
            "rotation_angle_deg": evil,
        },
        "quality": {evil: evil},
        "verdict": {"colour": evil, "reasons": [evil], "expected_error_mm": evil, "interval_mm": [evil, evil]},
        "settings": {evil: {evil: [evil]}},
        "notes": [evil],
        "rule": evil,
        "warning": evil,
        "date": evil,
    }
    page = page_of(result)
    assert evil not in page
    assert page.count("<script>") == 2  # the page's own and the viewer's
    assert page.count("&lt;script&gt;") >= 15


def test_a_result_with_nothing_in_it_still_gives_a_page():
    page = page_of({})
    assert "No verdict was given" in page
    assert "CT on MRI" in page
    assert "not for diagnosis" in page


@pytest.mark.parametrize("key", sorted(RESULT))
def test_any_one_key_may_be_missing_or_none(key):
    for result in ({k: v for k, v in RESULT.items() if k != key}, {**RESULT, key: None}):
        assert "</html>" in page_of(result)


@pytest.mark.parametrize(
    ("colour", "words"),
    [("green", "GREEN: The alignment looks right"), ("red", "RED: Do not use"), ("amber", "AMBER: Check")],
)
def test_a_verdict_is_told_in_words_and_not_by_colour_alone(colour, words):
    assert words in page_of({"verdict": {"colour": colour}})


def test_an_error_that_was_not_estimated_is_not_given_as_a_number():
    page = page_of({"verdict": {"colour": "amber", "expected_error_mm": None, "interval_mm": None}})
    assert "Expected error: not estimated" in page


def test_an_error_of_a_pose_that_is_not_right_is_not_promised():
    verdict = {"expected_error_mm": 0.25, "interval_mm": [0.1, 0.5]}
    assert "Expected error: 0.25 mm (0.1 to 0.5 mm)" in page_of({"verdict": {**verdict, "colour": "amber"}})
    red = page_of({"verdict": {**verdict, "colour": "red"}})
    assert "Expected error, were it the right pose: 0.25 mm" in red
    # One that was given has its distance from what was found in it.
    given = {"verdict": {**verdict, "colour": "red"}, "quality": {"given": {"apart_mm": 0.3}}}
    assert "Expected error: 0.25 mm" in page_of(given)


def test_a_transform_that_is_not_rigid_is_told_with_the_rigid_one_beside_it():
    stretched = AffineTransform(np.diag([1, 1, 0.98, 1]))
    told_ = told(stretched, RigidTransform.from_axis_angle((0, 0, 1), 5), (0, 0, 0))
    page = page_of({"transform": told_})
    assert "CT onto MRI, affine and not rigid: rotated by 0.0 degrees" in page
    assert "+2.04 % feet-head" in page
    assert "The rigid transform beside it: rotated by 5.0 degrees" in page
    rigid = page_of({"transform": told(RigidTransform.identity(), RigidTransform.identity(), (0, 0, 0))})
    assert "not rigid" not in rigid
    assert "beside it" not in rigid


def test_a_page_of_a_full_size_noisy_head_stays_far_below_twelve_megabytes():
    coarse = head(grid_of("LPS"))
    size = tuple(4 * n for n in coarse[0].grid.size_ijk)
    noise = np.random.default_rng(0).standard_normal(size[::-1], dtype=np.float32) * 20
    ct, mri, fused = (
        Volume(np.kron(v.array_kji, np.ones((4, 4, 4), dtype=np.float32)) + noise, Grid(size), v.modality, v.name)
        for v in coarse
    )
    assert len(report_html(RESULT, fused, ct, mri)) < 6_000_000


def test_the_report_is_one_file(tmp_path, page):
    ct, mri, fused = head(grid_of("LPS"))
    write_report({**RESULT, "date": "2024-02-03"}, fused, ct, mri, tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "2024-02-03" in text
    assert text.endswith("</html>\n")


def test_the_readme_picture_has_four_tiles_between_transparent_gaps(tmp_path):
    ct, mri, fused = head(grid_of("LPS"))
    write_readme_picture(ct, mri, fused, tmp_path / "row.png")
    row = np.asarray(Image.open(tmp_path / "row.png"))
    assert row.shape[2] == 4
    opaque = row[row.shape[0] // 2, :, 3] > 0
    assert np.count_nonzero(np.diff(opaque.astype(int)) == -1) == 3
    tiles = np.split(row, np.flatnonzero(np.diff(opaque.astype(int)) == -1) + 1, axis=1)
    coloured = [bool((np.ptp(tile[60:, :, :3].astype(int), axis=2) > 60).any()) for tile in tiles]
    assert coloured == [False, False, False, True]
