"""Errors that a caller can act on.

Every message says what was wrong, what was expected, and what to do. The command line turns any
`HomomorphError` into one line and exit code 2; anything else is a defect of ours and keeps its traceback.
"""


class HomomorphError(Exception):
    """Base of every error that homomorph raises on purpose."""


class PictureError(HomomorphError):
    """A picture cannot be read, or has a size or type that cannot be used."""
