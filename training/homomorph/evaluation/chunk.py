"""Some of the pairs that a method is measured on, with the values that all figures need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from homomorph.data.labels import UNKNOWN
from homomorph.evaluation.figures import Labels, Pictures
from homomorph.evaluation.held_out import HeldOut
from homomorph.evaluation.judge import Judge
from homomorph.evaluation.measured_pairs import MeasuredPairs
from homomorph.evaluation.methods import ComparedMethod
from homomorph.models.config import RESIDUAL


@dataclass(frozen=True)
class Chunk:
    """B pairs."""

    measured: MeasuredPairs
    held_out: HeldOut
    rows: NDArray[np.intp]
    """Numbers of the pairs, [B]."""
    reconstructed_a: Pictures | None
    """D(E(a)), uint8 [B, 3, H, W]; None if the method cannot reconstruct."""
    reconstructed_b: Pictures | None
    """D(E(b)), likewise; None also if the method takes nothing from b."""
    labels_a: Labels
    """a's labels, [B, L]; `UNKNOWN` where they do not count for `transfer`."""
    labels_b: Labels
    """b's labels, likewise."""
    preserved_labels: Labels
    """Labels that the judge should still read outside a group that moves, [B, L]."""

    @property
    def method(self) -> ComparedMethod:
        """The method that is measured."""
        return self.measured.method

    @cached_property
    def a(self) -> Pictures:
        """Source pictures, uint8 [B, 3, H, W]."""
        return self.held_out.source[self.rows]

    @cached_property
    def b(self) -> Pictures:
        """Target pictures, uint8 [B, 3, H, W]."""
        return self.held_out.target[self.rows]

    @property
    def branches(self) -> list[str]:
        """Names of the strengths' columns, K of them."""
        return [*self.held_out.groups, RESIDUAL]

    def strengths(self, group: str, values: NDArray[np.float64], others: float = 0) -> NDArray[np.float32]:
        """Return strengths with these values for one group and `others` for all other groups: [S] -> [B, S, K]."""
        strengths = np.full((len(self.rows), len(values), len(self.branches)), others, dtype=np.float32)
        strengths[:, :, self.branches.index(group)] = values
        return strengths


def make_chunk(measured: MeasuredPairs, held_out: HeldOut, rows: NDArray[np.intp], judge: Judge) -> Chunk:
    """Reconstruct the pictures of some pairs, and find which of their labels count."""
    a, b = held_out.source[rows], held_out.target[rows]
    reconstructed_a = measured.method.reconstruct(a)
    reconstructed_b = None if reconstructed_a is None or measured.method.switches else measured.method.reconstruct(b)
    labels_a, labels_b = held_out.labels_a[rows], held_out.labels_b[rows]
    preserved = labels_a
    if judge.reads_reconstructions:
        # A method that switches shows a picture as it is.
        first = a if reconstructed_a is None or measured.method.switches else reconstructed_a
        preserved = (judge.judge(first)[0] > 0.5).astype(np.uint8)
        read_b = judge.judge(b if reconstructed_b is None else reconstructed_b)[0] > 0.5
        labels_a = np.where(preserved == labels_a, labels_a, UNKNOWN).astype(np.uint8)
        labels_b = np.where(read_b == labels_b, labels_b, UNKNOWN).astype(np.uint8)
    return Chunk(measured, held_out, rows, reconstructed_a, reconstructed_b, labels_a, labels_b, preserved)
