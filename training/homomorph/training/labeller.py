"""Labels the pictures that have no labels, by a small network trained on those that have.

homomorph label data/faces --out data/labels.csv
"""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from homomorph.data.augmented import Jitter, default_max_bad_pictures
from homomorph.data.batches import PairedBatches
from homomorph.data.labels import LabelledPictures, label_balance, occurrence
from homomorph.data.loading import load_batches, report_skipped
from homomorph.data.tables import UNKNOWN
from homomorph.errors import DataError
from homomorph.progress import Progress, Report, silent
from homomorph.text_files import read_json
from homomorph.training.losses import attribute_loss
from homomorph_client.errors import PictureError
from homomorph_client.files import replacing
from homomorph_client.pictures import fit_picture

MIN_LABELLED = 40
"""Smallest number of pictures with labels; a tenth of them is held out."""
_MAX_HELD_OUT = 2000
_BATCH = 64

_log = logging.getLogger(__name__)


class Labeller(nn.Module):
    """A small convolutional classifier: uint8 pictures [B, 3, H, W] -> the labels' logits [B, L]."""

    def __init__(self, attributes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in (24, 48, 96, 128):
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
    data: LabelledPictures,
    out: Path,
    *,
    steps: int = 1500,
    picture_size: int = 64,
    min_confidence: float = 0.5,
    seed: int = 0,
    max_bad_pictures: int | None = None,
    report: Report = silent,
) -> None:
    """Write every picture's labels: those that are known as they are, the others as a network reads them.

    `out` has the form of `attributes.csv`, and after the labels a column `<attribute>_confidence`: the probability of
    the likelier label, in [0.5, 1]; empty where the label was known. The file with the ending `.json` beside it
    has the accuracy on pictures that did not train the network. A picture that cannot be read gets no new labels, and a
    label whose known values are all the same stays as it is: nothing can be learned about it.

    Args:
        data: pictures, read with `unlisted`, so that those that the table does not name are labelled too.
        out: new file.
        steps: of training.
        picture_size: height and width in pixels that the network sees.
        min_confidence: a label that is read with less confidence stays unknown, in [0.5, 1].
        seed: of the network, its batches, and the pictures held out.
        max_bad_pictures: how many may be unreadable; by default one in a hundred, at least 10.
        report: called after each training step, then for each batch of pictures checked and labelled.

    Raises:
        DataError: a file exists already or has no folder to be in, there is nothing to label or too little to learn
            from, or too many pictures cannot be read.
        OutputError: a file cannot be written; this is tried before anything is computed.
    """
    report_file = out.with_suffix(".json")
    if out == report_file:
        raise DataError(f"{out} is where the accuracy goes; give the table another ending, such as .csv")
    if not out.parent.is_dir():
        raise DataError(f"there is no folder {out.parent} to write {out.name} into")
    for file in (out, report_file):
        if file.exists() and not (file == report_file and _is_accuracy(file)):
            raise DataError(f"{file} already exists; give a new file, nothing is overwritten")
    # The accuracy is renamed before the table: after a kill between the two, the same command works again.
    with replacing(out) as partial, replacing(report_file) as partial_report, partial.open("x", newline="") as table:
        # The table is written as it is computed: a disk that is full or a name that cannot be written ends it early.
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["image", *data.attributes, *(f"{name}_confidence" for name in data.attributes)])
        labeller = _train(data, steps, picture_size, seed, max_bad_pictures, report)
        labeller.check(report)
        for row, cells in labeller.label(min_confidence, report):
            writer.writerow([data.name(row), *cells])
        report_skipped(len(labeller.bad), data)
        partial_report.write_text(json.dumps(labeller.figures(), indent=2) + "\n", encoding="utf-8")


def _is_accuracy(file: Path) -> bool:
    """Whether an earlier `label_set` wrote the file."""
    try:
        content = read_json(file, DataError)
    except (FileNotFoundError, DataError):
        return False
    return content.keys() == {"pictures", "trained_on", "held_out", "attributes"}


