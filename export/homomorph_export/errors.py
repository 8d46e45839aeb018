"""Errors of the operator's library and of exporting."""

from homomorph_client.errors import HomomorphError


class ExportError(HomomorphError):
    """A run cannot be exported, or what was exported does not compute what the run computes."""


class OperatorError(HomomorphError):
    """The library of `homomorph::interpolate` cannot be built or loaded."""
