"""Convert a generator's checkpoint of `pytorch-CycleGAN-and-pix2pix`, the usual implementation, into a run.

homomorph import cyclegan latest_net_G.pth --direction summer --out runs/summer --preview photo.jpg
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_weights

from homomorph.errors import CheckpointError, ConfigError
from homomorph.models.config import MAX_BLOCKS, MAX_CHANNELS
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.cyclegan_config import GENERATORS, CycleGANConfig, OutputRange, Padding, parse_generator
from homomorph.models.translator import Translator
from homomorph.runs.checkpoints import check_and_convert, check_empty, read_weights, write_run
from homomorph_client.pictures import fit_picture

PICTURE_SIZE = 256
"""Height and width in pixels that the published generators were trained at."""

_FIRST = re.compile(r"(.*?)(model\.1\.weight|model\.model\.0\.weight)")
"""Name of the first convolution of a ResNet or U-Net; the first group is the prefix."""
_IN_BLOCK = re.compile(r"(model\.\d+\.conv_block)\.(\d+)\.(\w+)")
"""A tensor of a residual block: the block, the layer's number, the tensor's kind."""
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Running statistics of BatchNorm. Old versions of torch also stored them for InstanceNorm, which does not use them."""
_EPSILON = 1e-5
"""BatchNorm adds this to a variance."""


@dataclass(frozen=True)
class Assumptions:
    """Properties of a generator that its tensors do not show."""

    residual: Literal["no", "add", "add-twice"] = "no"
    """Meaning of its output: the new picture, or a change that is added once (DeblurGAN) or twice (our own)."""
    padding: Padding | None = None
    """None: zeros in a ResNet without padding layers, mirrored edges in any other."""
    output: OutputRange = "tanh"
    """Range of its last layer."""


@dataclass(frozen=True)
class Imported:
    """An imported checkpoint."""

    model: CycleGAN
    """In evaluation mode."""
    found: str
    """Description of the properties that the tensors show."""
    assumed: str
    """Description of the properties that tensors do not show, as assumed or given by options."""


def import_cyclegan(
    file: Path,
    out: Path,
    *,
    direction: str = "translate",
    generator: str | None = None,
    picture_size: int | None = None,
    part: str | None = None,
    assumptions: Assumptions | None = None,
    preview: Path | None = None,
) -> Imported:
    """Read a file such as `latest_net_G.pth`, and write a run with one direction, all or nothing.

    Only tensors are unpickled. Networks trained with dropout are accepted, because dropout has no effect in evaluation.
    BatchNorm is folded into the convolutions before it, which is exact in evaluation.

    Args:
        file: the checkpoint.
        out: run folder, new or empty.
        direction: name of the change that the generator makes, such as `summer`; also names the served model.
        generator: such as `resnet_9blocks`; None: detect it from the names of the tensors.
        picture_size: height and width that the generator was trained at, in pixels; None: 256, or the size in the name
            of a larger U-Net.
        part: name of the generator in a file with several, such as `netG_A`.
        assumptions: properties that cannot be detected; None: those of the published generators.
        preview: a picture; it and the generator's output are written into the run as `preview.png`.

    Raises:
        CheckpointError: the file is missing or has no weights of such a generator, or `out` is not empty.
        ConfigError: the generator or the direction cannot be used, or the size or the padding does not suit the
            generator.
        OutputError: `out` cannot be written.
        PictureError: the preview's picture cannot be read.
    """
    if generator is not None:
        parse_generator(generator)
    check_empty(out)
    weights, left_out = _one_generator(read_weights(file), part, file)
    weights, zero_blocks = _arranged(weights)
    weights, folded = _folded(weights, file)
    found = _generator_of(weights)
    if found is None:
        raise CheckpointError(
            f"{file} holds no CycleGAN generator: known are {', '.join(GENERATORS)}; {_seen(weights)}"
        )
    if generator not in (None, found):
        raise CheckpointError(f"{file} holds a {found}, not a {generator}")
    filters, channels_in, channels_out = _channels(weights, file)
    kind, size = parse_generator(found)
    assumed = assumptions or Assumptions()
    if assumed.padding is not None and (kind != "resnet" or zero_blocks):
        raise ConfigError(f"--padding is for a ResNet with padding layers, which {file} does not have: leave it out")
    if picture_size is None:
        picture_size = max(PICTURE_SIZE, size) if kind == "unet" else PICTURE_SIZE
    config = CycleGANConfig(
        (direction,),
        found,
        filters,
        picture_size,
        residual=assumed.residual != "no",
        residual_scale=1.0 if assumed.residual == "add" else 2.0,
        norm="none" if folded else "instance",
        padding="zero_blocks" if zero_blocks else assumed.padding or "reflect",
        output=assumed.output,
        channels_in=channels_in,
        channels_out=channels_out,
    )
    with torch.device("meta"):  # only shapes: every weight comes from the file
        model = CycleGAN(config)
    network = model.generators[direction]
    network.load_state_dict(check_and_convert(network.state_dict(), weights, file), assign=True)
    model.eval().requires_grad_(False)
    pictures = {} if preview is None else {"preview.png": _strip(model, direction, preview)}
    write_run(model, out, pictures)
    return Imported(model, _found(config, folded, left_out), _assumed(config, zero_blocks))


