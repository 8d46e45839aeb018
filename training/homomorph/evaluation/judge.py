"""The judge of an evaluation: it reads labels from pictures, features for `frechet`, and maps for d."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from homomorph.data.labels import UNKNOWN
from homomorph.evaluation.efficientnet import EfficientNetJudge, load_efficientnet
from homomorph.evaluation.evaluator import Evaluator, train_evaluator
from homomorph.evaluation.held_out import HeldOut
from homomorph.progress import Progress, Report, silent


@dataclass(frozen=True)
class JudgeSettings:
    """Which judge reads the labels, and what trains it."""

    steps: int
    """Batches that train the `classifier`; the other is fitted to its end."""
    choice: Literal["classifier", "efficientnet"] = "classifier"
    """`classifier` is trained from random weights; `efficientnet` is a linear classifier on an ImageNet network."""
    folder: Path | None = None
    """Labelled pictures that train it, which may be those that trained a model; None: those of the evaluated folder
    that are in no pair."""


class Judge(Protocol):
    """Reads labels. It was trained on real pictures only and shares nothing with any model's training."""

    reads_reconstructions: bool
    """Whether a label counts only if the judge reads it correctly in D(E(a)) and D(E(b)).

    Set for a judge that is often wrong about real pictures: otherwise its errors would count as a method's.
    """

    def judge(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Read pictures: uint8 [N, 3, H, W] -> probabilities [N, L] and features [N, F]."""
        ...

    def maps(self, pictures: Tensor) -> list[Tensor]:
        """Pictures uint8 [B, 3, H, W] -> maps of several layers, [B, C, h, w] each."""
        ...


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a judge on real pictures that did not train it."""

    per_label: NDArray[np.float64]
    """Share of the known labels that it reads correctly, [L]; NaN if none is known."""
    balanced: NDArray[np.float64]
    """Mean of the accuracy on pictures with the label and on pictures without it, [L]; .5 is chance."""
    pictures: int
    """Number of pictures that trained it."""


def train_judge(settings: JudgeSettings, held_out: HeldOut, report: Report = silent) -> tuple[Judge, Accuracy]:
    """Train a judge on nine tenths of its pictures, and measure its accuracy on the first tenth.

    Args:
        settings: which judge, and for how long.
        held_out: pictures and labels.
        report: called for each step.

    Raises:
        ConfigError: the packages of `efficientnet` are not installed.
    """
    kept = len(held_out.pictures) // 10
    pictures, labels = held_out.pictures[kept:], held_out.labels[kept:]
    judge: Judge
    if settings.choice == "efficientnet":
        judge = EfficientNetJudge(load_efficientnet(), pictures, labels, report)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            judge = Evaluator(labels.shape[1])
        for step, _ in enumerate(train_evaluator(judge, pictures, labels, steps=settings.steps), start=1):
            report(Progress("judge", step, settings.steps))
    return judge, _accuracy(judge, held_out.pictures[:kept], held_out.labels[:kept], len(pictures))


def _accuracy(judge: Judge, pictures: NDArray[np.uint8], labels: NDArray[np.uint8], trained_on: int) -> Accuracy:
    right = (judge.judge(pictures)[0] > 0.5) == labels
    rates = [_share(right, labels == value) for value in (0, 1)]
    return Accuracy(_share(right, labels != UNKNOWN), (rates[0] + rates[1]) / 2, trained_on)


def _share(right: NDArray[np.bool_], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the counted labels that are right, per column."""
    count = counted.sum(axis=0)
    return np.divide((right & counted).sum(axis=0), count, out=np.full(right.shape[1], np.nan), where=count > 0)
