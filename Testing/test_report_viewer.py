"""The report's viewer: what is in the page, and what happens in a real browser."""

import base64
import json
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest

from BrainFusionLib.geometry import Grid
from BrainFusionLib.intensity import ct_to_unit
from BrainFusionLib.quantities import position
from BrainFusionLib.report import report_html
from BrainFusionLib.report.pictures import prepare_scene
from BrainFusionLib.report.viewer import WHITE_UNIT, readings_of_ct, readings_of_mri
from BrainFusionLib.volume import Volume
from Testing.browser import chromium
from Testing.report_case import result_of

SHAPE = (40, 60, 50)


@pytest.fixture(scope="module")
def volumes():
    """A head of 2 mm with a bright place of its own in CT and MRI, stored from head to feet."""
    grid = Grid((50, 60, 40), (2.0, 2.0, 2.0), (-50.0, -60.0, 70.0), np.diag([1.0, 1.0, -1.0]))
    k, j, i = np.indices(SHAPE)
    radius = np.hypot(np.hypot((k - 20) / 18, (j - 30) / 26), (i - 25) / 21)
    mri = np.where(radius < 0.8, 600.0, np.where(radius < 0.95, 60.0, 0.0)) + 40 * np.sin(i / 3) * (radius < 0.8)
    hu = np.where(radius < 0.8, 40.0, np.where(radius < 0.95, 1000.0, -1000.0))
    mri[15, 20, 30] = 900
    mri, hu = mri.astype(np.float32), hu.astype(np.float32)
    fused = np.where(hu > 300, 900.0, mri).astype(np.float32)
    return [
        Volume(array, grid, modality, modality or "fused")
        for array, modality in ((fused, None), (hu, "CT"), (mri, "MR"))
    ]


@pytest.fixture(scope="module")
def page(volumes):
    return report_html(result_of(*volumes), volumes[2])


@pytest.fixture(scope="module")
def embedded(page):
    return json.loads(
        re.search(r'<script type="application/json" id="viewer-data">(.*?)</script>', page, re.S).group(1)
    )


def unpacked(embedded, name):
    return np.frombuffer(zlib.decompress(base64.b64decode(embedded[name]["grey"])), np.uint8).reshape(embedded["size"])


def test_volumes_are_embedded_in_the_viewers_frame(embedded, volumes):
    scene = prepare_scene(volumes[1], volumes[2], volumes[0])
    (k0, k1), (j0, j1), (i0, i1) = scene.box_spl
    assert embedded["size"] == [k1 - k0, j1 - j0, i1 - i0]
    low, high = scene.mri_range
    mri = (scene.mri_spl[k0:k1, j0:j1, i0:i1] - low) / (high - low) * 255 / WHITE_UNIT
    np.testing.assert_allclose(unpacked(embedded, "mri"), np.clip(mri, 0, 255), atol=1)
    ct = ct_to_unit(scene.ct_spl[k0:k1, j0:j1, i0:i1]) * 255 / WHITE_UNIT
    np.testing.assert_allclose(unpacked(embedded, "ct"), np.clip(ct, 0, 255), atol=1)


def test_local_errors_are_at_their_place(embedded, volumes):
    grid = volumes[2].grid
    ijk = (grid.ijk_from_lps @ [-10.0, 20.0, 30.0, 1.0])[:3]
    scene = prepare_scene(volumes[1], volumes[2], volumes[0])
    firsts = [first for first, _ in scene.box_spl]
    # The volume is stored from head to feet; the viewer goes from feet to head.
    expected = np.array([SHAPE[0] - 1 - ijk[2], ijk[1], ijk[0]]) - firsts
    first, second = embedded["local"]
    np.testing.assert_allclose(first["place"], expected, atol=0.1)
    assert (first["mm"], second["mm"]) == (5.0, 0.5)
    np.testing.assert_allclose(embedded["worst"], expected, atol=0.1)


def test_fine_head_is_shown_coarser(volumes):
    fine = [v.with_array(v.array_kji, grid=Grid((50, 60, 40), (0.5, 0.5, 0.5), (0.0, 0.0, 0.0))) for v in volumes]
    result = result_of(*fine)
    page = report_html(replace(result, evidence=replace(result.evidence, local=None)), fine[2])
    embedded = json.loads(re.search(r'id="viewer-data">(.*?)</script>', page, re.S).group(1))
    assert embedded["step_mm"] == 1.5
    assert max(embedded["size"]) <= 20
    assert embedded["local"] == []
    assert embedded["worst"] is None


def range_of(reading):
    """The range that a read-out states."""
    text = reading.removesuffix(" HU").replace("−", "-")
    if text[0] in "≤≥":
        return (-np.inf, float(text[2:])) if text[0] == "≤" else (float(text[2:]), np.inf)
    middle, half = map(float, text.split(" ± "))
    return middle - half, middle + half


def level_of(unit):
    return int(np.clip(np.rint(np.float32(unit) * np.float32(255 / WHITE_UNIT)), 0, 255))


def test_read_out_of_ct_is_in_hounsfield_units():
    readings = readings_of_ct()
    assert all(reading.endswith(" HU") for reading in readings)
    for hu in np.linspace(-1100, 2400, 1500):
        low, high = range_of(readings[level_of(ct_to_unit(hu))])
        assert low <= hu <= high, hu
        if -90 < hu < 290:
            assert high - low <= 4


