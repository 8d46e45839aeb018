"""Morphs from a Triton server; needs numpy, pillow and tritonclient only."""

from homomorph_client.async_client import AsyncMorphClient
from homomorph_client.client import MorphClient
from homomorph_client.errors import (
    DeadlineError,
    HomomorphError,
    LabelError,
    OutputError,
    PictureError,
    RequestError,
    ServerError,
    ServerUnavailableError,
    StrengthError,
)

__all__ = [
    "AsyncMorphClient",
    "DeadlineError",
    "HomomorphError",
    "LabelError",
    "MorphClient",
    "OutputError",
    "PictureError",
    "RequestError",
    "ServerError",
    "ServerUnavailableError",
    "StrengthError",
]