def _train(
    data: LabelledPictures,
    steps: int,
    picture_size: int,
    seed: int,
    max_bad_pictures: int | None,
    report: Report,
) -> _TrainedLabeller:
    """Train a network on nine tenths of the pictures that have labels.

    Raises:
        DataError: there is nothing to label or too little to learn from, or too many pictures cannot be read.
    """
    known = data.known
    learnable = ~data.one_valued()
    if known.all():
        raise DataError(f"there is nothing to label: all labels of all {len(data.paths)} pictures are known")
    if not (~known[:, learnable]).any():
        alike = ", ".join(name for name, one in zip(data.attributes, ~learnable, strict=True) if one)
        raise DataError(
            f"there is nothing to learn from: all known labels of {alike} are the same, and others are known"
        )
    labelled = np.random.default_rng(seed).permutation(np.flatnonzero(known.any(axis=1)))
    if len(labelled) < MIN_LABELLED:
        raise DataError(f"{len(labelled)} pictures have labels to learn from; at least {MIN_LABELLED} are needed")
    held_out = np.sort(labelled[: min(len(labelled) // 10, _MAX_HELD_OUT)])
    training = select(data, np.sort(labelled[len(held_out) :]))
    torch.manual_seed(seed)
    network = Labeller(len(data.attributes))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    limit = default_max_bad_pictures(data) if max_bad_pictures is None else max_bad_pictures
    batches = PairedBatches(
        training, batch_size=_BATCH, picture_size=picture_size, jitter=Jitter(), seed=seed, max_bad_pictures=limit
    )
    balance = torch.from_numpy(label_balance(occurrence(training)))
    with contextlib.closing(load_batches(batches, range(steps), 1, {})) as loader:
        for step, batch in enumerate(loader, start=1):
            loss = attribute_loss(network(batch.pictures), batch.labels, batch.known.float(), balance)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            report(Progress("training", step, steps, {"loss": loss.item()}))
    return _TrainedLabeller(network.eval(), data, picture_size, limit, held_out, len(training.paths))


class _TrainedLabeller:
    """A trained network, its picture set, and the pictures that cannot be read."""

    def __init__(
        self,
        network: Labeller,
        data: LabelledPictures,
        picture_size: int,
        max_bad_pictures: int,
        held_out: NDArray[np.int64],
        trained_on: int,
    ) -> None:
        self.network, self.data, self.picture_size = network, data, picture_size
        self.max_bad_pictures, self.held_out, self.trained_on = max_bad_pictures, held_out, trained_on
        self.bad: dict[int, str] = {}
        """Pictures that cannot be read, with the reason."""
        self._checked = np.full((len(held_out), len(data.attributes)), np.nan, np.float32)

    def check(self, report: Report) -> None:
        """Read the pictures that were held out."""
        for start in range(0, len(self.held_out), _BATCH):
            rows = self.held_out[start : start + _BATCH]
            self._checked[start : start + len(rows)] = self._probabilities(rows)
            report(Progress("checking", start + len(rows), len(self.held_out)))

    def label(self, min_confidence: float, report: Report) -> Iterator[tuple[int, list[str]]]:
        """Yield each picture's row and the cells of its labels and of their confidences."""
        learnable = ~self.data.one_valued()
        count = len(self.data.paths)
        for start in range(0, count, _BATCH):
            rows = np.arange(start, min(start + _BATCH, count))
            wanting = rows[(self.data.labels[rows] == UNKNOWN)[:, learnable].any(axis=1)]
            probabilities = np.full((len(rows), len(learnable)), np.nan, np.float32)
            probabilities[wanting - start] = self._probabilities(wanting)
            probabilities[:, ~learnable] = np.nan
            for row, chances in zip(rows.tolist(), probabilities.tolist(), strict=True):
                yield row, _cells(self.data.labels[row].tolist(), chances, min_confidence)
            report(Progress("labelling", start + len(rows), count))

    def figures(self) -> dict[str, Any]:
        """Return the numbers of pictures, and the accuracy on held-out ones by attribute."""
        labels = self.data.labels[self.held_out]
        return {
            "pictures": len(self.data.paths),
            "trained_on": self.trained_on,
            "held_out": len(self.held_out),
            "attributes": held_out_accuracy(self.data.attributes, labels, self._checked),
        }

    def _probabilities(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the labels' probabilities of pictures, [M, L]; NaN where a picture cannot be read.

        Raises:
            DataError: too many cannot be read.
        """
        found = np.full((len(rows), len(self.data.attributes)), np.nan, np.float32)
        read = {place: self._read(row) for place, row in enumerate(rows.tolist())}
        pictures = {place: picture for place, picture in read.items() if picture is not None}
        if len(self.bad) > self.max_bad_pictures:
            raise DataError(
                f"{len(self.bad)} pictures cannot be used, and --max-bad-pictures is {self.max_bad_pictures}; "
                f"the first are: {'; '.join(list(self.bad.values())[:3])}"
            )
        if pictures:
            with torch.no_grad():
                logits = self.network(torch.from_numpy(np.stack(list(pictures.values()))).permute(0, 3, 1, 2))
            found[list(pictures)] = logits.sigmoid().numpy()
        return found

    def _read(self, row: int) -> NDArray[np.uint8] | None:
        """Read a picture [H, W, 3]; if that fails, say why once, and return None."""
        try:
            return fit_picture(self.data.paths[row], self.picture_size)
        except PictureError as error:
            if row not in self.bad:
                self.bad[row] = str(error)
                _log.warning("skipped: %s", error)
            return None


def select(data: LabelledPictures, rows: NDArray[np.int64]) -> LabelledPictures:
    """Return some of the pictures, rows [M]."""
    return LabelledPictures([data.paths[row] for row in rows.tolist()], data.labels[rows], data.groups)


def held_out_accuracy(
    names: Sequence[str], labels: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> dict[str, dict[str, Any]]:
    """Compare probabilities with labels, both [N, L]; labels may be `UNKNOWN`, probabilities NaN.

    Returns:
        Per attribute: `pictures` that could be compared, `accuracy`, and `guessing`, the accuracy of always giving the
        more frequent answer; None where all of them agree, or there are none: then any answer would look right.
    """
    figures: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(names):
        compared = (labels[:, column] != UNKNOWN) & ~np.isnan(probabilities[:, column])
        truth, read = labels[compared, column] == 1, probabilities[compared, column] > 0.5
        share = float(truth.mean()) if len(truth) else 0.0
        figures[name] = {
            "pictures": len(truth),
            "accuracy": float((truth == read).mean()) if 0 < share < 1 else None,
            "guessing": max(share, 1 - share) if 0 < share < 1 else None,
        }
    return figures


def _cells(labels: list[int], probabilities: list[float], min_confidence: float) -> list[str]:
    """Return a picture's labels as the table writes them, then the confidences of those that were read.

    A label that was read with less than `min_confidence` stays empty.
    """
    cells: list[str] = []
    confidences: list[str] = []
    for label, probability in zip(labels, probabilities, strict=True):
        read = label == UNKNOWN and not math.isnan(probability)
        confidence = max(probability, 1 - probability)
        sure = read and confidence >= min_confidence
        cells.append(str(int(probability > 0.5)) if sure else "" if label == UNKNOWN else str(label))
        confidences.append(f"{confidence:.3f}" if read else "")
    return cells + confidences
