"""Reads pictures and applies positional augmentation. A picture that cannot be read is replaced by the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from homomorph.data.labels import LabelledPictures
from homomorph.errors import ConfigError, DataError
from homomorph_client.errors import PictureError
from homomorph_client.pictures import fit_picture


@dataclass(frozen=True)
class Jitter:
    """Positional augmentation. It teaches the model to morph pictures that are not exactly centred."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    shift: float = 0.1
    """Largest shift along each axis, as a share of the picture's side."""
    scale: float = 0.1
    """Largest relative change of size."""
    rotation_deg: float = 10.0
    """Largest rotation in degrees."""
    probability: float = 0.75
    """Share of the pictures that are moved at all."""
    flip: float = 0.0
    """Share of the pictures that are mirrored; for sets whose labels do not tell left from right."""

    def __post_init__(self) -> None:
        for name in ("probability", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"jitter.{name} must be from 0 to 1, not {getattr(self, name)}")
        if min(self.shift, self.scale, self.rotation_deg) < 0 or self.scale >= 1:
            raise ConfigError("jitter.shift, scale and rotation_deg must not be negative, and scale below 1")


def positional_augmentation(jitter: Jitter) -> A.Compose:
    """Mirror, shift, scale and rotate.

    The area outside the picture repeats its edge, because hair and backgrounds continue.
    """
    return A.Compose(
        [
            *([A.HorizontalFlip(p=jitter.flip)] if jitter.flip else []),
            A.Affine(
                translate_percent={"x": (-jitter.shift, jitter.shift), "y": (-jitter.shift, jitter.shift)},
                scale=(1 - jitter.scale, 1 + jitter.scale),
                rotate=(-jitter.rotation_deg, jitter.rotation_deg),
                border_mode=cv2.BORDER_REPLICATE,
                p=jitter.probability,
            ),
        ],
        keypoint_params=A.KeypointParams(format="xy", remove_invisible=False),
    )


class AugmentedPictures:
    """The pictures of a labelled folder, of one size, augmented."""

    def __init__(
        self, data: LabelledPictures, *, picture_size: int, jitter: Jitter, max_bad_pictures: int | None = None
    ) -> None:
        """Take the data.

        Args:
            data: labelled pictures.
            picture_size: height and width in pixels.
            jitter: positional augmentation.
            max_bad_pictures: largest number of unreadable pictures; None: `default_max_bad_pictures`.
        """
        self.data = data
        self.picture_size = picture_size
        self.augment = positional_augmentation(jitter)
        self.max_bad_pictures = default_max_bad_pictures(data) if max_bad_pictures is None else max_bad_pictures
        self._bad: dict[int, str] = {}

    def check_bad(self, bad: Mapping[int, str]) -> None:
        """Check the number of unreadable pictures.

        Raises:
            DataError: there are more than `max_bad_pictures`, or as many as there are pictures.
        """
        count = len(self.data.paths)
        if len(bad) > self.max_bad_pictures or len(bad) == count:
            raise DataError(
                f"{len(bad)} of {count} pictures cannot be used, and --max-bad-pictures is {self.max_bad_pictures}; "
                f"the first are: {'; '.join(list(bad.values())[:3])}"
            )

    def read(
        self, place: int, among: Sequence[int] | NDArray[np.int32], bad: dict[int, str]
    ) -> tuple[int, NDArray[np.uint8]]:
        """Read a picture, or else the next readable one, so that the result depends on the data alone.

        Args:
            place: position of the picture's index in `among`.
            among: indices of pictures that may replace each other.
            bad: receives the index of each unreadable picture, with the reason.

        Returns:
            The picture's index in the data, and its pixels [H, W, 3].

        Raises:
            DataError: too many pictures cannot be read.
        """
        for offset in range(len(among)):
            index = int(among[(place + offset) % len(among)])
            if index not in self._bad:
                try:
                    return index, fit_picture(self.data.paths[index], self.picture_size)
                except PictureError as error:
                    self._bad[index] = str(error)
                    # This process counts its own bad pictures. The training loop counts those of all processes.
                    self.check_bad(self._bad)
            bad[index] = self._bad[index]
        raise DataError(f"none of {len(among)} pictures can be used; the first: {bad[int(among[place])]}")

    def move(self, picture: NDArray[np.uint8], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Augment one picture [H, W, 3]. The same seed gives the same result.

        Returns:
            The picture, and the affine map [2, 3] from its positions to those of the original, in the form that
            `torch.nn.functional.affine_grid` takes.
        """
        size = self.picture_size
        corners = np.array([[0, 0], [size, 0], [0, size]], dtype=np.float32)
        self.augment.set_random_seed(int(seed))
        moved = self.augment(image=picture, keypoints=corners)
        back = cv2.getAffineTransform(np.asarray(moved["keypoints"], dtype=np.float32), corners)
        # From pixels, whose centres are whole numbers, to [-1, 1] between the picture's edges.
        unit = np.array([[2 / size, 0, 1 / size - 1], [0, 2 / size, 1 / size - 1], [0, 0, 1]])
        return moved["image"], unit[:2] @ np.vstack([back, [0, 0, 1]]) @ np.linalg.inv(unit)


def default_max_bad_pictures(data: LabelledPictures) -> int:
    """Return the largest number of unreadable pictures in a set: one in a hundred, at least 10."""
    return max(10, len(data.paths) // 100)
