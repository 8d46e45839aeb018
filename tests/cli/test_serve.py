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


def repository_of(tmp_path: Path, config: str) -> Path:
    for name, file in {"morph": "config.pbtxt", "encoder": config}.items():
        path = tmp_path / "repository" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "repository"


@pytest.mark.parametrize(("flavour", "backend"), [("libtorch", "pytorch"), ("onnx", "onnxruntime")])
def test_backend_that_is_not_there(homomorph: Callable[..., Any], tmp_path: Path, flavour: str, backend: str) -> None:
    repository = repository_of(tmp_path, f"configs/{flavour}.pbtxt")
    outcome = homomorph("serve", "--repository", repository, "--flavour", flavour, "--backends", tmp_path / "backends")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    library = tmp_path / "backends" / backend / f"libtriton_{backend}.so"
    assert f"flavour '{flavour}' needs Triton's backend '{backend}', and there is no {library}" in outcome.err
    assert "NVIDIA's container brings all" in outcome.err


def test_repository_without_the_flavour(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    repository = repository_of(tmp_path, "configs/libtorch.pbtxt")
    outcome = homomorph("serve", "--repository", repository, "--flavour", "onnx")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "was written without configs/onnx.pbtxt" in outcome.err


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ('{"models": ["encoder"], "files": {"encoder/1/model.pt": "0"}}', "encoder/1/model.pt is damaged"),
        ('{"models": ["../encoder"]}', "manifest.json is damaged"),
        ("[" * 100_000, "manifest.json is damaged"),
    ],
)
def test_damaged_weights(homomorph: Callable[..., Any], tmp_path: Path, manifest: str, said: str) -> None:
    repository = repository_of(tmp_path, "1/model.pt")
    (repository / "manifest.json").write_text(manifest)
    outcome = homomorph("serve", "--repository", repository)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert said in outcome.err


def test_unknown_flavour(homomorph: Callable[..., Any]) -> None:
    outcome = homomorph("serve", "--flavour", "tensorrt")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "--flavour" in outcome.err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--cores", 0, "--cores"),
        ("--cores", 10_000, "which is what there is here, not 10000"),
        ("--gpus", "first", "gpus must be numbers with commas between, such as 0,1, or none, not 'first'"),
        ("--gpus", "99", "there is no GPU 99: torch finds"),
    ],
)
def test_what_the_machine_has_not(homomorph: Callable[..., Any], option: str, value: object, said: str) -> None:
    outcome = homomorph("serve", option, value)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert said in outcome.err
