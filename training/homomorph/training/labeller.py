"""Labels the pictures that have no labels, by a small network trained on those that have.

homomorph label data/faces --out data/labels.csv
"""

from __future__ import annotations

import contextlib
import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from homomorph.data.augmented import Jitter, default_max_bad_pictures
from homomorph.data.batches import PairedBatches
from homomorph.data.labels import UNKNOWN, LabelledPictures, images_folder, label_balance, occurrence, read_labelled
from homomorph.data.loading import load_batches, report_skipped
from homomorph.errors import DataError
from homomorph.progress import Progress, Report, silent
from homomorph.training.losses import attribute_loss
from homomorph_client.errors import PictureError
from homomorph_client.pictures import fit_picture

MIN_LABELLED = 40
"""Pictures with labels that there have to be; a tenth of them is held out."""
_MAX_HELD_OUT = 2000
_BATCH = 64

_log = logging.getLogger(__name__)


class Labeller(nn.Module):
    """A small convolutional classifier: uint8 pictures [B, 3, H, W] -> the labels' logits [B, L]."""

    def __init__(self, attributes: int, widths: Sequence[int] = (24, 48, 96, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.model = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16 * channels, attributes)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.model(pictures.float() / 127.5 - 1)
        return logits


def label_set(
    folder: Path,
    out: Path,
    *,
    steps: int = 1500,
    picture_size: int = 64,
    seed: int = 0,
    workers: int = 1,
    max_bad_pictures: int | None = None,
    report: Report = silent,
) -> None:
    """Write every picture's labels: those that are known as they are, the others as a network reads them.

    `out` has the form of `attributes.csv`, and after the labels a column `<attribute>_confidence`: the probability of
    the label that was chosen, in [0.5, 1]; empty where the label was known. Beside it, with the ending `.json`, stands
    what the network got right of pictures that it was not trained on. A picture that cannot be read gets no new labels.

    Args:
        folder: a data folder; unknown labels, and pictures that the table does not name, are labelled.
        out: new file.
        steps: of training.
        picture_size: height and width in pixels that the network sees.
        seed: of the network, its batches, and the pictures held out.
        workers: processes that read pictures while the network is trained.
        max_bad_pictures: how many may be unreadable; by default one in a hundred, at least 10.
        report: called after each training step, then for each batch of pictures checked and labelled.

    Raises:
        DataError: a file exists already or has no folder to be in, there is nothing to label or too little to learn
            from, or too many pictures cannot be read.
    """
    report_file = out.with_suffix(".json")
    if out == report_file:
        raise DataError(f"{out} is where the accuracy goes; give the table another ending, such as .csv")
    if not out.parent.is_dir():
        raise DataError(f"there is no folder {out.parent} to write {out.name} into")
    for file in (out, report_file):
        if file.exists():
            raise DataError(f"{file} already exists; give a new file, nothing is overwritten")
    data = read_labelled(folder, unlisted=True)
    known = data.known
    wanting = np.flatnonzero(~known.all(axis=1))
    if not len(wanting):
        raise DataError(f"there is nothing to label: all labels of all {len(data.paths)} pictures are known")
    labelled = np.random.default_rng(seed).permutation(np.flatnonzero(known.any(axis=1)))
    if len(labelled) < MIN_LABELLED:
        raise DataError(f"{len(labelled)} pictures have labels to learn from; at least {MIN_LABELLED} are needed")
    held_out = np.sort(labelled[: min(len(labelled) // 10, _MAX_HELD_OUT)])
    training = select(data, np.sort(labelled[len(held_out) :]))
    share = occurrence(training)
    never = [name for name, value in zip(_names(data), share, strict=True) if np.isnan(value)]
    if never:
        raise DataError(f"no picture says whether it has {', '.join(never)}: there is nothing to learn from")

    # Train.
    torch.manual_seed(seed)
    network = Labeller(len(share))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    limit = default_max_bad_pictures(data) if max_bad_pictures is None else max_bad_pictures
    batches = PairedBatches(
        training, batch_size=_BATCH, picture_size=picture_size, jitter=Jitter(), seed=seed, max_bad_pictures=limit
    )
    balance = torch.from_numpy(label_balance(share))
    skipped: dict[int, str] = {}
    with contextlib.closing(load_batches(batches, range(steps), workers, skipped)) as loader:
        for step, batch in enumerate(loader, start=1):
            loss = attribute_loss(network(batch.pictures), batch.labels, batch.known, balance)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            report(Progress("training", step, steps, {"loss": loss.item()}))
    network.eval()

    # See what it gets right, then label.
    probabilities = np.full(data.labels.shape, np.nan, dtype=np.float32)
    bad: list[str] = []
    for stage, rows in (("checking", held_out), ("labelling", wanting)):
        for start in range(0, len(rows), _BATCH):
            chunk = rows[start : start + _BATCH]
            unread = chunk[np.isnan(probabilities[chunk, 0])].tolist()
            read = {row: _read(data.paths[row], picture_size, bad) for row in unread}
            pictures = {row: picture for row, picture in read.items() if picture is not None}
            if len(bad) > limit:
                raise DataError(
                    f"{len(bad)} pictures cannot be used, and --max-bad-pictures is {limit}; "
                    f"the first are: {'; '.join(bad[:3])}"
                )
            if pictures:
                with torch.no_grad():
                    logits = network(torch.from_numpy(np.stack(list(pictures.values()))).permute(0, 3, 1, 2))
                probabilities[list(pictures)] = logits.sigmoid().numpy()
            report(Progress(stage, min(start + _BATCH, len(rows)), len(rows)))
    report_skipped(len(bad), data)
    accuracy = {
        "pictures": len(data.paths),
        "trained_on": len(training.paths),
        "held_out": len(held_out),
        "attributes": held_out_accuracy(_names(data), data.labels[held_out], probabilities[held_out]),
    }
    _write_labels(out, images_folder(folder), data, probabilities)
    report_file.write_text(json.dumps(accuracy, indent=2) + "\n", encoding="utf-8")


def select(data: LabelledPictures, rows: NDArray[np.int64]) -> LabelledPictures:
    """Return some of the pictures, rows [M]."""
    return LabelledPictures([data.paths[row] for row in rows.tolist()], data.labels[rows], data.groups)


def held_out_accuracy(
    names: Sequence[str], labels: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> dict[str, dict[str, Any]]:
    """Compare probabilities with labels, both [N, L]; labels may be `UNKNOWN`, probabilities NaN.

    Returns:
        Per attribute: `pictures` that could be compared, `accuracy`, and `guessing`, the accuracy of always giving the
        more frequent answer; None where there were no pictures.
    """
    figures: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(names):
        compared = (labels[:, column] != UNKNOWN) & ~np.isnan(probabilities[:, column])
        truth, read = labels[compared, column] == 1, probabilities[compared, column] > 0.5
        share = float(truth.mean()) if len(truth) else None
        figures[name] = {
            "pictures": len(truth),
            "accuracy": float((truth == read).mean()) if len(truth) else None,
            "guessing": None if share is None else max(share, 1 - share),
        }
    return figures


def _read(path: Path, size: int, bad: list[str]) -> NDArray[np.uint8] | None:
    """Read a picture [H, W, 3]; if that fails, say why, add it to `bad` and return None."""
    try:
        return fit_picture(path, size)
    except PictureError as error:
        bad.append(str(error))
        _log.warning("skipped: %s", error)
        return None


def _names(data: LabelledPictures) -> list[str]:
    return [name for names in data.groups.values() for name in names]


def _write_labels(out: Path, images: Path, data: LabelledPictures, probabilities: NDArray[np.float32]) -> None:
    """Write the table; it appears whole or not at all."""
    names = _names(data)
    partial = out.with_name(out.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", *names, *(f"{name}_confidence" for name in names)])
        for row in range(len(data.paths)):
            cells: list[str] = []
            confidences: list[str] = []
            for label, probability in zip(data.labels[row].tolist(), probabilities[row].tolist(), strict=True):
                guessed = label == UNKNOWN and not np.isnan(probability)
                cells.append(str(int(probability > 0.5)) if guessed else "" if label == UNKNOWN else str(label))
                confidences.append(f"{max(probability, 1 - probability):.3f}" if guessed else "")
            writer.writerow([data.paths[row].relative_to(images).as_posix(), *cells, *confidences])
    partial.replace(out)
