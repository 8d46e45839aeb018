"""Read small text, JSON and YAML files, which anybody may have written, in bounded time and memory.

Only regular files are opened: a pipe or a device would block. YAML references are refused, because a few hundred bytes
of them expand to gigabytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from homomorph_client.files import open_regular

_MAX_BYTES = 2**20
_MAX_YAML_BYTES = 2**18
"""PyYAML reads about this much in a second or two."""
_MAX_DEPTH = 32
"""Most levels of nested lists and mappings."""


def read_text(file: Path, error: type[Exception], max_bytes: int = _MAX_BYTES) -> str:
    """Read a text file in UTF-8.

    Args:
        file: the file.
        error: class of the errors to raise.
        max_bytes: size of the largest file that is read.

    Raises:
        FileNotFoundError: there is no such file.
        error: the file is no regular file, too large or not in UTF-8, or cannot be read.
    """
    try:
        with open_regular(file) as opened:
            content = opened.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise error(f"{file} has more than {max_bytes >> 10} KiB")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise error(f"{file} cannot be read: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise error(f"{file} cannot be read: it is not in UTF-8 ({problem.reason})") from problem


def read_json(file: Path, error: type[Exception]) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        file: the file.
        error: class of the errors to raise.

    Raises:
        FileNotFoundError: there is no such file.
        error: as `read_text`, or the file is nested too deeply or holds no JSON object.
    """
    text = read_text(file, error)
    try:
        content = json.loads(text)
    except RecursionError as problem:
        raise error(f"{file} is nested too deeply") from problem
    except ValueError as problem:
        raise error(f"{file} cannot be read: {problem}") from problem
    _check_depth(content, str(file), error)
    if not isinstance(content, dict):
        raise error(f"{file} must hold an object, not a {type(content).__name__}")
    return content


def read_yaml(file: Path, error: type[Exception]) -> Any:
    """Read a YAML file.

    Args:
        file: the file.
        error: class of the errors to raise.

    Raises:
        FileNotFoundError: there is no such file.
        error: as `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(file, error, _MAX_YAML_BYTES), str(file), error)


def parse_yaml(text: str, where: str, error: type[Exception]) -> Any:
    """Parse YAML without references and duplicate keys.

    Args:
        text: the YAML.
        where: origin of the text, for messages.
        error: class of the errors to raise.

    Raises:
        error: the text is not such YAML, or is nested too deeply.
    """
    try:
        content = yaml.load(text, _PlainLoader)
    except _UnwantedError as problem:
        raise error(f"{where}: {problem}") from problem
    except (yaml.YAMLError, ValueError) as problem:  # ValueError: a number or a date that does not exist
        raise error(f"{where} is not YAML: {' '.join(str(problem).split())}") from problem
    except RecursionError as problem:
        raise error(f"{where} is nested too deeply") from problem
    _check_depth(content, where, error)
    return content


def _check_depth(content: object, where: str, error: type[Exception]) -> None:
    level = [content]
    for _ in range(_MAX_DEPTH + 1):
        mappings = [value.values() for value in level if isinstance(value, dict)]
        level = [item for values in [*mappings, *(v for v in level if isinstance(v, list | tuple))] for item in values]
        if not level:
            return
    raise error(f"{where} is nested too deeply")


class _UnwantedError(yaml.YAMLError):
    """Valid YAML with a feature that we refuse."""


class _PlainLoader(yaml.SafeLoader):
    """Refuses references and duplicate keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise _UnwantedError("references (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise _UnwantedError(f"{name!r} stands in it twice: put both into one")
            seen.add(name)
        return super().construct_mapping(node, deep)
