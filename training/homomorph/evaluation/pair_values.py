"""Values of one figure per pair, kept until all pairs are measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class PairValues:
    """Collects arrays under names, one chunk of pairs after the other."""

    def __init__(self) -> None:
        self._chunks: dict[str, list[NDArray[np.float64]]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._chunks

    def add(self, name: str, values: NDArray[np.float64] | NDArray[np.bool_]) -> None:
        """Add the values of a chunk of pairs, [B, ...]."""
        self._chunks.setdefault(name, []).append(values.astype(np.float64))

    def all(self, name: str) -> NDArray[np.float64]:
        """All values under a name, in the order in which they came; empty if there are none."""
        return np.concatenate(self._chunks.get(name, [np.zeros(0)]))

    def mean(self, name: str) -> float:
        """Mean of the values that are not NaN; NaN if there are none."""
        values = self.all(name)
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else float("nan")

    def names(self, prefix: str) -> list[str]:
        """Names that begin with `prefix`, without the prefix."""
        return [name.removeprefix(prefix) for name in self._chunks if name.startswith(prefix)]
