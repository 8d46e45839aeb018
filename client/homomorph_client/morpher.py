"""Interface of a served model and of a model in this process, so that a program can use either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from homomorph_client.full_size import full_size_edit, full_size_morph
from homomorph_client.labels import Labels
from homomorph_client.names import EDIT, HOMOMORPH, LATENT, Blend, Method
from homomorph_client.pictures import Picture
from homomorph_client.served_model import ServedModel
from homomorph_client.strengths import Strengths, grid_strengths


class Morpher(Protocol):
    """`MorphClient`, which asks a server, or what `homomorph.load` returns, which computes here.

    Both give the same frames, to 1 grey level, and to 3 at full size. `MorphClient` describes arguments, results and
    errors.
    """

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the sliders in the order of the strengths' columns; `residual` comes last."""
        return self.served_model().groups

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """Names of the labels, by group; groups without labels are left out."""
        return self.served_model().labels

    @property
    def picture_size(self) -> int:
        """Height and width in pixels of the frames."""
        return self.served_model().picture_size

    def served_model(self, name: str | None = None) -> ServedModel:
        """Return the groups, labels, picture size and limits of a model: `morph`, or the named one."""
        ...

    def morph(
        self,
        source: Picture,
        target: Picture,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        method: Method = HOMOMORPH,
        urgent: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """Morph one picture into another: uint8 [S, H, W, 3]."""
        ...

    def edit(
        self,
        source: Picture,
        labels: Labels,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        urgent: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """Change a picture towards labels: uint8 [S, H, W, 3]."""
        ...

    def morph_full_size(
        self,
        source: Picture,
        target: Picture,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        size: int | None = None,
        urgent: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """Morph at the pictures' own size, with their own details wherever a frame shows one of them.

        A frame with all strengths at 0 is the source, and one with all at 1 the target, pixel by pixel. What the model
        draws anew is as sharp as at its own size. The module `details` has the equation.

        Args:
            source: as for `morph`.
            target: as for `morph`.
            steps: as for `morph`.
            strengths: as for `morph`, for at most two frames fewer than the model's limit.
            size: height and width N of the frames in pixels, from `picture_size` to 2048. None is the smallest side of
                both pictures, within these bounds.
            urgent: as for `morph`.

        Returns:
            uint8 [S, N, N, 3], RGB, values in [0, 255].

        Raises:
            PictureError: a picture or `size` cannot be used.
            HomomorphError: as `morph`.
        """
        wanted = full_size_morph(self.served_model(), source, target, steps=steps, strengths=strengths, size=size)
        return wanted.finish(self.morph(*wanted.pictures, strengths=wanted.strengths, urgent=urgent))

    def edit_full_size(
        self,
        source: Picture,
        labels: Labels,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        size: int | None = None,
        urgent: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """Change a picture towards labels at its own size: arguments as for `edit`, results as of `morph_full_size`."""
        wanted = full_size_edit(self.served_model(EDIT), source, labels, steps=steps, strengths=strengths, size=size)
        return wanted.finish(self.edit(wanted.pictures[0], labels, strengths=wanted.strengths, urgent=urgent))

    def grid(
        self, source: Picture, target: Picture, *, rows: str, columns: str, size: int = 5
    ) -> npt.NDArray[np.uint8]:
        """Vary two groups against each other: uint8 [N, N, H, W, 3]."""
        strengths = grid_strengths(self.served_model(), rows=rows, columns=columns, size=size)
        frames = self.morph(source, target, strengths=strengths)
        return frames.reshape(size, size, *frames.shape[1:])

    def square(self, corners: Sequence[Picture], *, method: Blend = LATENT, size: int = 5) -> npt.NDArray[np.uint8]:
        """Fill a square between four pictures: uint8 [N, N, H, W, 3]."""
        ...
