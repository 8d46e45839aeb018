"""`homomorph import`: published checkpoints with random weights, compared with their formulas, and exported."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from homomorph.errors import CheckpointError
from homomorph.models.config import PublishedConfig
from homomorph.runs.import_homointerpgan import CELEBA_GROUPS, import_homointerpgan
from homomorph.runs.run import load_model
from homomorph_client.errors import OutputError
from homomorph_export import torchscript
from homomorph_export.exporter import export_run
from homomorph_export.ops.interpolate import load_operator

NARROW = PublishedConfig(feature_channels=16, widths=(4, 6, 8, 12))
FILES = ("encoder-latest.pth", "interp_net-latest.pth", "decoder-latest.pth")
POOLED = ("conv1_2", "conv2_2", "conv3_4", "conv4_4")
UPSAMPLED = (0, 13, 26, 33)
State = dict[str, Tensor]


def random_states(network: PublishedConfig, branches: int = 6) -> tuple[State, State, State]:
    """State dicts of the three published files, names and order as the files have them."""
    generator = torch.Generator().manual_seed(0)
    full, half, quarter, eighth = network.widths
    deep = network.feature_channels

    def convolution(name: str, inputs: int, outputs: int) -> State:
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator) * math.sqrt(2 / (9 * inputs))
        return {f"{name}.weight": weight, f"{name}.bias": 0.1 * torch.randn(outputs, generator=generator)}

    def batch_norm(name: str, channels: int) -> State:
        noise = 0.1 * torch.randn(3, channels, generator=generator)
        return {
            f"{name}.weight": 1 + noise[0],
            f"{name}.bias": noise[1],
            f"{name}.running_mean": noise[2],
            f"{name}.running_var": 0.5 + torch.rand(channels, generator=generator),
            f"{name}.num_batches_tracked": torch.tensor(1000),
        }

    encoder: State = {}
    inputs = 3
    stages = ((1, 2, full), (2, 2, half), (3, 4, quarter), (4, 4, eighth), (5, 1, deep))
    for stage, count, outputs in stages:
        for index in range(1, count + 1):
            part = 1 if (stage, index) <= (3, 1) else 2 if (stage, index) <= (4, 1) else 3
            encoder |= convolution(f"module.model.features_{part}.conv{stage}_{index}", inputs, outputs)
            inputs = outputs

    interpolator: State = {}
    for branch in range(branches):
        for layer in (0, 2, 4):
            interpolator |= convolution(f"module.branch.{branch}.model.{layer}", deep, deep)

    decoder: State = {}
    widths = [eighth, *[quarter] * 4, *[half] * 4, full, full, full]
    inputs = deep
    for n, outputs in zip((0, 4, 7, 10, 13, 17, 20, 23, 26, 30, 33, 37), widths, strict=True):
        decoder |= convolution(f"module.model.{n}", inputs, outputs) | batch_norm(f"module.model.{n + 1}", outputs)
        inputs = outputs
    return encoder, interpolator, decoder | convolution("module.model.40", inputs, 3)


def write(folder: Path, states: tuple[State, State, State], **options: Any) -> Path:
    folder.mkdir()
    for name, state in zip(FILES, states, strict=True):
        torch.save(state, folder / name, **options)
    return folder


def morphed(states: tuple[State, State, State], source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
    """The published computation, from the tensors alone: normalised [B, 3, H, W] and [B, K] to [B, 3, H, W]."""
    encoder, interpolator, decoder = states

    def convolve(x: Tensor, state: State, name: str) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def encode(x: Tensor) -> Tensor:
        for name in (key.removesuffix(".weight") for key in encoder if key.endswith(".weight")):
            x = F.relu(convolve(x, encoder, name))
            x = F.max_pool2d(x, 2) if name.endswith(POOLED) else x
        return x

    x = encode(source)
    difference = encode(target) - x
    for branch, strength in enumerate(strengths.unbind(1)):
        delta = difference
        for layer in (0, 2, 4):
            delta = convolve(F.relu(delta) if layer else delta, interpolator, f"module.branch.{branch}.model.{layer}")
        x = x + strength.view(-1, 1, 1, 1) * delta
    for n in (0, 4, 7, 10, 13, 17, 20, 23, 26, 30, 33, 37):
        norm = [decoder[f"module.model.{n + 1}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        x = F.relu(F.batch_norm(convolve(x, decoder, f"module.model.{n}"), *norm))
        x = F.interpolate(x, scale_factor=2, mode="nearest") if n in UPSAMPLED else x
    return convolve(x, decoder, "module.model.40")


@pytest.fixture(scope="module")
def states() -> tuple[State, State, State]:
    return random_states(NARROW)


@pytest.fixture(scope="module")
def run(states: tuple[State, State, State], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("import")
    import_homointerpgan(write(folder / "published", states), folder / "run", network=NARROW)
    return folder / "run"


def test_a_run_computes_what_the_published_networks_compute(states: tuple[State, State, State], run: Path) -> None:
    model = load_model(run)
    assert model.config.groups == CELEBA_GROUPS
    assert (model.config.picture_size, model.config.network) == (128, NARROW)
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "model.safetensors"]
    source, target, strengths = torch.randn(2, 3, 64, 96), torch.randn(2, 3, 64, 96), torch.rand(2, 6)
    expected = morphed(states, source, target, strengths)
    assert expected.std() > 0.1
    torch.testing.assert_close(model(source, target, strengths.unsqueeze(1))[:, 0], expected, atol=1e-4, rtol=1e-4)


def test_files_of_any_age_are_the_same_run(states: tuple[State, State, State], run: Path, tmp_path: Path) -> None:
    bare = tuple(
        {key.removeprefix("module."): value for key, value in state.items() if "num_batches" not in key}
        for state in states
    )
    write(tmp_path / "published", bare, _use_new_zipfile_serialization=False)  # as torch before 1.6 wrote
    (tmp_path / "run").mkdir()
    import_homointerpgan(tmp_path / "published", tmp_path / "run", network=NARROW)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()


def test_an_export_computes_what_the_run_computes(
    states: tuple[State, State, State], run: Path, tmp_path: Path
) -> None:
    manifest = export_run(run, tmp_path / "repository", onnx=False)
    assert (manifest.picture_size, manifest.stride) == (128, 16)
    assert manifest.groups == (*CELEBA_GROUPS, "residual")
    assert all(parity.mean <= 0.02 and parity.max <= 1 for parity in manifest.parity.values())

    load_operator()
    names = ("encoder_pair", "interpolator", "decoder")
    modules = {name: torchscript.load_torchscript(tmp_path / "repository" / name / "1" / "model.pt") for name in names}
    source, target = torch.randint(0, 256, (2, 3, 64, 96, 3), generator=torch.manual_seed(0)).to(torch.uint8)
    strengths = torch.rand(3, 1, 6)
    with torch.inference_mode():
        frames = modules["decoder"](modules["interpolator"](*modules["encoder_pair"](source, target), strengths))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pictures = [((picture / 255 - mean) / std).permute(0, 3, 1, 2) for picture in (source, target)]
    expected = (morphed(states, *pictures, strengths[:, 0]).permute(0, 2, 3, 1) * std + mean) * 255
    assert (frames[:, 0] - expected.clamp(0, 255)).abs().max() <= 0.51  # rounding
    assert "batch_norm" not in str(modules["decoder"].inlined_graph), "BatchNorm costs nothing: it is in the weights"

    for name in ("morph", "interpolator"):
        config = (tmp_path / "repository" / name / "config.pbtxt").read_text()
        assert 'key: "stride"\n  value {\n    string_value: "16"' in config or '\\"stride\\": 16' in config
    assert '\\"H\\": [16, 2048, 16]' in (tmp_path / "repository" / "encoder" / "config.pbtxt").read_text()


def test_groups_name_the_branches_of_another_checkpoint(tmp_path: Path) -> None:
    published = write(tmp_path / "published", random_states(NARROW, branches=3))
    with pytest.raises(CheckpointError, match=r"has 3 branches, but 5 groups .* need 6: .*--groups"):
        import_homointerpgan(published, tmp_path / "run", network=NARROW)
    groups = {"glasses": ("Eyeglasses",), "hat": ("Wearing_Hat",)}
    model = import_homointerpgan(published, tmp_path / "run", groups=groups, network=NARROW)
    assert model.config.branches == ("glasses", "hat", "residual")


class Malicious:
    """Unpickling this would print."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("encoder-latest.pth", None, "has no encoder-latest.pth"),
        ("decoder-latest.pth", b"", "decoder-latest.pth is empty"),
        ("decoder-latest.pth", b"not a torch file", "is not a torch file of weights"),
        ("encoder-latest.pth", pickle.dumps(Malicious()), "is not a torch file of weights"),
        ("encoder-latest.pth", torch.nn.ReLU(), "is not a torch file of weights"),
        ("encoder-latest.pth", [torch.zeros(1)], "holds no state dict"),
        ("decoder-latest.pth", {"state_dict": {"weight": torch.zeros(1)}}, "75 tensors differ, the first is "),
        ("interp_net-latest.pth", {"weight": torch.zeros(1)}, "has 0 branches"),
        ("encoder-latest.pth", {}, "holds no state dict"),
    ],
)
def test_other_files_are_refused(
    states: tuple[State, State, State],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: object,
    message: str,
) -> None:
    published = write(tmp_path / "published", states)
    (published / file).unlink()
    if isinstance(content, bytes):
        (published / file).write_bytes(content)
    elif content is not None:
        torch.save(content, published / file)
    with pytest.raises(CheckpointError, match=message) as raised:
        import_homointerpgan(published, tmp_path / "run", network=NARROW)
    assert "\n" not in str(raised.value)
    assert capsys.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (0, {"module.model.features_3.conv5_2.weight": torch.zeros(1)}, "1 tensors differ, the first is .*conv5_2"),
        (
            1,
            {"module.branch.5.model.4.bias": torch.zeros(3)},
            r"branch.5.model.4.bias \(expected \(16,\), found \(3,\)",
        ),
        (2, {"module.model.1.running_var": None}, r"model.1.running_var \(expected \(12,\), found None\)"),
        (2, {"module.model.40.bias": torch.full((3,), torch.nan)}, "model.40.bias holds NaN"),
    ],
)
def test_every_name_shape_and_value_is_checked(
    states: tuple[State, State, State], tmp_path: Path, file: int, changes: dict[str, Tensor | None], message: str
) -> None:
    changed = list(states)
    changed[file] = {key: value for key, value in (states[file] | changes).items() if value is not None}
    published = write(tmp_path / "published", tuple(changed))
    with pytest.raises(CheckpointError, match=message):
        import_homointerpgan(published, tmp_path / "run", network=NARROW)
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_a_folder_that_cannot_be_made_is_named(states: tuple[State, State, State], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="run cannot be written"):
        import_homointerpgan(write(tmp_path / "published", states), tmp_path / "file" / "run", network=NARROW)


