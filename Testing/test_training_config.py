"""Configurations: read from TOML, changed by words of the command line, refused by file and key."""

from pathlib import Path

import pytest

from BrainFusionLib.errors import SettingsError
from BrainFusionLib.fusion.network import build_network
from training.config_file import config_from, read_config

CONFIGS = sorted((Path(__file__).parents[1] / "training" / "configs").glob("*.toml"))
DATA = 'source = "phantom"\ntrain_heads = ["1"]\nheldout_heads = ["2"]\n'
HEADS = f"[data]\n{DATA}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid(path):
    config = read_config(path)
    build_network(config.network)
    assert config.training.epochs >= 1


def test_the_original_recipe_is_kept():
    config = read_config(next(path for path in CONFIGS if path.stem == "original"))
    assert config.data.source == "original"
    assert config.data.size == [256, 256]
    assert config.label.kind == "given"
    assert config.network["name"] == "fusion_net"
    assert config.optimiser.name == "adam"
    assert config.schedule.name == "plateau"
    assert config.training.epochs >= 100


def test_shipped_weights_learn_from_shippable_data():
    config = read_config(next(path for path in CONFIGS if path.stem == "default"))
    assert config.data.shippable
    assert config.network["name"] == "fusion_net_alpha"
    assert sum(tensor.numel() for tensor in build_network(config.network).parameters()) <= 2_000_000


@pytest.mark.parametrize(
    ("words", "place", "value"),
    [
        (["--training.epochs", "3"], ("training", "epochs"), 3),
        (["--optimiser.learning_rate", "3e-4"], ("optimiser", "learning_rate"), 3e-4),
        (["--optimiser.name", "lion"], ("optimiser", "name"), "lion"),
        (["--data.flip", "true"], ("data", "flip"), True),
        (["--data.train_heads", '["3", "4"]'], ("data", "train_heads"), ["3", "4"]),
        (["--data.path", "/some/where"], ("data", "path"), "/some/where"),
        (["--simulation.metal", "0"], ("simulation", "metal"), 0),
        (["--log.steps", "2", "--log.steps", "7"], ("log", "steps"), 7),
    ],
)
def test_the_command_line_overrides_the_file(tmp_path, words, place, value):
    path = tmp_path / "some.toml"
    path.write_text(HEADS + "[training]\nepochs = 9\n", encoding="utf-8")
    assert getattr(getattr(read_config(path, words), place[0]), place[1]) == value


def test_network_arguments_work_on_the_command_line(tmp_path):
    path = tmp_path / "some.toml"
    path.write_text(HEADS, encoding="utf-8")
    assert read_config(path, ["--network.width", "4", "--network.name", "fusion_net"]).network == {
        "name": "fusion_net",
        "width": 4,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--training.epoch", "3"], r"unknown key training\.epoch; there are epochs"),
        (["--trainig.epochs", "3"], r"unknown key trainig; there are data"),
        (["--training.epochs", "three"], r"training\.epochs: must be a whole number; got 'three'"),
        (["--training.epochs"], r"--training\.epochs: a value is missing"),
        (["training.epochs", "3"], r"options look like --training\.epochs 3"),
        (["--epochs", "3"], r"options look like"),
    ],
)
def test_wrong_command_line_arguments_are_named(tmp_path, words, message):
    path = tmp_path / "some.toml"
    path.write_text(HEADS, encoding="utf-8")
    with pytest.raises(SettingsError, match=message):
        read_config(path, words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADS}[optimizer]\nname = 'adam'\n", r"unknown key optimizer; there are data, simulation"),
        (f"{HEADS}colour = 1\n", r"unknown key data\.colour; there are source"),
        (f"{HEADS}[training]\nlearningrate = 1\n", r"unknown key training\.learningrate"),
        ("[training]\nepochs = 1\n", r"a table \[data\] is needed"),
        ("[data]\nsource = 'phantom'\ntrain_heads = ['1']\n", r"table \[data\] is not complete.*heldout_heads"),
        ("[data]\nsource = 'phantom'\ntrain_heads = []\nheldout_heads = ['2']\n", r"at least one head"),
        (
            "[data]\nsource = 'phantom'\ntrain_heads = [1]\nheldout_heads = ['2']\n",
            r"must be a list of texts",
        ),
        ("[data]\nsource = 'cloud'\ntrain_heads = ['1']\nheldout_heads = ['2']\n", r"'cloud' is unknown; there are"),
        ("[data]\nsource = 'png'\ntrain_heads = ['1']\nheldout_heads = ['2']\n", r"data\.path: png needs one"),
        (f"{HEADS}size = [100, 100]\n", r"data\.size.*multiples of 16; got \[100, 100\]"),
        (f"{HEADS}on_the_fly = true\n", r"only simulated heads"),
        (f"{HEADS}contrasts = ['T9']\n", r"\['T9'\] are unknown; there are T1"),
        (f"{HEADS}contrasts = []\n", r"data\.contrasts: at least one"),
        (f"{HEADS}spacing_mm = 0\n", r"spacings must be more than 0"),
        (f"{HEADS}[label]\nkind = 'magic'\n", r"'magic' is unknown; there are bone_over_mri"),
        (f"{HEADS}[label]\nkind = 'none'\n", r"the loss compares with a label"),
        (f"{HEADS}[label]\nkind = 'given'\n", r"phantom heads come without fused volumes"),
        (f"{HEADS}[loss]\nl1 = 0\n", r"loss: one term must be more than 0"),
        (f"{HEADS}[loss]\nl1 = -1\n", r"loss.*0"),
        (f"{HEADS}[optimiser]\nname = 'sdg'\n", r"'sdg' is unknown; there are sgd"),
        (f"{HEADS}[optimiser]\nlearning_rate = -1.0\n", r"optimiser\.learning_rate.*got -1"),
        (f"{HEADS}[schedule]\nname = 'square'\n", r"'square' is unknown; there are cosine"),
        (f"{HEADS}[training]\nepochs = 0\n", r"training\.epochs.*got 0"),
        (f"{HEADS}[training]\nepochs = true\n", r"training\.epochs: must be a whole number; got True"),
        (f"{HEADS}[training]\nbatch_size = 6\naccumulate = 4\n", r"4 does not divide the batch of 6"),
        (f"{HEADS}[training]\nprecision = 'int8'\n", r"'int8' is unknown; there are float32"),
        (f"{HEADS}[training]\nema = 1.0\n", r"training\.ema.*got 1"),
        (f"{HEADS}[simulation]\nmetal = -1.0\n", r"simulation\.metal.*got -1"),
        (f"network = 3\n{HEADS}", r"must be a table \[network\]"),
        ("[data\n", r"cannot be read as a TOML"),
    ],
)
def test_a_wrong_configuration_is_refused_by_file_and_key(tmp_path, text, message):
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=rf"(?s)wrong\.toml: .*{message}"):
        read_config(path)


def test_slow_labels_are_refused_on_the_fly():
    data = {"source": "simulated", "train_heads": ["phantom-1"], "heldout_heads": ["phantom-2"], "on_the_fly": True}
    with pytest.raises(SettingsError, match="optimum takes too long"):
        config_from({"data": data, "label": {"kind": "optimum"}})
