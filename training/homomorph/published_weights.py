"""Turns the checkpoints published with HomoInterpGAN (Chen et al., CVPR 2019) into a run.

homomorph import homointerpgan DIR --out runs/faces
homomorph export runs/faces --repository triton_repo
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from homomorph.config import ModelConfig, PublishedConfig
from homomorph.errors import CheckpointError
from homomorph.networks import MorphModel
from homomorph.run import difference, save_model

ENCODER_FILE = "encoder-latest.pth"
BRANCHES_FILE = "interp_net-latest.pth"
DECODER_FILE = "decoder-latest.pth"

PICTURE_SIZE = 128
"""Height and width in pixels that the published networks were trained at."""

CELEBA_GROUPS: dict[str, tuple[str, ...]] = {
    "expression": ("Mouth_Slightly_Open", "Smiling"),
    "gender_trait": ("Male", "No_Beard", "Mustache", "Goatee", "Sideburns"),
    "hair_colour": ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"),
    "hair_style": ("Bald", "Receding_Hairline", "Bangs"),
    "age": ("Young",),
}
"""The groups of the pretrained model, with CelebA's names of attributes; its sixth branch is the residual one."""

_BATCH_COUNT = "num_batches_tracked"
"""A count of BatchNorm's that evaluation does not use, and that files of old versions of torch lack."""


def import_homointerpgan(
    folder: Path,
    out: Path,
    *,
    groups: dict[str, tuple[str, ...]] | None = None,
    network: PublishedConfig | None = None,
) -> MorphModel:
    """Read `encoder-latest.pth`, `interp_net-latest.pth` and `decoder-latest.pth`, and write a run of them.

    Nothing is unpickled but tensors. The run appears whole or not at all.

    Args:
        folder: holds the three files.
        out: run folder, new or empty.
        groups: attributes of each group in the order of the branches, without the residual one, which comes last; None
            for those of the pretrained model, which has six branches.
        network: sizes of the networks; None for the published ones.

    Returns:
        The model, in evaluation mode.

    Raises:
        CheckpointError: a file is missing or holds something else than these networks' weights, the number of branches
            is another one than the groups', or `out` holds something already or cannot be written.
        ConfigError: the groups cannot name branches.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} already holds something: give a new folder")
    names = (ENCODER_FILE, BRANCHES_FILE, DECODER_FILE)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise CheckpointError(f"{folder} has no {' and no '.join(missing)}; expected are {', '.join(names)}")
    config = ModelConfig(CELEBA_GROUPS if groups is None else groups, PICTURE_SIZE, network or PublishedConfig())
    encoder, branches, decoder = (_read(folder / name) for name in names)
    if (count := len({key.split(".")[1] for key in branches if key.startswith("branch.")})) != len(config.branches):
        raise CheckpointError(
            f"{folder / BRANCHES_FILE} has {count} branches, but {len(config.groups)} groups and the residual one need "
            f"{len(config.branches)}: name the checkpoint's groups with --groups"
        )
    with torch.device("meta"):  # shapes alone: every weight comes from the files
        model = MorphModel(config)
    numbered = {
        f"branch.{index}.{key}": value
        for index, branch in enumerate(model.branches.values())
        for key, value in branch.state_dict().items()
    }
    model.encoder.load_state_dict(_fitted(model.encoder.state_dict(), encoder, folder / ENCODER_FILE), assign=True)
    fitted = _fitted(numbered, branches, folder / BRANCHES_FILE)
    for index, branch in enumerate(model.branches.values()):
        branch.load_state_dict({key: fitted[f"branch.{index}.{key}"] for key in branch.state_dict()}, assign=True)
    model.decoder.load_state_dict(_fitted(model.decoder.state_dict(), decoder, folder / DECODER_FILE), assign=True)
    model.eval().requires_grad_(False)
    _write(model, out)
    return model


def _read(path: Path) -> dict[str, Tensor]:
    """Read a state dict, without the `module.` that torch's DataParallel puts before every key."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how a file is pickled, which its owner cannot change
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # a damaged file can fail in any of the ways that an unpickler can
        raise CheckpointError(f"{path} is not a torch file of weights, or more is in it than weights") from error
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise CheckpointError(f"{path} holds no state dict: expected are tensors by name, and nothing else")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _fitted(expected: dict[str, Tensor], weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return a checkpoint's weights as a network's state, in the network's number format.

    Args:
        expected: the network's tensors by the checkpoint's names.
        weights: what the checkpoint holds.
        path: the checkpoint, for messages.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape, or its values are not finite numbers.
    """
    counts = {key: torch.zeros_like(expected[key], device="cpu") for key in expected if key.endswith(_BATCH_COUNT)}
    weights = {key: value for key, value in weights.items() if not key.endswith(_BATCH_COUNT)} | counts
    if wrong := difference(expected=expected, found=weights):
        raise CheckpointError(f"{path} does not fit the published network: {wrong}")
    for key, value in weights.items():
        if not value.isfinite().all():
            raise CheckpointError(f"{path} is damaged: {key} holds NaN or infinity")
    return {key: weights[key].to(tensor.dtype, copy=True) for key, tensor in expected.items()}


def _write(model: MorphModel, out: Path) -> None:
    """Write a run beside its place, then move it there."""
    target = out.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
            save_model(Path(folder) / target.name, model)
            (Path(folder) / target.name).replace(target)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{out} cannot be written: {error}") from error