def test_a_users_mistake_is_one_line_and_code_2(
    homomorph: Callable[..., Any], states: tuple[State, State, State], tmp_path: Path
) -> None:
    published = write(tmp_path / "published", states)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep me")
    (tmp_path / "bad.yaml").write_text("Hair: [a]")
    before = sorted(tmp_path.rglob("*"))
    for words, message in (
        ((tmp_path / "nowhere", "--out", tmp_path / "run"), "has no encoder-latest.pth and no interp_net-latest.pth"),
        ((published, "--out", tmp_path / "run"), "does not fit the published network: 26 tensors differ"),
        ((published, "--out", tmp_path / "full"), "already holds something"),
        ((published, "--out", tmp_path / "bad.yaml"), "already holds something"),
        ((published, "--out", tmp_path / "run", "--groups", tmp_path / "none.yaml"), "there is no"),
        ((published, "--out", tmp_path / "run", "--groups", tmp_path / "bad.yaml"), "must be lower-case"),
    ):
        outcome = homomorph("import", "homointerpgan", *words)
        assert outcome.code == 2
        assert outcome.err.startswith("homomorph: ")
        assert message in outcome.err
        assert outcome.err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_weights_of_the_published_sizes(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    published = write(tmp_path / "published", random_states(PublishedConfig()))
    imported = homomorph("import", "homointerpgan", published, "--out", tmp_path / "run")
    assert imported.code == 0, imported.err
    assert "sliders expression, gender_trait, hair_colour, hair_style, age, residual" in imported.out
    exported = homomorph("export", tmp_path / "run", "--repository", tmp_path / "repository")
    assert exported.code == 0, exported.err
    parity = json.loads((tmp_path / "repository" / "manifest.json").read_text())["parity"]
    assert set(parity) == {"torchscript", "onnx"}
    for measured in parity.values():
        assert measured["mean"] <= 0.02
        assert measured["max"] <= 1
