"""The programs beside the trainer: evaluation, export, the comparison of optimisers, speed; labels and losses."""

import csv
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from BrainFusionLib.errors import WeightsError
from BrainFusionLib.fusion.weight_map import MOST_DARKENING
from BrainFusionLib.fusion.weights import find_weights, load_weights
from BrainFusionLib.metrics import gates
from BrainFusionLib.metrics.fusion import qabf
from training import losses
from training.checkpoint import load_checkpoint
from training.compare_optimisers import main as compare_optimisers
from training.config import RULES, LabelConfig, LossConfig, OptimiserConfig, ScheduleConfig
from training.config_file import read_config
from training.curves import main as curves
from training.evaluate import main as evaluate
from training.export import main as export
from training.labels import best_alpha, make_labels, rule_label
from training.loop import first_network
from training.losses import Batch, loss_of
from training.make_original_data import main as make_original_data
from training.optimisers import build_optimiser, learning_rate_share
from training.speed import main as speed
from training.train import train

CPU = torch.device("cpu")

TINY = """
[data]
source = "phantom"
train_heads = ["1"]
heldout_heads = ["2"]
spacing_mm = 8.0
slice_spacing_mm = 40.0
size = [32, 32]
cache = "{cache}"
shippable = {shippable}
terms = "made here"
[network]
name = "fusion_net"
width = 2
[training]
epochs = 2
batch_size = 2
device = "cpu"
threads = 1
[log]
progress = false
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    (folder / "tiny.toml").write_text(
        TINY.format(cache=(folder / "cache").as_posix(), shippable="false"), encoding="utf-8"
    )
    return folder / "tiny.toml"


@pytest.fixture(scope="module")
def run(config_file):
    folder = config_file.parent / "run"
    train(read_config(config_file), folder)
    return folder


def table_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def scene():
    """A disc of soft tissue in a ring of bone, as CT and MRI slices of 48x48 on the unit scale."""
    y, x = np.mgrid[:48, :48] - 23.5
    r = np.hypot(x, y)
    rng = np.random.default_rng(0)
    ct = np.where(r < 18, 0.25, np.where(r < 21, 1.3, 0.0)) + 0.01 * rng.standard_normal(r.shape)
    mri = np.where(r < 18, 0.6 + 0.3 * np.sin(x / 2) * np.sin(y / 3), np.where(r < 21, 0.05, np.where(r < 23, 0.9, 0)))
    bone = ((r >= 18) & (r < 21)).astype(np.float64)
    return ct.astype(np.float32), mri.astype(np.float32), bone.astype(np.float32)


def batch_of(ct, mri, bone, label=None):
    tensors = [torch.from_numpy(image)[None, None] for image in (ct, mri, bone, bone if label is None else label)]
    return Batch(*tensors, ids=torch.zeros(1))


# ------------------------------------------------------------------------------ losses and labels


@pytest.mark.parametrize("rule", ["average", "maximum", "bone_over_mri"])
def test_losses_equal_the_measures(rule):
    ct, mri, bone = scene()
    fused = rule_label(rule, ct[None], mri[None], bone[None])[0]
    batch, images = batch_of(ct, mri, bone), [image.astype(np.float64) * 255 for image in (fused, ct, mri)]
    one = torch.from_numpy(fused)[None, None]
    assert 1 - losses.qabf(one, batch).item() == pytest.approx(qabf(*images), abs=2e-4)
    told = gates(*images, bone)
    assert losses.bone(one, batch).item() * 255 == pytest.approx(told.bone_error, abs=1e-3)
    assert losses.soft(one, batch).item() * 255 == pytest.approx(told.soft_tissue_error, abs=1e-3)


@pytest.mark.parametrize("name", ["l1", "l2", "gradient", "ssim"])
def test_labelled_loss_is_0_only_at_the_label(name):
    ct, mri, bone = scene()
    batch = batch_of(ct, mri, bone, label=mri)
    assert losses.TERMS[name](batch.label, batch).item() == pytest.approx(0, abs=1e-6)
    assert losses.TERMS[name](batch.ct, batch).item() > 0.01


def test_the_loss_is_the_weighted_sum_of_its_terms():
    ct, mri, bone = scene()
    batch = batch_of(ct, mri, bone, label=mri)
    both = loss_of(batch.ct, batch, LossConfig(l1=2.0, ssim=3.0))
    assert both.item() == pytest.approx(2 * losses.l1(batch.ct, batch).item() + 3 * losses.ssim(batch.ct, batch).item())


def test_losses_of_empty_slices_have_finite_gradients():
    nothing = torch.zeros(1, 1, 32, 32)
    batch = Batch(nothing, nothing, nothing, nothing, torch.zeros(1))
    for name, term in losses.TERMS.items():
        fused = torch.zeros(1, 1, 32, 32, requires_grad=True)
        term(fused, batch).sum().backward()
        assert fused.grad is None or fused.grad.isfinite().all(), name


def test_optimum_beats_every_rule_within_its_sources():
    ct, mri, bone = scene()
    config = LabelConfig("optimum", steps=60)
    label = make_labels(ct[None], mri[None], bone[None], config, CPU)[0]

    def objective(fused):
        one, batch = torch.from_numpy(np.ascontiguousarray(fused))[None, None], batch_of(ct, mri, bone)
        return sum(
            t.item() for t in (losses.qabf(one, batch), 5 * losses.bone(one, batch), 5 * losses.soft(one, batch))
        )

    others = {rule: objective(rule_label(rule, ct[None], mri[None], bone[None])[0]) for rule in RULES}
    assert objective(label) < min(others.values()) - 0.01
    levels = [image.astype(np.float64) * 255 for image in (label, ct, mri)]
    told = gates(*levels, bone)
    assert told.bone_error < 0.5
    assert told.soft_tissue_error < 0.5
    assert told.overshoot < 1e-4


def test_slices_are_optimised_independently():
    ct, mri, bone = (torch.from_numpy(image)[None, None] for image in scene())
    config = LabelConfig("optimum", steps=5)
    both = best_alpha(*(torch.cat([image, image.flip(2) * 0.7]) for image in (ct, mri, bone)), config)
    torch.testing.assert_close(both[:1], best_alpha(ct, mri, bone, config), atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------ optimisers


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adagrad", "adadelta", "adam", "adamw", "lion"])
def test_every_optimiser_finds_the_bottom_of_a_bowl(name):
    rates = {"sgd": 0.05, "adadelta": 3.0, "adagrad": 0.5, "lion": 0.02}
    x = torch.nn.Parameter(torch.tensor([2.0, -1.5]))
    optimiser = build_optimiser([x], OptimiserConfig(name, learning_rate=rates.get(name, 0.05)))
    for _ in range(300):
        optimiser.zero_grad()
        (x**2).sum().backward()
        optimiser.step()
    assert x.abs().max() < 0.1


def test_lion_takes_steps_of_one_length_along_the_signs():
    x = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    optimiser = build_optimiser([x], OptimiserConfig("lion", learning_rate=0.1, weight_decay=0.5))
    (x * torch.tensor([3.0, -0.001, 0.0])).sum().backward()
    optimiser.step()
    torch.testing.assert_close(x.detach(), 0.95 - 0.1 * torch.tensor([1.0, -1.0, 0.0]))


def test_the_learning_rate_warms_up_and_falls():
    cosine = ScheduleConfig("cosine", warmup_steps=4, least=0.1)
    shares = [learning_rate_share(cosine, step, 24, 0) for step in range(25)]
    assert shares[:4] == [0.25, 0.5, 0.75, 1.0]
    assert shares[4:] == sorted(shares[4:], reverse=True)
    assert shares[14] == pytest.approx(0.55)
    assert shares[24] == pytest.approx(0.1)
    plateau = ScheduleConfig("plateau", factor=0.5, least=0.2)
    assert [learning_rate_share(plateau, 9, 24, count) for count in range(4)] == [1, 0.5, 0.25, 0.2]
    assert learning_rate_share(ScheduleConfig("constant"), 9, 24, 3) == 1


# ------------------------------------------------------------------------------ programs


def test_evaluation_measures_the_network_beside_the_rules(run, config_file, tmp_path):
    words = [str(run), "--config", str(config_file), "--output", str(tmp_path), "--slices", "2", "--optimum"]
    assert evaluate([*words, "--label.steps", "5"]) == 0
    rows = table_of(tmp_path / "means.csv")
    assert [row["method"] for row in rows] == ["network", *RULES, "optimum"]
    by_method = {row["method"]: row for row in rows}
    assert float(by_method["bone_over_mri"]["bone_error"]) < 1e-3
    assert float(by_method["optimum"]["Qabf"]) > float(by_method["bone_over_mri"]["Qabf"])
    assert float(by_method["average"]["bone_error"]) > 10
    means = json.loads((tmp_path / "means.json").read_text(encoding="utf-8"))
    assert means["Qabf"] == pytest.approx(float(by_method["network"]["Qabf"]))
    assert "| network |" in (tmp_path / "means.md").read_text(encoding="utf-8")
    assert len(table_of(tmp_path / "slices.csv")) == 2 * (2 + len(RULES))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == ((4 + len(RULES)) * 32, 2 * 32 + 16)


def test_evaluation_reads_slice_pairs_and_weights_files(run, tmp_path):
    ct, mri, _ = scene()
    for kind, image in (("CT", ct), ("MRI", mri)):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
        Image.fromarray(np.clip(image * 255, 0, 255).astype(np.uint8)).save(tmp_path / "pairs" / kind / "1.png")
    words = [str(run / "weights.npz"), "--pairs", str(tmp_path / "pairs"), "--output", str(tmp_path / "out")]
    assert evaluate(words) == 0
    rows = {row["method"]: row for row in table_of(tmp_path / "out" / "means.csv")}
    assert float(rows["bone_over_mri"]["overshoot"]) < 1e-3
    assert float(rows["maximum"]["bone_error"]) < 1


def test_evaluation_without_data_is_refused(run, tmp_path, caplog):
    assert evaluate([str(run), "--output", str(tmp_path)]) == 2
    assert "either --config FILE or --pairs FOLDER" in caplog.text
    assert evaluate([str(tmp_path / "none"), "--pairs", str(tmp_path), "--output", str(tmp_path)]) == 2


def test_export_writes_weights_manifest_golden_pair_and_card(run, tmp_path):
    (tmp_path / "means.json").write_text('{"Qabf": 0.5}', encoding="utf-8")
    words = [str(run), "--output", str(tmp_path / "out"), "--measures", str(tmp_path / "means.json")]
    assert export(words) == 0
    weights = load_weights(tmp_path / "out" / "weights.npz")
    np.testing.assert_array_equal(
        weights.arrays["output.weight"], load_checkpoint(run / "best.pt")["network"]["output.weight"].numpy()
    )
    assert weights.manifest.details["measures"] == {"Qabf": 0.5}
    assert "research use only" in weights.manifest.licence  # the data's terms do not say that they may be shipped
    trained_at = json.loads((run / "environment.json").read_text(encoding="utf-8"))["git"]
    assert weights.manifest.details["git"] == trained_at
    assert "| Qabf | 0.5000 |" in (tmp_path / "out" / "model_card.md").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "golden.npz").exists()


def test_export_of_another_folder_ends_with_a_message(tmp_path, caplog):
    assert export([str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "best.pt: is missing" in caplog.text


def test_the_curves_of_runs_are_drawn(run, tmp_path, caplog):
    pytest.importorskip("matplotlib")
    assert curves([str(run), str(run), "--output", str(tmp_path / "curves.png")]) == 0
    with Image.open(tmp_path / "curves.png") as picture:
        assert len(np.unique(np.asarray(picture))) > 10
    assert curves([str(tmp_path), "--output", str(tmp_path / "none.png")]) == 2
    assert "Name a run's folder" in caplog.text


def test_weights_that_are_not_finite_are_not_exported(run, tmp_path):
    from training.export import export as export_checkpoint

    content = load_checkpoint(run / "best.pt")
    content["network"]["output.bias"].fill_(torch.nan)
    with pytest.raises(WeightsError, match=r"output\.bias.*NaN"):
        export_checkpoint(content, tmp_path, {})


def test_optimisers_are_compared_in_a_table_and_a_plot(config_file, tmp_path, caplog):
    words = ["--config", str(config_file), "--output", str(tmp_path), "--optimisers", "adam", "sgd", "--seeds", "2"]
    with caplog.at_level(logging.INFO):
        assert compare_optimisers([*words, "--rates", "1"]) == 0
    rows = table_of(tmp_path / "comparison.csv")
    assert len(rows) == 2 * 2 * 2  # optimisers, seeds, epochs
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    best = min(("adam", "sgd"), key=lambda name: np.mean([
        min(float(row["heldout_loss"]) for row in rows if row["optimiser"] == name and row["seed"] == seed)
        for seed in "01"
    ]))  # fmt: skip
    assert f"**{best}** is best on held-out heads" in text
    assert "±" in text
    with Image.open(tmp_path / "comparison.png") as plot:
        assert plot.size[0] > 800
    caplog.clear()
    before = (tmp_path / "comparison.csv").read_text(encoding="utf-8")
    with caplog.at_level(logging.INFO):
        assert compare_optimisers([*words, "--rates", "1"]) == 0
    assert "learning rate" not in caplog.text  # nothing was run again
    assert (tmp_path / "comparison.csv").read_text(encoding="utf-8") == before


def test_an_unknown_optimiser_is_refused(config_file, tmp_path, caplog):
    words = ["--config", str(config_file), "--output", str(tmp_path), "--optimisers", "sdg"]
    assert compare_optimisers(words) == 2
    assert "optimisers: sgd, rmsprop" in caplog.text


def test_the_speed_of_the_data_is_printed(config_file, caplog):
    with caplog.at_level(logging.INFO):
        assert speed(["--config", str(config_file), "--steps", "4"]) == 0
    assert "data alone" in caplog.text
    assert "waiting for data" in caplog.text


def test_simulated_heads_come_in_the_original_layout_too(tmp_path):
    from BrainFusionLib.geometry import Grid
    from BrainFusionLib.io import read_volume, write_volume
    from BrainFusionLib.volume import Volume

    labels = np.zeros((180, 180, 180), np.float32)
    for margin, label in ((10, 511), (14, 507), (26, 515), (38, 24), (44, 2)):
        labels[(slice(margin, 180 - margin),) * 3] = label
    write_volume(Volume(labels[::3, ::3, ::3], Grid((60, 60, 60), (3.0, 3.0, 3.0))), tmp_path / "box.nii.gz")
    words = ["--output", str(tmp_path / "out"), "--heads", str(tmp_path / "box.nii.gz"), "--rule", "bone_over_mri"]
    assert make_original_data([*words, "--shrink", "8"]) == 0
    ct, mri = (read_volume(tmp_path / "out" / "box" / f"{name}.img") for name in ("ct", "mri"))
    assert ct.grid.size_ijk == (32, 32, 206 // 8)
    assert mri.grid.size_ijk == (32, 32, 220 // 8)
    assert ct.array_kji.max() > 500
    assert ct.array_kji.min() < -900


def test_missing_heads_of_original_data_are_rejected(tmp_path, caplog):
    assert make_original_data(["--output", str(tmp_path), "--heads", "phantom-x"]) == 2
    assert "phantom-7" in caplog.text
    assert make_original_data(["--output", str(tmp_path), "--heads", "none.nii.gz"]) == 2
    assert "none.nii.gz" in caplog.text


def test_a_configuration_can_be_used_twice(config_file):
    assert replace(read_config(config_file)) == read_config(config_file)


def test_training_can_start_from_weights_of_its_own_network():
    config = read_config("training/configs/default.toml", ["--training.start", "fusion_net_alpha"])
    shipped = load_weights(find_weights("fusion_net_alpha")).arrays
    for name, array in first_network(config).arrays().items():
        np.testing.assert_array_equal(array, shipped[name])
    for name, value in (("network.width", "8"), ("training.start", "fusion_net"), ("training.start_sha256", "0" * 64)):
        words = ["--training.start", "fusion_net_alpha", f"--{name}", value]
        with pytest.raises(WeightsError):
            first_network(read_config("training/configs/default.toml", words))


def test_the_label_leaves_no_black_ring():
    y, x = np.mgrid[:32, :32]
    bone = (np.abs(np.hypot(x - 16, y - 16) - 8) < 2).astype(np.float32)
    ct, mri, weight = (torch.from_numpy(a.astype(np.float32))[None, None] for a in (0.3 + 0.7 * bone, 1 - bone, bone))
    alpha = best_alpha(ct, mri, weight, LabelConfig(kind="optimum", steps=10))
    fused = alpha * ct + (1 - alpha) * mri
    assert (alpha > 0)[weight == 0].any()
    assert (mri - fused)[weight == 0].max() <= MOST_DARKENING + 1e-6
