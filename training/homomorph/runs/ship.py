"""Write a run for shipping with homomorph: weights in half precision, if the pictures stay the same.

python -m homomorph.runs.ship runs/avatars64 training/homomorph/weights/avatars64
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from homomorph.data import avatars
from homomorph.errors import CheckpointError
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.morph import MorphModel
from homomorph.models.pixels import from_normalised, normalise
from homomorph.models.translator import Translator
from homomorph.runs.cyclegan import is_cyclegan, load_cyclegan
from homomorph.runs.label_features import load_label_features, save_label_features
from homomorph.runs.record import TRAINING_FILE
from homomorph.runs.run import Model, load_model, save_model
from homomorph_client.errors import HomomorphError
from homomorph_client.files import replacing

LARGEST_MEAN_DIFFERENCE = 0.1
"""Largest mean difference between pictures of the stored and of the original weights, in grey levels."""
_PICTURES = 16


def ship(run: Path, out: Path) -> float:
    """Write a run with its weights in float16, all or nothing.

    Args:
        run: a run of either method.
        out: folder to write; an older one is replaced.

    Returns:
        Mean difference between pictures of the stored and of the original weights, in grey levels.

    Raises:
        CheckpointError: the run cannot be read, or its pictures change by more than `LARGEST_MEAN_DIFFERENCE`.
    """
    model: Model = load_cyclegan(run) if is_cyclegan(run) else load_model(run)
    with replacing(out) as partial:
        partial.mkdir()
        save_model(partial, model, dtype=torch.float16)
        if isinstance(model, MorphModel):
            label_features = load_label_features(run, model.config)
            if label_features is not None:
                save_label_features(partial, label_features, dtype=torch.float16)
        if (run / TRAINING_FILE).is_file():
            shutil.copy(run / TRAINING_FILE, partial / TRAINING_FILE)
        stored = load_cyclegan(partial) if isinstance(model, CycleGAN) else load_model(partial)
        difference = float((_pictures(model).float() - _pictures(stored).float()).abs().mean())
        if not difference <= LARGEST_MEAN_DIFFERENCE:
            raise CheckpointError(
                f"{run}: in half precision its pictures change by {difference:.3f} grey levels on average, more than "
                f"{LARGEST_MEAN_DIFFERENCE}: ship it in float32"
            )
    return difference


@torch.inference_mode()
def _pictures(model: Model) -> Tensor:
    """Return the networks' output, uint8: of drawings for a model of the built-in set, else of smooth pictures."""
    if isinstance(model, CycleGAN):
        translator = Translator([model])
        pictures = _smooth(model.config.picture_size).permute(0, 2, 3, 1)
        return torch.cat([translator.changed(direction, pictures) for direction in translator.directions])
    network, size = model.config.network, model.config.picture_size
    pictures = _smooth(size)
    if model.config.groups == avatars.GROUPS:
        # Half way between two smooth pictures, rounding decides which of its layers D shows.
        drawn = [avatars.render(avatars.draw_looks(0, index), size) for index in range(_PICTURES)]
        pictures = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)
    source, target = normalise(pictures, network).chunk(2)
    ramp = torch.linspace(0, 1, 5).view(1, -1, 1).repeat(len(source), 1, len(model.config.branches))
    return from_normalised(model(source, target, ramp), network)


def _smooth(size: int) -> Tensor:
    """Draw smooth random pictures, uint8 [N, 3, size, size]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(_PICTURES, 3, 4, 4, generator=generator) * 255
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 255).to(torch.uint8)


def main() -> None:
    """Ship the run that the command line names."""
    parser = argparse.ArgumentParser(description="Write a run with its weights in half precision.")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("out", type=Path, help="folder to write; an older one is replaced")
    words = parser.parse_args()
    try:
        difference = ship(words.run, words.out)
    except HomomorphError as error:
        print(f"ship: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{words.out}: pictures differ by {difference:.4f} grey levels on average")


if __name__ == "__main__":
    main()
