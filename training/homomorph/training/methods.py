"""Makes the method of a preset."""

from __future__ import annotations

from typing import Any

from homomorph.data.labels import LabelledPictures
from homomorph.training.cyclegan.method import CycleGANMethod
from homomorph.training.cyclegan.recipe import CycleGANPreset
from homomorph.training.default.method import DefaultMethod
from homomorph.training.default.recipe import DefaultRecipe
from homomorph.training.method import Method
from homomorph.training.parallel import Processes
from homomorph.training.published.method import PublishedMethod
from homomorph.training.settings import MorphPreset


def make_method(
    data: LabelledPictures,
    preset: MorphPreset | CycleGANPreset,
    *,
    seed: int = 0,
    max_bad_pictures: int | None = None,
    processes: Processes | None = None,
) -> Method[Any, Any, Any]:
    """Make networks with random weights, and the losses that train them.

    Args:
        data: labelled pictures.
        preset: a whole configuration.
        seed: of weights and batches.
        max_bad_pictures: how many pictures may be unreadable; see `AugmentedPictures`.
        processes: this process among those that train together; alone on the CPU in float32 by default.

    Raises:
        ConfigError: the preset does not fit the data or the number of processes.
        DataError: the labels do not divide the pictures as the method needs it.
    """
    options: dict[str, Any] = {
        "steps": preset.steps,
        "seed": seed,
        "max_bad_pictures": max_bad_pictures,
        "processes": processes,
    }
    if isinstance(preset, CycleGANPreset):
        return CycleGANMethod(data, preset, **options)
    if isinstance(preset.recipe, DefaultRecipe):
        return DefaultMethod(data, preset, preset.recipe, **options)
    return PublishedMethod(data, preset, preset.recipe, **options)
