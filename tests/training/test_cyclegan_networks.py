"""CycleGAN's networks, and checkpoints of the implementation in wide use, compared with their formulas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from homomorph.errors import CheckpointError, ConfigError
from homomorph.models.cyclegan import CycleGAN, PatchDiscriminator, start
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.runs.cyclegan import is_cyclegan, load_cyclegan
from homomorph.runs.import_cyclegan import import_cyclegan
from homomorph.runs.run import load_model, save_model

State = dict[str, Tensor]


def resnet_state(filters: int, blocks: int, *, dropout: bool = False, statistics: bool = False) -> State:
    """State dict of a `resnet_*blocks` generator, names as the files have them."""
    generator = torch.Generator().manual_seed(0)
    state: State = {}

    def layer(name: str, *shape: int, outputs: int, normalised: bool = True) -> None:
        state[f"{name}.weight"] = 0.1 * torch.randn(*shape, generator=generator)
        state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
        if statistics and normalised:
            head, _, number = name.rpartition(".")
            norm = f"{head}.{int(number) + 1}"
            state[f"{norm}.running_mean"] = torch.randn(outputs, generator=generator)
            state[f"{norm}.running_var"] = torch.rand(outputs, generator=generator)

    wide = 4 * filters
    layer("model.1", filters, 3, 7, 7, outputs=filters)
    layer("model.4", 2 * filters, filters, 3, 3, outputs=2 * filters)
    layer("model.7", wide, 2 * filters, 3, 3, outputs=wide)
    for block in range(10, 10 + blocks):
        layer(f"model.{block}.conv_block.1", wide, wide, 3, 3, outputs=wide)
        layer(f"model.{block}.conv_block.{6 if dropout else 5}", wide, wide, 3, 3, outputs=wide)
    up = 10 + blocks
    layer(f"model.{up}", wide, 2 * filters, 3, 3, outputs=2 * filters)
    layer(f"model.{up + 3}", 2 * filters, filters, 3, 3, outputs=filters)
    layer(f"model.{up + 7}", 3, filters, 7, 7, outputs=3, normalised=False)
    return state


def resnet_formula(state: State, x: Tensor, blocks: int, second: int = 5) -> Tensor:
    """What the published generator computes, layer by layer."""

    def weights(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def padded(x: Tensor, name: str, pad: int) -> Tensor:
        return F.conv2d(F.pad(x, (pad,) * 4, mode="reflect"), *weights(name))

    x = F.relu(F.instance_norm(padded(x, "model.1", 3)))
    for name in ("model.4", "model.7"):
        x = F.relu(F.instance_norm(F.conv2d(x, *weights(name), stride=2, padding=1)))
    for block in range(10, 10 + blocks):
        y = F.relu(F.instance_norm(padded(x, f"model.{block}.conv_block.1", 1)))
        x = x + F.instance_norm(padded(y, f"model.{block}.conv_block.{second}", 1))
    for number in (10 + blocks, 13 + blocks):
        y = F.conv_transpose2d(x, *weights(f"model.{number}"), stride=2, padding=1, output_padding=1)
        x = F.relu(F.instance_norm(y))
    return torch.tanh(padded(x, f"model.{17 + blocks}", 3))


def unet_state(filters: int, levels: int) -> State:
    """State dict of a `unet_*` generator, names as the files have them."""
    generator = torch.Generator().manual_seed(0)
    widths = [3, *(filters * min(2**level, 8) for level in range(levels))]
    state: State = {}
    prefix = "model.model"
    for level in range(levels):
        outer, inner = widths[level], widths[level + 1]
        outermost, innermost = level == 0, level == levels - 1
        down, up = (0, 3) if outermost else (1, 3) if innermost else (1, 5)
        state[f"{prefix}.{down}.weight"] = 0.2 * torch.randn(inner, outer, 4, 4, generator=generator)
        state[f"{prefix}.{down}.bias"] = 0.1 * torch.randn(inner, generator=generator)
        inside = inner if innermost else 2 * inner
        state[f"{prefix}.{up}.weight"] = 0.2 * torch.randn(inside, outer, 4, 4, generator=generator)
        state[f"{prefix}.{up}.bias"] = 0.1 * torch.randn(outer, generator=generator)
        prefix += ".1.model" if outermost else ".3.model"
    return state


def unet_formula(state: State, x: Tensor, levels: int, prefix: str = "model.model", level: int = 0) -> Tensor:
    """What the published generator computes; as there, LeakyReLU changes in place what skips a level."""
    outermost, innermost = level == 0, level == levels - 1
    down, up = (0, 3) if outermost else (1, 3) if innermost else (1, 5)
    y = x if outermost else F.leaky_relu(x, 0.2, inplace=True)
    y = F.conv2d(y, state[f"{prefix}.{down}.weight"], state[f"{prefix}.{down}.bias"], stride=2, padding=1)
    if not innermost:
        y = y if outermost else F.instance_norm(y)
        y = unet_formula(state, y, levels, prefix + (".1.model" if outermost else ".3.model"), level + 1)
    y = F.relu(y)
    y = F.conv_transpose2d(y, state[f"{prefix}.{up}.weight"], state[f"{prefix}.{up}.bias"], stride=2, padding=1)
    return torch.tanh(y) if outermost else torch.cat([x, F.instance_norm(y)], dim=1)


@pytest.mark.parametrize("blocks", [6, 9])
@pytest.mark.parametrize(("dropout", "statistics"), [(False, False), (True, False), (False, True)])
def test_a_resnet_checkpoint_computes_what_it_was_published_with(
    tmp_path: Path, blocks: int, dropout: bool, statistics: bool
) -> None:
    state = resnet_state(4, blocks, dropout=dropout, statistics=statistics)
    torch.save(state, tmp_path / "latest_net_G.pth")
    import_cyclegan(tmp_path / "latest_net_G.pth", tmp_path / "run", direction="summer")
    model = load_cyclegan(tmp_path / "run")
    assert model.config == CycleGANConfig(("summer",), f"resnet_{blocks}blocks", 4, 256)
    picture = torch.rand(2, 3, 24, 20) * 2 - 1
    expected = resnet_formula(state, picture, blocks, second=6 if dropout else 5)
    torch.testing.assert_close(model("summer", picture), expected)


@pytest.mark.parametrize(("generator", "levels"), [("unet_64", 6), ("unet_256", 8)])
def test_a_unet_checkpoint_computes_what_it_was_published_with(tmp_path: Path, generator: str, levels: int) -> None:
    state = unet_state(2, levels)
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "latest_net_G.pth")
    model = import_cyclegan(tmp_path / "latest_net_G.pth", tmp_path / "run")
    assert model.config.generator == generator
    picture = torch.rand(2, 3, 2**levels, 2**levels) * 2 - 1
    torch.testing.assert_close(model("translate", picture), unet_formula(state, picture.clone(), levels))


def test_what_is_no_generator_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    for state, message in (
        ({"model.0.weight": torch.zeros(4, 3, 3, 3)}, "holds no CycleGAN generator: known are resnet_6blocks"),
        (resnet_state(2, 5), "holds no CycleGAN generator"),
        (resnet_state(2, 6) | {"model.2.weight": torch.ones(2)}, "normalises with weights, as BatchNorm does"),
        (resnet_state(2, 6) | {"model.7.weight": torch.zeros(8, 4, 3, 2)}, "does not fit the published network: 1 "),
        (resnet_state(2, 6) | {"model.7.bias": torch.full((8,), torch.nan)}, "holds NaN or infinity"),
    ):
        torch.save(state, file)
        with pytest.raises(CheckpointError, match=message):
            import_cyclegan(file, tmp_path / "run")
    torch.save(resnet_state(2, 6), file)
    with pytest.raises(CheckpointError, match=r"holds a resnet_6blocks, not a unet_256"):
        import_cyclegan(file, tmp_path / "run", generator="unet_256")
    with pytest.raises(ConfigError, match="direction 'To Summer' must be lower-case"):
        import_cyclegan(file, tmp_path / "run", direction="To Summer")
    with pytest.raises(ConfigError, match="picture_size must be a positive multiple of 4 for resnet_6blocks, not 30"):
        import_cyclegan(file, tmp_path / "run", picture_size=30)
    assert not (tmp_path / "run").exists()


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
        ({"generator": "resnet_7blocks"}, "generator must be resnet_6blocks or "),
        ({"filters": 0}, "filters must be at least 1"),
        ({"picture_size": 96, "generator": "unet_64"}, "a positive multiple of 64 for unet_64, not 96"),
        ({"directions": ()}, "directions must be different names, not none"),
        ({"directions": ("on", "on")}, "directions must be different names, not on, on"),
        ({"colour": 1}, "not a CycleGAN configuration"),
    ],
)
def test_a_wrong_configuration_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CycleGANConfig.from_dict({"method": "cyclegan", "directions": ["on"]} | values)
