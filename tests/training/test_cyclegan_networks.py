"""CycleGAN's networks and their configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from homomorph.errors import CheckpointError, ConfigError
from homomorph.models.cyclegan import CycleGAN, PatchDiscriminator, start
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.runs.cyclegan import is_cyclegan
from homomorph.runs.run import load_model, save_model


def test_parameters_are_as_many_as_published() -> None:
    counts = {}
    with torch.device("meta"):
        for name in ("resnet_9blocks", "resnet_6blocks", "unet_256"):
            model = CycleGAN(CycleGANConfig(("there",), name, 64, 256))
            counts[name] = sum(value.numel() for value in model.parameters())
        discriminator = PatchDiscriminator()
    assert counts == {"resnet_9blocks": 11_378_179, "resnet_6blocks": 7_837_699, "unet_256": 54_409_603}
    assert sum(value.numel() for value in discriminator.parameters()) == 2_764_737


@pytest.mark.parametrize("generator", ["resnet_6blocks", "unet_64"])
def test_a_result_does_not_depend_on_its_batch(generator: str) -> None:
    torch.manual_seed(0)
    model = CycleGAN(CycleGANConfig(("there",), generator, 4, 64)).eval()
    pictures = torch.rand(5, 3, 64, 64) * 2 - 1
    together = model("there", pictures)
    torch.testing.assert_close(together[2:3], model("there", pictures[2:3]))
    assert (together[0] - together[1]).abs().mean() > 1e-4


@pytest.mark.parametrize("generator", ["resnet_6blocks", "unet_64"])
def test_a_residual_generator_adds_to_the_picture(generator: str) -> None:
    torch.manual_seed(0)
    plain = CycleGAN(CycleGANConfig(("there",), generator, 4, 64)).eval()
    residual = CycleGAN(CycleGANConfig(("there",), generator, 4, 64, residual=True)).eval()
    residual.load_state_dict(plain.state_dict())
    picture = torch.rand(2, 3, 64, 64) * 2 - 1
    expected = (picture + 2 * plain("there", picture)).clamp(-1, 1)
    torch.testing.assert_close(residual("there", picture), expected)


def test_training_and_evaluation_normalise_alike() -> None:
    torch.manual_seed(0)
    model = CycleGAN(CycleGANConfig(("there",), "resnet_6blocks", 4, 64)).to(memory_format=torch.channels_last)
    picture = (torch.rand(2, 3, 64, 64) * 2 - 1).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model.train()("there", picture), model.eval()("there", picture))


def test_a_patch_is_70_pixels_wide() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(2)
    start(discriminator)
    picture = torch.rand(1, 3, 160, 160, requires_grad=True)
    # InstanceNorm sees the whole picture; without it, one score depends on its patch alone.
    layers = [layer for layer in discriminator.model if not isinstance(layer, torch.nn.InstanceNorm2d)]
    scores = torch.nn.Sequential(*layers)(picture)
    (gradient,) = torch.autograd.grad(scores[0, 0, 9, 9], picture)
    rows = gradient.abs().sum(dim=(0, 1, 3)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 70


def test_a_run_says_which_method_it_is_of(tmp_path: Path) -> None:
    save_model(tmp_path / "run", CycleGAN(CycleGANConfig(("smiling", "not_smiling"), "resnet_6blocks", 2, 32)))
    assert is_cyclegan(tmp_path / "run")
    assert not is_cyclegan(tmp_path)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["method"] == "cyclegan"
    with pytest.raises(CheckpointError, match="it is a model of the method cyclegan, not of homomorph"):
        load_model(tmp_path / "run")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"generator": "resnet_99blocks"}, "generator must be resnet_6blocks or "),
        ({"generator": "unet_100"}, "generator must be resnet_6blocks or "),
        ({"filters": 10**9}, "filters must be at least 1, at most 65536"),
        ({"padding": "circular"}, "padding: Input should be 'reflect', "),
        ({"channels_in": 4}, "channels must be 1 or 3"),
        ({"filters": 0}, "filters must be at least 1"),
        ({"picture_size": 96, "generator": "unet_64"}, "a positive multiple of 64 for unet_64, not 96"),
        ({"directions": ()}, "directions must be different names, not none"),
        ({"directions": ("on", "on")}, "directions must be different names, not on, on"),
        ({"colour": 1}, "colour: Unexpected keyword argument"),
    ],
)
def test_a_wrong_configuration_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CycleGANConfig.from_dict({"method": "cyclegan", "directions": ["on"]} | values)
