"""Measures that exported files make of pictures what the runs' own generators make of them."""

from __future__ import annotations

import torch

from homomorph.models.translator import Translator
from homomorph_client.names import TRANSLATE
from homomorph_export.contract import direction_model
from homomorph_export.manifest import Parity
from homomorph_export.parity import BATCH_SIZES, Exported, judged, random_pictures


@torch.inference_mode()
def compare(translator: Translator, exported: Exported, *, kind: str, precision: str) -> Parity:
    """Compare every direction alone, and each step of chains in which all directions take their turn.

    A step is held against what the run makes of the same picture, so that chains of any length are judged alike.

    Args:
        translator: the runs' networks, in float32.
        exported: what runs the files, as read back from them.
        kind: name of the file format, for the message.
        precision: number format of these files, which decides the tolerance.

    Raises:
        ExportError: the difference is beyond the tolerance.
    """
    size = translator.picture_size
    count = len(translator.directions)
    pairs = []
    for batch in BATCH_SIZES:
        for picture_size in ((size, size), (2 * size, size)):
            pictures = random_pictures(picture_size, batch)
            for direction in translator.directions:
                found = exported[direction_model(direction)](pictures)
                pairs.append((found, translator.changed(direction, pictures)))
        # Each picture of a batch begins with another direction, and has had all of them in the end.
        pictures = random_pictures((size, size), batch)
        steps = (torch.arange(batch)[:, None] + torch.arange(count)[None]) % count
        frames = exported[TRANSLATE](pictures, steps)
        for place in range(count):
            before = frames[:, place - 1] if place else pictures
            for row in range(batch):
                direction = translator.directions[int(steps[row, place])]
                pairs.append((frames[row : row + 1, place], translator.changed(direction, before[row : row + 1])))
    return judged(pairs, kind=kind, precision=precision)
