"""Errors that a caller can act on.

Every message says what was wrong, what was expected, and what to do. The command line turns any
`HomomorphError` into one line and exit code 2; any other exception is a defect of homomorph and keeps its traceback.
"""


class HomomorphError(Exception):
    """Base of every error that homomorph raises on purpose."""


class PictureError(HomomorphError):
    """A picture cannot be read, or has a size or type that cannot be used."""


class StrengthError(HomomorphError):
    """Strengths name an unknown group, or are not numbers in range."""


class MethodError(HomomorphError):
    """A method is unknown, or does not support the request."""


class LabelError(HomomorphError):
    """Labels to edit towards name an unknown group or label."""


class DirectionError(HomomorphError):
    """Steps of a translation name an unknown direction, or are none or too many."""


class OutputError(HomomorphError):
    """An output cannot be written to the given path or in the given format."""


class SettingsError(HomomorphError):
    """A client's settings are out of range, contradict each other, or name files that cannot be read."""


class SharedMemoryError(HomomorphError):
    """Shared memory cannot be allocated, or the server cannot map it, for example because it is on another machine."""


class ServerUnavailableError(HomomorphError):
    """No server answers at the address."""


class RestartedServerError(ServerUnavailableError):
    """The server was restarted since the client shared memory with it."""


class OverloadedError(HomomorphError):
    """The server's queue is full, or it could not answer in time; a later retry may succeed."""


class AccessError(HomomorphError):
    """The server, or a proxy in front of it, requires other credentials."""


class DeadlineError(HomomorphError):
    """The server did not answer within the request's timeout."""


class RequestError(HomomorphError):
    """The server refused a request, or does not serve the requested model."""


class ServerError(HomomorphError):
    """A server cannot be started (a port in use, no repository, a model that does not load), or stopped by itself."""
