"""Search for the largest rate that a system sustains."""

from __future__ import annotations


class RateSearch:
    """A binary search over rates. The caller measures `rate` and passes the outcome to `record`.

    The caller has the loop, so that it can search several systems in turns.
    """

    def __init__(self, highest: float, *, tolerance: float = 0.03) -> None:
        """Search between 0 and `highest`; end when the interval is no wider than `tolerance` times `highest`."""
        self.best = 0.0
        """The largest rate that met the bound; 0 if none did."""
        self._lowest_failed = highest
        self._width = tolerance * highest

    @property
    def done(self) -> bool:
        """Whether the interval is as narrow as the tolerance."""
        return self._lowest_failed - self.best <= self._width

    @property
    def rate(self) -> float:
        """The rate to try next."""
        return (self.best + self._lowest_failed) / 2

    def record(self, *, met: bool) -> None:
        """Take in whether the bound was met at `rate`."""
        if met:
            self.best = self.rate
        else:
            self._lowest_failed = self.rate
