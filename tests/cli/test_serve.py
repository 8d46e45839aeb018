"""`homomorph serve` refuses to start in one line."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("service", ["grpc", "http", "metrics"])
def test_port_in_use(homomorph: Callable[..., Any], tmp_path: Path, service: str) -> None:
    (tmp_path / "morph").mkdir()
    (tmp_path / "morph" / "config.pbtxt").touch()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        outcome = homomorph("serve", "--repository", tmp_path, f"--{service}-port", port)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"port {port} of 127.0.0.1 cannot be used for {service} (Address already in use)" in outcome.err


def test_missing_repository(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    outcome = homomorph("serve", "--repository", tmp_path / "nowhere")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"there is no model repository {tmp_path / 'nowhere'}" in outcome.err
    assert "homomorph export" in outcome.err


def test_port_out_of_range(homomorph: Callable[..., Any]) -> None:
    outcome = homomorph("serve", "--grpc-port", "70000")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "--grpc-port" in outcome.err
