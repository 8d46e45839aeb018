"""The networks that are served, and the formula that joins them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from homomorph.errors import ConfigError
from homomorph.models.compact import Layers
from homomorph.models.config import CompactConfig, ModelConfig, served_name
from homomorph.models.morph import MorphModel, interpolate, parameter_counts
from homomorph.training.settings import MorphPreset, read_preset

GROUPS = {"expression": ("smiling",), "glasses": ("round", "square")}


@pytest.fixture
def model(tiny: MorphPreset) -> MorphModel:
    torch.manual_seed(0)
    model = MorphModel(ModelConfig(GROUPS, 32, tiny.network))
    for parameter in model.parameters():  # leave the identity that training starts from
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def test_interpolate_is_the_formula() -> None:
    source, deltas, strengths = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 3, 4, 5), torch.randn(2, 7, 6)
    expected = torch.stack(
        [
            torch.stack([source[b] + sum(strengths[b, s, k] * deltas[b, k] for k in range(6)) for s in range(7)])
            for b in range(2)
        ]
    )
    torch.testing.assert_close(interpolate(source, deltas, strengths), expected)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 40)])
def test_any_multiple_of_the_stride(model: MorphModel, height: int, width: int) -> None:
    a, b = torch.randn(2, 3, height, width), torch.randn(2, 3, height, width)
    assert model.encoder(a).shape == (2, 16, height // 8, width // 8)
    assert model(a, b, torch.rand(2, 4, 3)).shape == (2, 4, 3, height, width)


@pytest.mark.parametrize("groups", [1, 2, 7])
@pytest.mark.parametrize("preset", ["avatars64", "avatars128", "faces", "celeba128"])
def test_branches_start_as_complementary_projections(preset: str, groups: int) -> None:
    network = read_preset(preset).network
    assert isinstance(network, CompactConfig)
    model = MorphModel(ModelConfig({f"g{index}": (f"l{index}",) for index in range(groups)}, 64, network))
    source, target = torch.randn(2, 2, network.feature_channels, 4, 4)
    deltas = model.deltas(source, target)
    torch.testing.assert_close(source + deltas.sum(dim=1), target)
    for branch, delta in zip(model.branches.values(), deltas.unbind(1), strict=True):
        assert delta.abs().sum() > 0
        torch.testing.assert_close(branch(delta), delta)
        others = (other for other in model.branches.values() if other is not branch)
        assert all(not other(delta).any() for other in others)


def test_no_strength_gives_the_source_and_equal_pictures_never_change(model: MorphModel) -> None:
    a, b = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 32, 32)
    reconstruction = model.decoder(model.encoder(a))
    torch.testing.assert_close(model(a, b, torch.zeros(1, 1, 3))[:, 0], reconstruction)
    torch.testing.assert_close(model(a, a, torch.ones(1, 1, 3))[:, 0], reconstruction)
    assert not torch.allclose(model(a, b, torch.ones(1, 1, 3))[:, 0], reconstruction)


def test_a_result_does_not_depend_on_its_batch(model: MorphModel) -> None:
    a, b, v = torch.randn(5, 3, 32, 32), torch.randn(5, 3, 32, 32), torch.rand(5, 2, 3)
    torch.testing.assert_close(model(a, b, v)[3:4], model(a[3:4], b[3:4], v[3:4]), atol=1e-5, rtol=1e-5)


def test_layers_show_the_candidate_that_their_logits_choose() -> None:
    candidates = torch.randn(2, 3 * 3, 4, 4)
    logits = torch.full((2, 3, 4, 4), -10.0)
    logits[:, 1] = 10
    picture = Layers(3)(torch.cat([candidates, logits], dim=1))
    torch.testing.assert_close(picture, candidates[:, 3:6])
    even = Layers(3)(torch.cat([candidates, torch.zeros(2, 3, 4, 4)], dim=1))
    torch.testing.assert_close(even, candidates.unflatten(1, (3, 3)).mean(dim=1))


def test_parameters_of_a_preset_are_counted() -> None:
    counts = parameter_counts(MorphModel(ModelConfig(GROUPS, 64, read_preset("avatars64").network)))
    assert list(counts) == ["encoder", "branches", "decoder"]
    assert counts["branches"] == 3 * 2 * 160 * 80


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"picture_size": 60}, "multiple of 8"),
        ({"groups": {}}, "at least one"),
        ({"network": {"family": "compact", "depth": 3}}, "depth"),
    ],
)
def test_bad_configurations_are_refused(values: dict[str, object], message: str) -> None:
    good = ModelConfig(GROUPS).to_dict()
    assert ModelConfig.from_dict(good) == ModelConfig(GROUPS)
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(good | values)


def test_context_carries_what_b_shows_elsewhere_and_is_not_dropped(tiny: MorphPreset) -> None:
    config = ModelConfig(GROUPS, 32, dataclasses.replace(tiny.network, branch_context=True))
    branch = MorphModel(config).branches["glasses"]
    corner = torch.zeros(1, 16, 8, 8)
    corner[..., 0, 0] = 1
    assert not branch(corner)[..., 6:, 6:].any()
    torch.nn.init.normal_(branch.context.weight)
    assert branch(corner)[..., 6:, 6:].any()
    torch.testing.assert_close(branch(3 * corner), 3 * branch(corner))


@pytest.mark.parametrize(
    ("attribute", "name"),
    [("Smiling", "smiling"), ("5_o_Clock_Shadow", "a_5_o_clock_shadow"), ("Bags Under Eyes", "bags_under_eyes")],
)
def test_attributes_name_served_models(attribute: str, name: str) -> None:
    assert served_name(attribute) == name


def test_an_attribute_without_letters_names_nothing() -> None:
    with pytest.raises(ConfigError, match="cannot name a served model"):
        served_name("笑顔")


@pytest.mark.parametrize(("recipe", "rate"), [("default", 1e-2), ("published", 6e-4)])
def test_a_preset_without_a_learning_rate_gets_that_of_its_recipe(recipe: str, rate: float, tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    text = f"method: homomorph\npicture_size: 64\nnetwork: {{family: compact}}\nrecipe: {{name: {recipe}}}\n"
    preset.write_text(text)
    assert read_preset(str(preset)).learning_rate == rate
    assert read_preset(str(preset), ["learning_rate=1e-3"]).learning_rate == 1e-3
    preset.write_text(text + "learning_rate: 2.0e-3\n")
    assert read_preset(str(preset), recipe=recipe).learning_rate == 2e-3
    assert read_preset("avatars64", recipe=recipe).learning_rate == rate
