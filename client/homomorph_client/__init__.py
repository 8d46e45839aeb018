"""Morphs and translations from a Triton server; needs numpy, pillow and tritonclient only."""

from homomorph_client.async_client import AsyncMorphClient
from homomorph_client.client import MorphClient
from homomorph_client.connection import Tls
from homomorph_client.errors import (
    AccessError,
    DeadlineError,
    DirectionError,
    HomomorphError,
    LabelError,
    MethodError,
    OutputError,
    OverloadedError,
    PictureError,
    RequestError,
    ServerError,
    ServerUnavailableError,
    SettingsError,
    SharedMemoryError,
    StrengthError,
)
from homomorph_client.version import __version__

__all__ = [
    "AccessError",
    "AsyncMorphClient",
    "DeadlineError",
    "DirectionError",
    "HomomorphError",
    "LabelError",
    "MethodError",
    "MorphClient",
    "OutputError",
    "OverloadedError",
    "PictureError",
    "RequestError",
    "ServerError",
    "ServerUnavailableError",
    "SettingsError",
    "SharedMemoryError",
    "StrengthError",
    "Tls",
    "__version__",
]
