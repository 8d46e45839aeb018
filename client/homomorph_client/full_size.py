"""Morphs and edits at the pictures' own size: what to ask the model for, and what to make of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import numpy.typing as npt

from homomorph_client.details import Original, with_details
from homomorph_client.errors import PictureError, StrengthError
from homomorph_client.frames import Frames
from homomorph_client.labels import Labels, chosen_edit
from homomorph_client.pictures import Picture, fit_picture, load_picture
from homomorph_client.served_model import ServedModel
from homomorph_client.strengths import Strengths, chosen_strengths

MAX_FULL_SIZE = 2048
"""Largest height and width in pixels of frames at full size."""
_MAX_BYTES = 4 * 2**30
"""Largest size of the frames of one call, which are in memory at once."""


@dataclass(frozen=True)
class FullSize:
    """A request to a model, whose frames become frames at full size."""

    pictures: list[npt.NDArray[np.uint8]]
    """The source, and the target of a morph, at their own sizes, uint8 [H, W, 3]."""
    strengths: npt.NDArray[np.float32]
    """Of the S wanted frames, and then of the frames in which the model draws each picture, [S + R, K]."""
    shares: npt.NDArray[np.float32]
    """How much of each wanted frame comes from each picture, [S, R]."""
    size: int
    """Height and width N of the result in pixels."""

    def finish(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Enlarge the model's frames and put the pictures' details back: uint8 [S + R, s, s, 3] -> [S, N, N, 3]."""
        wanted, decoded = np.split(np.asarray(frames), [len(self.shares)])
        originals = [
            Original(fit_picture(picture, self.size), of_model)
            for picture, of_model in zip(self.pictures, decoded, strict=True)
        ]
        return with_details(wanted, originals, self.shares).view(Frames)


def full_size_morph(
    model: ServedModel,
    source: Picture,
    target: Picture,
    *,
    steps: int | None,
    strengths: Strengths | None,
    size: int | None,
) -> FullSize:
    """Prepare a morph; arguments and errors are those of `Morpher.morph_full_size`."""
    chosen = chosen_strengths(model, steps=steps, strengths=strengths)
    of_target = chosen.mean(axis=1).clip(0, 1)
    return _prepared(model, [source, target], chosen, np.stack([1 - of_target, of_target], axis=1), size)


def full_size_edit(
    model: ServedModel,
    source: Picture,
    labels: Labels,
    *,
    steps: int | None,
    strengths: Strengths | None,
    size: int | None,
) -> FullSize:
    """Prepare an edit; arguments and errors are those of `Morpher.edit_full_size`."""
    _, chosen = chosen_edit(model, labels, steps=steps, strengths=strengths)
    return _prepared(model, [source], chosen, np.ones((len(chosen), 1), np.float32), size)


def _prepared(
    model: ServedModel,
    pictures: Sequence[Picture],
    chosen: npt.NDArray[np.float32],
    shares: npt.NDArray[np.float32],
    size: int | None,
) -> FullSize:
    limit = model.max_steps - len(pictures)
    if len(chosen) > limit:
        raise StrengthError(f"at full size, strengths must be for 1 to {limit} frames, not {len(chosen)}")
    largest = max(MAX_FULL_SIZE, model.picture_size)
    if size is not None and not (isinstance(size, Integral) and model.picture_size <= size <= largest):
        raise PictureError(f"size must be a whole number from {model.picture_size} to {largest}, not {size!r}")
    loaded = [load_picture(picture) for picture in pictures]
    if size is None:
        size = min(max(model.picture_size, min(min(picture.shape[:2]) for picture in loaded)), largest)
    if len(chosen) * size * size * 3 > _MAX_BYTES:
        raise StrengthError(
            f"{len(chosen)} frames of {size}x{size} pixels are more than {_MAX_BYTES >> 30} GiB: ask for fewer frames, "
            "or for a smaller size"
        )
    # Strength 0 of everything shows the source, and strength 1 the target.
    ends = np.repeat(np.arange(len(loaded), dtype=np.float32)[:, None], chosen.shape[1], axis=1)
    return FullSize(loaded, np.concatenate([chosen, ends]), shares, int(size))
