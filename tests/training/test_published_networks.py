"""The networks published with HomoInterpGAN, and the configurations that tell the families apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from homomorph.data.labels import LabelledPictures
from homomorph.errors import ConfigError
from homomorph.models.config import CompactConfig, ModelConfig, PublishedConfig
from homomorph.models.morph import MorphModel, parameter_counts
from homomorph.runs.run import load_model, resolve_run
from homomorph.training import loop
from homomorph.training.default.recipe import DefaultRecipe
from homomorph.training.methods import make_method
from homomorph.training.published.recipe import PublishedRecipe
from homomorph.training.settings import MorphPreset

NARROW = PublishedConfig(feature_channels=16, widths=(4, 6, 8, 12))
GROUPS = {"expression": ("smiling",), "glasses": ("round", "square")}


@pytest.fixture
def model() -> MorphModel:
    torch.manual_seed(0)
    return MorphModel(ModelConfig(GROUPS, 32, NARROW)).eval()


def test_parameters_are_as_many_as_published() -> None:
    groups = {group: (group.upper(),) for group in ("expression", "gender_trait", "hair_colour", "hair_style", "age")}
    with torch.device("meta"):
        model = MorphModel(ModelConfig(groups, 128, PublishedConfig()))
    assert parameter_counts(model) == {"encoder": 12_944_960, "branches": 6 * 7_079_424, "decoder": 6_201_603}


def test_layers_stand_where_the_checkpoints_have_them(model: MorphModel) -> None:
    layers = dict(model.decoder.named_modules())
    convolutions = [0, 4, 7, 10, 13, 17, 20, 23, 26, 30, 33, 37, 40]
    assert [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)] == [
        f"model.{n}" for n in convolutions
    ]
    assert [name for name, layer in layers.items() if isinstance(layer, nn.BatchNorm2d)] == [
        f"model.{n + 1}" for n in convolutions[:-1]
    ]
    kinds = [type(layer).__name__ for layer in model.encoder.modules()]
    assert (kinds.count("Conv2d"), kinds.count("ReLU"), kinds.count("MaxPool2d")) == (13, 13, 4)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 80)])
def test_any_multiple_of_16(model: MorphModel, height: int, width: int) -> None:
    a, b = torch.randn(2, 3, height, width), torch.randn(2, 3, height, width)
    assert model.encoder(a).shape == (2, 16, height // 16, width // 16)
    assert model(a, b, torch.rand(2, 4, 3)).shape == (2, 4, 3, height, width)


def test_a_result_does_not_depend_on_its_batch(model: MorphModel) -> None:
    a, b, v = torch.randn(5, 3, 32, 32), torch.randn(5, 3, 32, 32), torch.rand(5, 2, 3)
    torch.testing.assert_close(model(a, b, v)[3:4], model(a[3:4], b[3:4], v[3:4]), atol=1e-5, rtol=1e-5)


def test_features_begin_as_large_as_pictures_are() -> None:
    torch.manual_seed(0)
    model = MorphModel(ModelConfig(GROUPS, 32, PublishedConfig(feature_channels=64, widths=(64, 64, 64, 64))))
    with torch.no_grad():
        features = model.encoder(torch.randn(4, 3, 32, 32))
    assert 0.1 < features.square().mean().sqrt() < 10


def test_a_configuration_names_its_family() -> None:
    published, compact = ModelConfig(GROUPS, 32, NARROW), ModelConfig(GROUPS)
    assert published.to_dict()["network"]["family"] == "published"
    assert ModelConfig.from_dict(published.to_dict()) == published
    assert (published.network.stride, published.feature_size) == (16, 2)
    values = compact.to_dict()
    assert values["network"]["family"] == "compact"
    assert ModelConfig.from_dict(values) == compact
    assert (compact.network.stride, compact.feature_size) == (8, 8)


def test_bad_configurations_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 16, not 40"):
        ModelConfig(GROUPS, 40, NARROW)
    with pytest.raises(ConfigError, match="'compact', 'published'"):
        ModelConfig.from_dict(ModelConfig(GROUPS).to_dict() | {"network": {"family": "resnet"}})
    with pytest.raises(ConfigError, match=r"network\.widths\.3: Field required"):
        ModelConfig.from_dict(
            ModelConfig(GROUPS, 32, NARROW).to_dict() | {"network": CompactConfig().__dict__ | {"family": "published"}}
        )
    with pytest.raises(ConfigError, match="widths must be positive"):
        PublishedConfig(widths=(64, 128, 256, 0))


def test_shipped_weights_still_load() -> None:
    assert load_model(resolve_run("avatars64")).config.network.family == "compact"


@pytest.mark.parametrize(
    "recipe", [PublishedRecipe(phi_steps=1), DefaultRecipe(decoder_from=0.5)], ids=["published", "default"]
)
def test_the_published_networks_train(
    data: LabelledPictures, tmp_path: Path, recipe: PublishedRecipe | DefaultRecipe
) -> None:
    preset = MorphPreset(picture_size=32, network=NARROW, batch_size=4, steps=3, recipe=recipe)
    loop.train(make_method(data, preset), tmp_path / "run", steps=3, checkpoint_every=3, workers=0)
    tmp_path = tmp_path / "run"
    model = load_model(tmp_path)
    assert model.config.network == NARROW
    # What is saved as the model has the statistics that the training has gathered.
    state = load_file(tmp_path / "training.safetensors")
    statistics = {key: value for key, value in model.state_dict().items() if "running" in key}
    assert len(statistics) == 24
    for key, value in statistics.items():
        assert torch.equal(value, state[f"networks.model.{key}"])
        assert not torch.equal(value, torch.full_like(value, float("var" in key)))
