"""Check that a model repository can be served."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.text_format import ParseError

from homomorph_client.errors import ServerError
from homomorph_export.configuration import is_ours, read_config, streamed_steps
from homomorph_export.contract import MANIFEST_FILE
from homomorph_export.errors import ExportError
from homomorph_export.flavours import PYTHON, Flavour
from homomorph_export.manifest import check_weights

_SAFE_PATH = re.compile(r"[\w./+=,@%-]+", re.ASCII)
"""Triton's Python backend (24.10) passes paths to a shell without quotes; other characters could run commands. A colon
would split the path of a library to preload."""
_SAFE_NAME = re.compile(r"[\w.-]+", re.ASCII)


def check_repository(repository: Path, models: Sequence[str], flavour: Flavour = PYTHON) -> None:
    """Check the repository before the start: tritonserver's own errors are less clear, and come after seconds.

    Raises:
        ServerError: there is no repository, or it lacks a model, its weights or the flavour's configurations, or the
            weights are damaged, or the name of a model cannot be passed to a shell.
    """
    if not repository.is_dir():
        raise ServerError(f"there is no model repository {repository}: write one with `homomorph export`")
    found = sorted(path.parent.name for path in repository.glob("*/config.pbtxt"))
    if not found:
        raise ServerError(f"the model repository {repository} holds no model: write them with `homomorph export`")
    for model in models:
        if model not in found:
            raise ServerError(f"the model repository {repository} has no model {model!r}: it has {', '.join(found)}")
    if not (repository / MANIFEST_FILE).exists() and any(is_ours(repository / model) for model in models):
        raise ServerError(f"{repository} has configurations but no weights: write them with `homomorph export`")
    for name in found:
        if not _SAFE_NAME.fullmatch(name):
            raise ServerError(
                f"the model repository {repository} has a model {name!r}: names are letters, digits, '_', '-' and '.'"
            )
    # If a model lacks the flavour's configuration, Triton uses the default one, which is for another backend.
    if not list(repository.glob(f"*/{flavour.config_file}")):
        raise ServerError(
            f"the model repository {repository} was written without {flavour.config_file}: "
            "write it again with `homomorph export`, with the flavour's files"
        )
    try:
        check_weights(repository)
    except ExportError as error:
        raise ServerError(str(error)) from error


def is_safe(path: Path) -> bool:
    """Whether a shell takes an unquoted path literally, and the loader a path to preload."""
    return bool(_SAFE_PATH.fullmatch(str(path)))


def with_called_models(repository: Path, models: Sequence[str]) -> tuple[str, ...]:
    """Return the models and those that they call. Triton itself loads only the members of ensembles, not these."""
    return tuple(dict.fromkeys([*models, *(name for model in models for name in _called_models(repository / model))]))


def _called_models(folder: Path) -> list[str]:
    """Return the models that a Python model calls, from its configuration."""
    try:
        return [step.model for step in streamed_steps(read_config(folder / PYTHON.config_file))]
    except (ParseError, ValueError, TypeError):
        return []  # Triton reports the error in the configuration
