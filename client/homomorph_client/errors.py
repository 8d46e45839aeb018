"""Errors that a caller can act on.

Every message says what was wrong, what was expected, and what to do. The command line turns any
`HomomorphError` into one line and exit code 2; anything else is a defect of ours and keeps its traceback.
"""


class HomomorphError(Exception):
    """Base of every error that homomorph raises on purpose."""


class PictureError(HomomorphError):
    """A picture cannot be read, or has a size or type that cannot be used."""


class StrengthError(HomomorphError):
    """Strengths name an unknown group, or are not numbers in range."""


class LabelError(HomomorphError):
    """Labels to edit towards name an unknown group or label."""


class OutputError(HomomorphError):
    """A morph cannot be written where or as what was asked for."""


class ServerUnavailableError(HomomorphError):
    """No server answers at the address."""


class DeadlineError(HomomorphError):
    """The server did not answer within the request's timeout."""


class RequestError(HomomorphError):
    """The server refused a request, or does not serve the model that was asked for."""


class ServerError(HomomorphError):
    """A server cannot be started (a port in use, no repository, a model that does not load), or stopped by itself."""
