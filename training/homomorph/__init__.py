"""The model in Python: networks, data, training, runs and evaluation.

Example::

    import homomorph

    model = homomorph.load("avatars64")
    frames = model.morph("a.png", "b.png", steps=9)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from homomorph_client.version import __version__ as __version__

if TYPE_CHECKING:
    from homomorph.local import LocalMorpher

# albumentations would ask PyPI for a newer version of itself each time that it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def load(run: str | Path, *, picture_size: int | None = None, device: str = "cpu") -> LocalMorpher:
    """Load a model that morphs in this process, without a server.

    Args:
        run: a run folder, or the name of a model that ships with homomorph, such as `avatars64`.
        picture_size: height and width in pixels to work at; None is what the model was trained at.
        device: where to compute, as torch names it: `cpu`, `cuda`.

    Returns:
        A model with the methods `morph`, `edit`, `grid` and `square` of `homomorph_client.MorphClient`.

    Raises:
        CheckpointError: there is no such run, it is damaged, or it is a CycleGAN's.
        ConfigError: torch has no such device here.
        PictureError: `picture_size` is no multiple of the model's stride.
    """
    from homomorph.local import load_morpher  # which imports torch

    return load_morpher(run, picture_size=picture_size, device=device)


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    picture_size: int | None = None,
    device: str = "cpu",
) -> LocalMorpher:
    """Load a model from the Hugging Face Hub, as `load` does from a folder.

    `homomorph.runs.hub.push_to_hub` puts one there.

    Args:
        name: a repository of the Hub, such as `owner/faces`, or a folder on this machine.
        revision: branch, tag or commit; None is the newest state.
        token: the Hub's token; None is the one of `hf auth login`.
        picture_size: as for `load`.
        device: as for `load`.

    Raises:
        CheckpointError: there is no such repository, the Hub cannot be reached, or as for `load`.
        ConfigError: as for `load`.
        PictureError: as for `load`.
    """
    from homomorph.runs.hub import download

    return load(download(name, revision=revision, token=token), picture_size=picture_size, device=device)