@pytest.mark.parametrize(("low", "high"), [(0.0, 900.0), (-0.001, 0.02), (12.0, 40000.0)])
def test_read_out_of_mri_is_in_its_own_units(low, high):
    readings = readings_of_mri(low, high)
    for unit in np.linspace(-0.2, 1.8, 1500):
        value = low + (high - low) * unit
        first, last = range_of(readings[level_of(unit)])
        assert first <= value <= last
        assert last - first == np.inf or last - first < 0.011 * (high - low)


def test_read_out_is_true_for_every_voxel(embedded, volumes):
    scene = prepare_scene(volumes[1], volumes[2], volumes[0])
    window = tuple(slice(first, last) for first, last in scene.box_spl)
    for name, array in (("ct", scene.ct_spl), ("mri", scene.mri_spl), ("fused", scene.fused_spl)):
        ranges = np.array([range_of(reading) for reading in embedded[name]["readings"]])[unpacked(embedded, name)]
        assert (ranges[..., 0] <= array[window]).all()
        assert (array[window] <= ranges[..., 1]).all()


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page, encoding="utf-8")
    made = chromium("browser", "performance")
    made.get(path.as_uri())
    made.implicitly_wait(10)
    made.find_element("css selector", "#viewer[data-ready=yes]")
    yield made
    made.quit()


def grey(browser, plane, column, row):
    return browser.execute_script(
        "const c = document.getElementById('view-' + arguments[0]);"
        "return c.getContext('2d').getImageData(arguments[1], arguments[2], 1, 1).data[0];", plane, column, row,
    )  # fmt: skip


def set_knob(browser, name, value):
    browser.execute_script(
        "const k = document.querySelector(`[name=${arguments[0]}]`);"
        "if (k.type === 'checkbox') k.checked = arguments[1]; else k.value = arguments[1];"
        "k.dispatchEvent(new Event('input', {bubbles: true}));", name, value,
    )  # fmt: skip


def press(browser, plane, key, times=1):
    canvas = browser.find_element("id", f"view-{plane}")
    browser.execute_script("arguments[0].focus();", canvas)
    for _ in range(times):
        canvas.send_keys(key)


def expected_words(embedded, voxel, volumes):
    """What the read-out has to say of a voxel of the viewer, from the volumes themselves."""
    grid = volumes[2].grid
    scene = prepare_scene(volumes[1], volumes[2], volumes[0])
    k, j, i = (n + first for n, (first, _) in zip(voxel, scene.box_spl, strict=True))
    lps = grid.lps_from_ijk @ [i, j, SHAPE[0] - 1 - k, 1.0]  # stored from head to feet
    words = []
    for name, label in (("mri", "MRI"), ("ct", "CT"), ("fused", "fused")):
        reading = embedded[name]["readings"][unpacked(embedded, name)[voxel]]
        low, high = range_of(reading)
        value = {"mri": scene.mri_spl, "ct": scene.ct_spl, "fused": scene.fused_spl}[name][k, j, i]
        assert low <= value <= high
        words.append(f"{label} {reading}")
    return f"{position(lps[:3])}: {', '.join(words)}"


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_viewer_works_in_a_browser_without_requests(browser, embedded, volumes):
    from selenium.webdriver.common.keys import Keys

    set_knob(browser, "cross", False)
    mri, ct, fused = (unpacked(embedded, name).astype(float) for name in ("mri", "ct", "fused"))
    k, j, i = embedded["centre"]
    assert grey(browser, "axial", i + 3, j + 5) == pytest.approx(fused[k, j + 5, i + 3], abs=2)
    assert grey(browser, "coronal", i + 3, embedded["size"][0] - 1 - (k - 4)) == pytest.approx(
        fused[k - 4, j, i + 3], abs=2
    )
    assert grey(browser, "sagittal", j + 5, embedded["size"][0] - 1 - k) == pytest.approx(fused[k, j + 5, i], abs=2)

    for share in (0, 100, 40):
        set_knob(browser, "opacity", share)
        expected = mri[k, j + 5, i + 3] * (1 - share / 100) + ct[k, j + 5, i + 3] * share / 100
        assert grey(browser, "axial", i + 3, j + 5) == pytest.approx(expected, abs=2)
    set_knob(browser, "opacity", 0)

    press(browser, "axial", Keys.PAGE_UP, 3)
    press(browser, "axial", Keys.ARROW_RIGHT, 2)
    assert grey(browser, "axial", 10, 12) == pytest.approx(mri[k + 3, 12, 10], abs=2)
    assert grey(browser, "sagittal", 12, 10) == pytest.approx(mri[embedded["size"][0] - 1 - 10, 12, i + 2], abs=2)
    words = browser.find_element("css selector", "#viewer output").text
    assert words == expected_words(embedded, (k + 3, j, i + 2), volumes)

    set_knob(browser, "contrast", 51)
    assert grey(browser, "axial", 10, 12) == pytest.approx(
        np.clip((int(mri[k + 3, 12, 10]) - 101.5) * 5, 0, 255), abs=3
    )
    set_knob(browser, "contrast", 255)

    set_knob(browser, "cross", True)
    browser.find_element("css selector", "#viewer button").click()
    row, column = round(embedded["worst"][1]), round(embedded["worst"][2])
    assert grey(browser, "axial", column, 0) == 255  # red of the orange cross
    assert grey(browser, "axial", 0, row) == 255
    assert grey(browser, "coronal", column, 0) == 255

    # "rendering" is the browser's advice to this test, which reads many pixels.
    assert [entry for entry in browser.get_log("browser") if entry["source"] != "rendering"] == []
    requests = [
        message["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
