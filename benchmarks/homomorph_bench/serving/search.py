"""The search for the largest rate that a system sustains."""

from __future__ import annotations


class RateSearch:
    """A binary search that is told, rate by rate, whether the bound was met.

    It is no loop of its own, so that several systems can be searched in turns.
    """

    def __init__(self, highest: float, *, tolerance: float = 0.03) -> None:
        """Begin between 0 and `highest`, and end when that is narrowed to a share `tolerance` of `highest`."""
        self.best = 0.0
        """The largest rate that met the bound; 0 if none did."""
        self._failed = highest
        self._width = tolerance * highest

    @property
    def done(self) -> bool:
        """Whether the largest rate is known as closely as was asked for."""
        return self._failed - self.best <= self._width

    @property
    def rate(self) -> float:
        """The rate to try next."""
        return (self.best + self._failed) / 2

    def tell(self, *, met: bool) -> None:
        """Say whether the bound was met at `rate`."""
        if met:
            self.best = self.rate
        else:
            self._failed = self.rate
