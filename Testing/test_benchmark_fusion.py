"""The comparison with other methods' fused slices: the table, the sheet, and what it refuses."""

import csv

import numpy as np
import pytest
from PIL import Image

from benchmarks.fusion import bound, pairs, rim
from benchmarks.fusion.run import LABEL, OURS, fails, main, methods_of_ours
from BrainFusionLib.fusion.weights import SHIPPED
from BrainFusionLib.io import read_grey, write_grey
from simulation.heads import detailed_phantom


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Simulated pairs, and two peers: one that shows the CT, one that shows the mean."""
    root = tmp_path_factory.mktemp("fusion")
    with pytest.MonkeyPatch.context() as smaller:
        smaller.setattr(pairs, "SIZE", (128, 128))
        smaller.setattr(pairs, "SPACING_MM", 1.8)
        pairs.make_pairs(detailed_phantom(3, spacing_mm=3.0), root / "pairs")
    for name in ("tumour", "orbits"):  # the third slice no peer has
        ct, mri = (read_grey(root / "pairs" / kind / f"{name}.png") for kind in ("CT", "MRI"))
        for peer, fused in (("shows_ct", ct), ("mean", (ct + mri) / 2)):
            (root / "peers" / peer).mkdir(parents=True, exist_ok=True)
            write_grey(fused, root / "peers" / peer / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def compared(folders):
    """The folder of a comparison with everything in it."""
    output = folders / "compared"
    assert main([str(folders / "pairs"), str(folders / "peers"), "-o", str(output), "--optimum"]) == 0
    return output


def means_in(folder):
    with (folder / "means.csv").open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_every_method_is_measured_on_shared_slices(compared):
    means = means_in(compared)
    assert set(means) == {"shows_ct", "mean", *methods_of_ours(), LABEL}
    assert float(means["shows_ct"]["bone_error"]) == 0 < float(means["shows_ct"]["soft_tissue_error"])
    assert float(means[OURS]["Qabf"]) > float(means["mean"]["Qabf"])
    with (compared / "slices.csv").open() as file:
        assert {row["slice"] for row in csv.DictReader(file)} == {"tumour", "orbits"}
    table = (compared / "table.md").read_text()
    assert "| mean | no |" in table
    assert "2 registered 8-bit slice pairs" in table
    assert float(means[OURS]["Qabf, head alone"]) >= float(means[OURS]["Qabf"]) - 0.02
    with Image.open(compared / "sheet.png") as sheet:
        assert len(np.unique(np.asarray(sheet))) > 100


def test_all_weights_that_ship_are_compared():
    networks = [fusion.weights for fusion in methods_of_ours().values() if fusion.rule == "network"]
    assert networks == list(SHIPPED)


def test_scores_need_all_gates():
    good = {"bone_error": 0.1, "soft_tissue_error": 0.5, "overshoot": 0.0, "soft_tissue_correlation": 0.999}
    good |= {"dark_rim_60": 0.0, "dark_rim_30": 2.0}
    assert fails(good) == []
    assert fails({**good, "overshoot": 0.01, "soft_tissue_correlation": 0.99}) == [
        "overshoot",
        "soft_tissue_correlation",
    ]
    assert fails({**good, "bone_error": None, "dark_rim_60": None}) == []
    assert fails({**good, "dark_rim_60": 0.1}) == ["dark_rim_60"]


def test_bone_rims_before_and_after_are_shown(folders, tmp_path):
    assert rim.main([str(folders / "pairs"), str(folders / "peers" / "mean"), "-o", str(tmp_path)]) == 0
    with Image.open(tmp_path / "rim.png") as sheet:
        assert len(np.unique(np.asarray(sheet))) > 50
    assert rim.main([str(folders / "pairs"), str(tmp_path / "none"), "-o", str(tmp_path)]) == 2


def test_peers_without_slices_in_common_are_refused(folders, tmp_path, caplog):
    (tmp_path / "peers" / "stranger").mkdir(parents=True)
    write_grey(np.zeros((32, 32)), tmp_path / "peers" / "stranger" / "other.png")
    assert main([str(folders / "pairs"), str(tmp_path / "peers"), "-o", str(tmp_path / "out")]) == 2
    assert "no picture of the same name" in caplog.text


def test_the_optimised_label_can_be_measured_too(compared):
    means = means_in(compared)
    assert float(means[LABEL]["Qabf"]) > float(means["bone_over_mri (rule)"]["Qabf"])


def test_cheaper_errors_raise_qabf(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(bound, "PRICES", ((5.0, 5.0), (5.0, 1.0)))
    monkeypatch.setattr(bound, "STEPS", 30)
    assert bound.main([str(folders / "pairs"), "-o", str(tmp_path)]) == 0
    rows = [line.split("|") for line in (tmp_path / "bound.md").read_text().splitlines() if line.startswith("| 5")]
    (dear, dear_error), (cheap, cheap_error) = ((float(row[3]), float(row[6])) for row in rows)
    assert cheap > dear
    assert cheap_error > dear_error
    assert bound.main([str(tmp_path / "none"), "-o", str(tmp_path)]) == 2
