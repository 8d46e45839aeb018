"""A CycleGAN as one of the compared methods: it gives the original or the changed picture, and nothing between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from homomorph.errors import DataError
from homomorph.evaluation.figures import Pictures
from homomorph.evaluation.held_out import HeldOut
from homomorph.models.config import served_name
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.translator import Translator

_NOT = "not_"
SWITCH_AT = 0.5
"""Smallest strength that gives the changed picture."""


@dataclass(frozen=True)
class Direction:
    """A change of one attribute, as a CycleGAN's generator makes it."""

    name: str
    group: str
    """Group of the attribute."""
    column: int
    """Column of the attribute among all labels."""
    value: int
    """New value of the label: 1 for `<attribute>`, 0 for `not_<attribute>`."""

    def applies(self, held_out: HeldOut) -> NDArray[np.bool_]:
        """Which pairs change in this direction from a to b, [N]."""
        applies: NDArray[np.bool_] = (held_out.labels_a[:, self.column] != self.value) & (
            held_out.labels_b[:, self.column] == self.value
        )
        return applies


def directions_of(names: tuple[str, ...], groups: dict[str, tuple[str, ...]]) -> list[Direction]:
    """Find the labels that the directions of a CycleGAN change.

    Raises:
        DataError: one is neither `<attribute>` nor `not_<attribute>` of an attribute of the groups.
    """
    places = [(group, attribute) for group, attributes in groups.items() for attribute in attributes]
    found = []
    for name in names:
        wanted = [(name, 1), (name.removeprefix(_NOT), 0)]
        for column, (group, attribute) in enumerate(places):
            if value := [value for of, value in wanted if of in (attribute, served_name(attribute))]:
                found.append(Direction(name, group, column, value[0]))
                break
        else:
            attributes = ", ".join(attribute for _, attribute in places)
            raise DataError(f"the direction {name!r} is no attribute of the pictures, nor not_ and one: {attributes}")
    return found


class Translation:
    """G(a) from a strength of `SWITCH_AT` on, a itself below."""

    has_groups = True
    switches = True
    attributes = 1

    def __init__(self, model: CycleGAN, direction: str) -> None:
        self.direction = direction
        self._translator = Translator([model])
        # A trained run has both directions, an imported one has one.
        self._back = next((name for name in model.config.directions if name != direction), None)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())

    def reconstruct(self, pictures: Pictures) -> Pictures | None:
        """Change the pictures there and back (the cycle of CycleGAN's training)."""
        if self._back is None:
            return None
        return self._changed(self._back, self._changed(self.direction, pictures))

    def morph(self, source: Pictures, target: Pictures, strengths: NDArray[np.float32]) -> Pictures:
        """Return a or G(a); b has no effect."""
        changed = self._changed(self.direction, source)
        switched = (strengths.max(axis=2) >= SWITCH_AT)[:, :, None, None, None]
        return np.where(switched, changed[:, None], source[:, None])

    def _changed(self, direction: str, pictures: Pictures) -> Pictures:
        pixels = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 2, 3, 1)))
        result: Pictures = np.ascontiguousarray(
            self._translator.changed(direction, pixels).numpy().transpose(0, 3, 1, 2)
        )
        return result
