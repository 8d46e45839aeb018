"""Errors of the operator's library and of exporting."""

from homomorph_client.errors import HomomorphError


class ExportError(HomomorphError):
    """A run cannot be exported, or the exported files compute other values than the run."""


class OperatorError(HomomorphError):
    """The library of `homomorph::interpolate` cannot be built or loaded."""