def _generator_of(weights: dict[str, Tensor]) -> str | None:
    """Return the name of a state dict's generator, detected from the tensors' names; None if it is not known."""
    if not any(key in weights for key in ("model.1.weight", "model.model.0.weight")):
        return None
    blocks = {key.split(".")[1] for key in weights if ".conv_block." in key}
    if blocks:
        return f"resnet_{len(blocks)}blocks" if len(blocks) <= MAX_BLOCKS else None
    # The levels of a U-Net are nested: each is `model.1.` or `model.3.` of the level around it.
    levels = max(key.split(".").count("model") for key in weights) - 1
    return f"unet_{2**levels}" if 5 <= levels <= 10 else None


def _one_generator(weights: dict[str, Tensor], part: str | None, file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of one network without its prefix, and the names of the other networks in the file."""
    prefixes = {match[1] for key in weights if (match := _FIRST.fullmatch(key)) and weights[key].dim() == 4}
    # A U-Net's inner levels look like the beginning of a ResNet.
    outer = [one for one in prefixes if not any(one != other and one.startswith(other) for other in prefixes)]
    names = sorted(one.rstrip(".") for one in outer)
    if part is not None:
        if part not in names:
            raise CheckpointError(f"{file} has no generator {part!r}, but {', '.join(map(repr, names)) or 'none'}")
        chosen = f"{part}." if part else ""
    elif len(names) > 1:
        raise CheckpointError(f"{file} holds several generators, {', '.join(names)}: choose one with --part {names[0]}")
    elif not names:
        return weights, []
    else:
        chosen = outer[0]
    others = {key.partition(".")[0] for key in weights if not key.startswith(chosen)}
    return {key.removeprefix(chosen): value for key, value in weights.items() if key.startswith(chosen)}, sorted(others)


def _arranged(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Renumber the layers of residual blocks to those of a network without dropout and with padding layers.

    Returns:
        The weights, and whether there are no padding layers, so that the blocks pad with zeros.
    """
    convolutions: dict[str, list[int]] = {}
    for key, value in weights.items():
        if (match := _IN_BLOCK.fullmatch(key)) and match[3] == "weight" and value.dim() == 4:
            convolutions.setdefault(match[1], []).append(int(match[2]))
    arranged: dict[str, Tensor] = {}
    for key, value in weights.items():
        match = _IN_BLOCK.fullmatch(key)
        places = sorted(convolutions.get(match[1], [])) if match else []
        # A convolution, or the norm behind it.
        if match and len(places) == 2 and not {place := int(match[2]), place - 1}.isdisjoint(places):
            first = place < places[1]
            key = f"{match[1]}.{place - places[0] + 1 if first else place - places[1] + 5}.{match[3]}"
        arranged[key] = value
    return arranged, bool(convolutions) and all(min(places) == 0 for places in convolutions.values())


def _folded(weights: dict[str, Tensor], file: Path) -> tuple[dict[str, Tensor], bool]:
    """Fold BatchNorm into the convolutions before it; drop the statistics that InstanceNorm does not use.

    Returns:
        The weights, and whether there was a BatchNorm.

    Raises:
        CheckpointError: a norm has weights but no statistics, so it is neither of the two.
    """
    norms = sorted(
        key.removesuffix(".weight") for key, value in weights.items() if key.endswith(".weight") and value.dim() == 1
    )
    folded = {key: value for key, value in weights.items() if not key.endswith(_STATISTICS)}
    for norm in norms:
        before, _, number = norm.rpartition(".")
        convolution = f"{before}.{int(number) - 1}" if number.isdecimal() else ""
        kernel = weights.get(f"{convolution}.weight")
        scale, mean, variance = (weights.get(f"{norm}.{key}") for key in ("weight", "running_mean", "running_var"))
        if scale is None or mean is None or variance is None or kernel is None or kernel.dim() != 4:
            raise CheckpointError(
                f"{file} normalises with weights and without statistics ({norm}): CycleGAN's InstanceNorm has no "
                "weights, and BatchNorm has both"
            )
        transposed = _is_transposed(convolution, kernel, len(mean))
        if not len(scale) == len(mean) == len(variance) == kernel.shape[1 if transposed else 0]:
            raise CheckpointError(f"{file}: {norm} does not fit {convolution}, which it follows")
        bias, shift = (weights.get(f"{of}.bias", torch.zeros_like(mean)) for of in (convolution, norm))
        kernel, bias, mean, variance, scale, shift = (
            value.double() for value in (kernel, bias, mean, variance, scale, shift)
        )
        fused = fuse_conv_bn_weights(kernel, bias, mean, variance, _EPSILON, scale, shift, transpose=transposed)
        folded[f"{convolution}.weight"], folded[f"{convolution}.bias"] = (value.data.float() for value in fused)
        for key in ("weight", "bias"):
            folded.pop(f"{norm}.{key}", None)
    if norms:  # convolutions before BatchNorm, and some others of such a network, have no bias
        for key, value in list(folded.items()):
            if value.dim() == 4 and key.endswith(".weight"):
                folded.setdefault(key.removesuffix("weight") + "bias", torch.zeros(len(value)))
    return folded, bool(norms)


def _is_transposed(convolution: str, kernel: Tensor, outputs: int) -> bool:
    if convolution.startswith("model.model."):
        return convolution.rpartition(".")[2] in ("3", "5")  # the upsampling layers of a U-Net's level
    return len(kernel) != outputs


def _channels(weights: dict[str, Tensor], file: Path) -> tuple[int, int, int]:
    """Return a generator's number of filters, of input channels and of output channels.

    Raises:
        CheckpointError: these numbers cannot be served.
    """
    if "model.model.0.weight" in weights:
        first, last = weights["model.model.0.weight"], weights.get("model.model.3.weight")
        made = 0 if last is None or last.dim() != 4 else last.shape[1]
    else:
        numbers = [int(match[1]) for key in weights if (match := re.fullmatch(r"model\.(\d{1,4})\.weight", key))]
        first, last = weights["model.1.weight"], weights[f"model.{max(numbers)}.weight"]
        made = len(last)
    if first.dim() != 4 or not {first.shape[1], made} <= {1, 3} or len(first) > MAX_CHANNELS:
        raise CheckpointError(
            f"{file} holds a generator whose first layer is {_shape(first)} and which makes {made} channels: pictures "
            "have 3, or 1 where they are grey"
        )
    return len(first), first.shape[1], made


def _seen(weights: dict[str, Tensor]) -> str:
    """Describe a few tensors."""
    first_tensors = ", ".join(f"{key[:60]} {_shape(value)}" for key, value in list(weights.items())[:4])
    return f"found are {len(weights)} tensors: {first_tensors}"


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"


def _found(config: CycleGANConfig, folded: bool, left_out: list[str]) -> str:
    properties = [config.generator, f"{config.filters} filters"]
    if 1 in (config.channels_in, config.channels_out):
        properties.append(f"from {_colours(config.channels_in)} to {_colours(config.channels_out)} pictures")
    if folded:
        properties.append("BatchNorm, folded into its convolutions")
    if left_out:
        properties.append(f"beside it, and left out: {', '.join(left_out[:8])}")
    return ", ".join(properties)


def _colours(channels: int) -> str:
    return "grey" if channels == 1 else "coloured"


def _assumed(config: CycleGANConfig, zero_blocks: bool) -> str:
    times = "" if config.residual_scale == 1 else " twice"
    properties = [
        f"its output is added to the picture{times}" if config.residual else "its output is the picture",
        f"its last layer is {config.output}" if config.output != "none" else "its last layer is cut at -1 and 1",
    ]
    if config.generator.startswith("resnet") and not zero_blocks:
        properties.insert(
            1,
            {
                "reflect": "it mirrors the picture's edges",
                "replicate": "it repeats the picture's edges",
                "replicate_blocks": "its blocks repeat their edges, and the picture's are mirrored",
                "zero_blocks": "its blocks pad with zeros",
            }[config.padding],
        )
    return ", ".join(properties)


def _strip(model: CycleGAN, direction: str, picture: Path) -> NDArray[np.uint8]:
    """Return a picture with the generator's output beside it, uint8 [H, 2 * W, 3]."""
    source = fit_picture(picture, model.config.picture_size)
    return np.concatenate([source, Translator([model]).chained(source, [direction])[0]], axis=1)
