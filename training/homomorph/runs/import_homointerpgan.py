"""Convert the checkpoints published with HomoInterpGAN (Chen et al., CVPR 2019) into a run.

homomorph import homointerpgan DIR --out runs/faces
homomorph export runs/faces --repository triton_repo
"""

from __future__ import annotations

from pathlib import Path

import torch

from homomorph.errors import CheckpointError
from homomorph.models.config import ModelConfig, PublishedConfig
from homomorph.models.morph import MorphModel
from homomorph.runs.checkpoints import check_and_convert, check_empty, read_weights, write_run

_FILES = ("encoder-latest.pth", "interp_net-latest.pth", "decoder-latest.pth")
"""Names of the files that are published for E, all T_i, and D."""
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


def import_homointerpgan(
    folder: Path,
    out: Path,
    *,
    groups: dict[str, tuple[str, ...]] | None = None,
    network: PublishedConfig | None = None,
) -> MorphModel:
    """Read `encoder-latest.pth`, `interp_net-latest.pth` and `decoder-latest.pth`, and write a run, all or nothing.

    Only tensors are unpickled.

    Args:
        folder: holds the three files.
        out: run folder, new or empty.
        groups: attributes of each group in the order of the branches, without the residual branch, which is the last;
            None: the groups of the pretrained model, which has six branches.
        network: sizes of the networks; None: the published sizes.

    Returns:
        The model, in evaluation mode.

    Raises:
        CheckpointError: a file is missing or has no weights of these networks, the numbers of branches and groups
            differ, or `out` is not empty.
        ConfigError: the groups' names are not valid names of branches.
        OutputError: `out` cannot be written.
    """
    check_empty(out)
    if missing := [name for name in _FILES if not (folder / name).is_file()]:
        raise CheckpointError(f"{folder} has no {' and no '.join(missing)}; expected are {', '.join(_FILES)}")
    config = ModelConfig(CELEBA_GROUPS if groups is None else groups, PICTURE_SIZE, network or PublishedConfig())
    encoder_file, branches_file, decoder_file = (folder / name for name in _FILES)
    encoder, branches, decoder = map(read_weights, (encoder_file, branches_file, decoder_file))
    if (count := len({key.split(".")[1] for key in branches if key.startswith("branch.")})) != len(config.branches):
        raise CheckpointError(
            f"{branches_file} has {count} branches, but {len(config.groups)} groups and the residual one need "
            f"{len(config.branches)}: name the checkpoint's groups with --groups"
        )
    with torch.device("meta"):  # only shapes: every weight comes from the files
        model = MorphModel(config)
    numbered = {
        f"branch.{index}.{key}": value
        for index, branch in enumerate(model.branches.values())
        for key, value in branch.state_dict().items()
    }
    for part, found, file in ((model.encoder, encoder, encoder_file), (model.decoder, decoder, decoder_file)):
        part.load_state_dict(check_and_convert(part.state_dict(), found, file), assign=True)
    weights = check_and_convert(numbered, branches, branches_file)
    for index, branch in enumerate(model.branches.values()):
        branch.load_state_dict({key: weights[f"branch.{index}.{key}"] for key in branch.state_dict()}, assign=True)
    model.eval().requires_grad_(False)
    write_run(model, out)
    return model
