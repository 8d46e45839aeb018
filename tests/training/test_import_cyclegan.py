"""Checkpoints of CycleGAN's implementation in wide use, imported and compared with their formulas."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from homomorph.errors import CheckpointError, ConfigError
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.models.translator import Translator
from homomorph.runs.cyclegan import load_cyclegan
from homomorph.runs.import_cyclegan import Assumptions, Imported, import_cyclegan
from homomorph_client.pictures import fit_picture

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
    model = import_cyclegan(tmp_path / "latest_net_G.pth", tmp_path / "run").model
    assert model.config.generator == generator
    picture = torch.rand(2, 3, 2**levels, 2**levels) * 2 - 1
    torch.testing.assert_close(model("translate", picture), unet_formula(state, picture.clone(), levels))


def test_what_is_no_generator_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    for state, message in (
        ({"model.0.weight": torch.zeros(4, 3, 3, 3)}, "holds no CycleGAN generator: known are resnet_6blocks"),
        (resnet_state(2, 6) | {"model.2.weight": torch.ones(2)}, "normalises with weights and without statistics"),
        (resnet_state(2, 65), "holds no CycleGAN generator: .*; found are 272 tensors: model.1.weight 2x3x7x7"),
        (resnet_state(2, 6) | {"model.1.weight": torch.zeros(2, 4, 7, 7)}, "whose first layer is 2x4x7x7"),
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


def reference(state: State, x: Tensor, blocks: int, *, padding: str = "reflect", edges: str = "reflect") -> Tensor:
    """`resnet_formula`, without its last activation, with any norm that a state has and any padding."""

    def conv(x: Tensor, name: str, pad: int, mode: str, **options: int) -> Tensor:
        x = F.pad(x, (pad,) * 4, mode=mode) if pad else x
        return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)

    def norm(x: Tensor, name: str) -> Tensor:
        head, _, number = name.rpartition(".")
        name = f"{head}.{int(number) + 1}"
        if f"{name}.weight" not in state:
            return F.instance_norm(x)
        mean, var, weight, bias = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias)

    places = (0, 3) if padding == "constant" else (1, 5)
    x = F.relu(norm(conv(x, "model.1", 3, edges), "model.1"))
    for name in ("model.4", "model.7"):
        x = F.relu(norm(conv(x, name, 0, "", stride=2, padding=1), name))
    for block in range(10, 10 + blocks):
        first, second = (f"model.{block}.conv_block.{place}" for place in places)
        y = F.relu(norm(conv(x, first, 1, padding), first))
        x = x + norm(conv(y, second, 1, padding), second)
    for name in (f"model.{10 + blocks}", f"model.{13 + blocks}"):
        kernel, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
        x = F.relu(norm(F.conv_transpose2d(x, kernel, bias, stride=2, padding=1, output_padding=1), name))
    return conv(x, f"model.{17 + blocks}", 3, edges)


def imported(state: object, folder: Path, **options: object) -> tuple[CycleGAN, Imported]:
    torch.save(state, folder / "net.pth")
    done = import_cyclegan(folder / "net.pth", folder / "run", **options)  # type: ignore[arg-type]
    return load_cyclegan(folder / "run"), done


PICTURE = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.parametrize(
    ("assumptions", "padding", "edges", "make", "said"),
    [
        (Assumptions(), "reflect", "reflect", torch.tanh, "its output is the picture, it mirrors the picture's edges"),
        (
            Assumptions(residual="add"),
            "reflect",
            "reflect",
            lambda y: (PICTURE + y.tanh()).clamp(-1, 1),
            "added to the picture,",
        ),
        (
            Assumptions(residual="add-twice"),
            "reflect",
            "reflect",
            lambda y: (PICTURE + 2 * y.tanh()).clamp(-1, 1),
            "twice",
        ),
        (Assumptions(padding="replicate"), "replicate", "replicate", torch.tanh, "it repeats the picture's edges"),
        (Assumptions(padding="replicate_blocks"), "replicate", "reflect", torch.tanh, "its blocks repeat their edges"),
        (
            Assumptions(output="sigmoid"),
            "reflect",
            "reflect",
            lambda y: 2 * y.sigmoid() - 1,
            "its last layer is sigmoid",
        ),
        (
            Assumptions(output="none"),
            "reflect",
            "reflect",
            lambda y: y.clamp(-1, 1),
            "its last layer is cut at -1 and 1",
        ),
    ],
)
def test_what_tensors_do_not_tell_is_an_option_and_said(
    tmp_path: Path,
    assumptions: Assumptions,
    padding: str,
    edges: str,
    make: Callable[[Tensor], Tensor],
    said: str,
) -> None:
    state = resnet_state(4, 6)
    model, done = imported(state, tmp_path, assumptions=assumptions)
    expected = make(reference(state, PICTURE, 6, padding=padding, edges=edges))
    torch.testing.assert_close(model("translate", PICTURE), expected)
    assert said in done.assumed


def test_a_preview_shows_what_a_run_makes_of_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "orange").save(tmp_path / "a.jpg")
    model, _ = imported(resnet_state(4, 6), tmp_path, preview=tmp_path / "a.jpg", picture_size=32)
    shown = fit_picture(tmp_path / "a.jpg", 32)
    strip = np.asarray(Image.open(tmp_path / "run" / "preview.png"))
    np.testing.assert_array_equal(strip[:, :32], shown)
    np.testing.assert_array_equal(strip[:, 32:], Translator([model]).chained(shown, ["translate"])[0])


def batch_normed(state: State) -> State:
    """Replace biases by BatchNorm behind every convolution that InstanceNorm follows."""
    generator = torch.Generator().manual_seed(1)
    normed = dict(state)
    last = max(int(key.split(".")[1]) for key in state)
    for key, bias in state.items():
        name = key.removesuffix(".bias")
        if key.endswith(".bias") and name != f"model.{last}":
            head, _, number = name.rpartition(".")
            del normed[key]
            for kind in ("weight", "bias", "running_mean", "running_var"):
                normed[f"{head}.{int(number) + 1}.{kind}"] = torch.rand(len(bias), generator=generator) + 0.5
            normed[f"{head}.{int(number) + 1}.num_batches_tracked"] = torch.tensor(7)
    return normed


@pytest.mark.parametrize("dropout", [False, True])
def test_batch_norm_is_folded(tmp_path: Path, dropout: bool) -> None:
    state = batch_normed(resnet_state(4, 6, dropout=dropout))
    model, done = imported(state, tmp_path)
    plain = batch_normed(resnet_state(4, 6))
    torch.testing.assert_close(
        model("translate", PICTURE), torch.tanh(reference(plain, PICTURE, 6)), rtol=1e-4, atol=1e-5
    )
    assert "BatchNorm, folded" in done.found


def test_blocks_that_pad_with_zeros_are_recognised_by_their_names(tmp_path: Path) -> None:
    state = resnet_state(4, 6)
    places = {"conv_block.1": "conv_block.0", "conv_block.5": "conv_block.3"}
    for old, new in places.items():
        state = {key.replace(old, new): value for key, value in state.items()}
    with pytest.raises(ConfigError, match="--padding is for a ResNet with padding layers"):
        imported(state, tmp_path, assumptions=Assumptions(padding="reflect"))
    model, _ = imported(state, tmp_path)
    torch.testing.assert_close(
        model("translate", PICTURE), torch.tanh(reference(state, PICTURE, 6, padding="constant"))
    )


@pytest.mark.parametrize(("filters", "blocks"), [(2, 3), (3, 12)])
def test_other_sizes_are_read_from_the_shapes(tmp_path: Path, filters: int, blocks: int) -> None:
    state = resnet_state(filters, blocks)
    model, _ = imported(state, tmp_path)
    assert (model.config.generator, model.config.filters) == (f"resnet_{blocks}blocks", filters)
    torch.testing.assert_close(model("translate", PICTURE), torch.tanh(reference(state, PICTURE, blocks)))


def test_grey_generators_see_and_make_grey(tmp_path: Path) -> None:
    state = resnet_state(4, 6)
    state["model.1.weight"] = state["model.1.weight"][:, :1].clone()
    state["model.23.weight"], state["model.23.bias"] = state["model.23.weight"][:1], state["model.23.bias"][:1]
    model, done = imported(state, tmp_path)
    grey = (PICTURE * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    expected = torch.tanh(reference(state, grey, 6)).expand(-1, 3, -1, -1)
    torch.testing.assert_close(model("translate", PICTURE), expected)
    assert "from grey to grey pictures" in done.found


@pytest.mark.parametrize("levels", [7, 9])
def test_u_nets_of_other_sizes_and_with_batch_norm_are_read(tmp_path: Path, levels: int) -> None:
    plain = unet_state(2, levels)
    normed = dict(plain)
    prefix, means = "model.model.1.model", {}
    for level in range(1, levels):
        innermost = level == levels - 1
        for conv, norm in ((3, 4),) if innermost else ((1, 2), (5, 6)):
            bias = normed.pop(f"{prefix}.{conv}.bias")
            normed[f"{prefix}.{norm}.weight"] = torch.ones(len(bias))
            normed[f"{prefix}.{norm}.bias"] = torch.zeros(len(bias))
            normed[f"{prefix}.{norm}.running_mean"] = -bias
            normed[f"{prefix}.{norm}.running_var"] = torch.full((len(bias),), 1 - 1e-5)
            means[f"{prefix}.{conv}"] = bias
        prefix += ".3.model"
    model, _ = imported(normed, tmp_path)
    assert model.config.generator == f"unet_{2**levels}"
    assert model.config.picture_size == max(256, 2**levels)
    # So chosen, BatchNorm adds the bias that it took the place of, and nothing else.
    folded = model.generators["translate"].state_dict()
    for key, value in plain.items():
        torch.testing.assert_close(folded[key], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("wrap", "part"),
    [
        (lambda state: {f"module.module.{key}": value for key, value in state.items()}, None),
        (lambda state: {f"_orig_mod.{key}": value for key, value in state.items()}, None),
        (lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()}, None),
        (lambda state: {f"netG_A.{key}": value for key, value in state.items()}, None),
        (lambda state: {"epoch": 3, "loss": torch.tensor(0.1), "netG_A": state, "optimizer_G": {"state": {}}}, None),
        (lambda state: {f"netG_A._orig_mod.{key}": value for key, value in state.items()}, "netG_A"),
        (lambda state: {"state_dict": state, "epoch": 3}, None),
        (lambda state: {"model": {"state_dict": state}, "args": argparse.Namespace(lr=1e-3)}, None),
        (lambda state: {"G_AB": state, "G_BA": {k: -v for k, v in state.items()}, "optimizer": {"state": {}}}, "G_AB"),
        (
            lambda state: {
                "pytorch-lightning_version": "2.5.0",
                "state_dict": {f"generator.{key}": value for key, value in state.items()}
                | {"discriminator.model.0.weight": torch.zeros(4, 3, 4, 4)},
                "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
                "hyper_parameters": {"path": Path("/data")},
                "callbacks": {},
            },
            None,
        ),
    ],
)
def test_wrappers_are_taken_off(tmp_path: Path, wrap: Callable[[State], object], part: str | None) -> None:
    state = resnet_state(2, 6)
    model, _ = imported(wrap(state), tmp_path, part=part)
    torch.testing.assert_close(model("translate", PICTURE), torch.tanh(reference(state, PICTURE, 6)))


@pytest.mark.parametrize("ending", [".safetensors", ".SAFETENSORS", ".pth"])
def test_safetensors_are_recognised_by_their_content(tmp_path: Path, ending: str) -> None:
    state = resnet_state(2, 6)
    save_file(state, tmp_path / f"net{ending}")
    model = import_cyclegan(tmp_path / f"net{ending}", tmp_path / "run").model
    torch.testing.assert_close(model("translate", PICTURE), torch.tanh(reference(state, PICTURE, 6)))


class _Callable:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must not be printed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\n <html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a git-lfs pointer"),
        (b"", "is empty"),
        (b"PK\3\4 no zip", "is not a torch file of weights, or is damaged"),
        ({"a": _Callable()}, "more is in it than weights"),
        ([torch.zeros(1)], "found is a list"),
        ({"epoch": 3, "lr": 0.1}, r"found is a dict of epoch \(int\), lr \(float\)"),
        ({"model.1.weight": torch.zeros(2, 3, 7, 7).to_sparse()}, "is sparse coo float32"),
        ({"model.1.weight": torch.zeros(2, 3, 7, 7, dtype=torch.complex64)}, "is strided complex64"),
        ({"model.1.weight": torch.zeros(2, 3, 7, 7, dtype=torch.bool)}, "is strided bool"),
        ({"model.1.weight": torch.zeros(1).expand(10**6, 3, 10**6, 7)}, "holds no CycleGAN generator"),
        ({f"a.{n}": torch.zeros(1) for n in range(20_000)}, "found are 20000 tensors"),
        (
            {f"{part}.model.1.weight": torch.zeros(2, 3, 7, 7) for part in ("netG_A", "netG_B")},
            "several generators, netG_A, netG_B: choose one with --part netG_A",
        ),
        ({"a.model.1.weight": torch.zeros(2, 3, 7, 7), "module.a.model.1.weight": torch.zeros(1)}, "tensors twice"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "file",
)
def test_other_files_are_named_in_one_line(
    tmp_path: Path, content: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.pth"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(CheckpointError, match=message) as caught:
        import_cyclegan(file, tmp_path / "run")
    assert len(str(caught.value)) < 1000
    assert "printed" not in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")  # torch's, of types that it gives up
def test_quantised_weights_are_named(tmp_path: Path) -> None:
    quantised = torch.quantize_per_tensor(torch.zeros(2, 3, 7, 7), 0.1, 0, torch.qint8)
    torch.save({"model.1.weight": quantised}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="is quantised qint8"):
        import_cyclegan(tmp_path / "net.pth", tmp_path / "run")
