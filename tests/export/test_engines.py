"""E and D in other runtimes than TorchScript: their frames, and the choice among them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from homomorph_client.errors import ServerError
from homomorph_client.version import install_hint
from homomorph_export import engines
from homomorph_export.flavours import ONNX, PYTHON
from homomorph_export.ops.build import build
from homomorph_export.precision import TOLERANCES
from homomorph_export.serving import engine_choice
from homomorph_export.serving.engine_choice import check_engine, measured_engines
from homomorph_export.serving.server import TritonServer

COMPARE = """
import sys, torch
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
engine, library, repository = sys.argv[1], sys.argv[2], Path(sys.argv[3])
sys.path.insert(0, str(repository / "morpher" / "1"))
import engines
torch.ops.load_library(library)
module = torch.jit.load(repository / "morpher" / "1" / "model.pt")
folders = {part: repository / part / "1" for part in ("encoder", "decoder")}
parts = engines.EngineParts(module, engine, folders, threads=2, precision="fp32")
SIZES = [(1, 32, 32, 9), (3, 8, 8, 2), (2, 64, 24, 5), (1, 40, 40, 1), (1, 136, 128, 1), (1, 32, 32, 9)]

@torch.inference_mode()
def frames(size, model, threads):
    torch.set_num_threads(threads)  # of the calling thread
    batch, height, width, count = size
    generator = torch.Generator().manual_seed(height)
    pictures = torch.randint(0, 256, (2 * batch, height, width, 3), generator=generator).to(torch.uint8)
    strengths = torch.rand(batch, count, 3, generator=generator)
    features = model.encode(pictures)
    return model.decode(model.interpolate(features[:batch], features[batch:], strengths))

with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(frames, SIZES, [parts] * len(SIZES), [1, 2] * len(SIZES)))
for size, those in zip(SIZES, found):
    expected = frames(size, module, 1)
    assert (those.dtype, those.shape) == (torch.uint8, expected.shape)
    difference = (those.double() - expected.double()).abs()
    print(float(difference.mean()), float(difference.max()))
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_gives_the_frames_of_torchscript(engine: str, repository: Path) -> None:
    """Of several sizes, for four threads at once. In a process without gRPC, beside which OpenVINO crashed."""
    if not find_spec(engine):  # not imported here
        pytest.skip(f"{engine} is not installed")
    words = [sys.executable, "-c", COMPARE, engine, str(build()), str(repository)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    differences = [tuple(map(float, line.split())) for line in ended.stdout.splitlines()]
    assert len(differences) == 6
    assert all(TOLERANCES["fp32"].allows(*difference) for difference in differences), differences


def test_two_calls_that_need_another_number_of_threads_load_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []

    def load_slowly(file: Path, *, threads: int) -> engines.Run:
        loaded.append(threads)
        time.sleep(0.2)
        return lambda: threads

    monkeypatch.setattr(engines, "load_onnxruntime", load_slowly)
    run = engines.load("onnxruntime", tmp_path / "model.onnx", threads=2, precision="fp32")
    both = threading.Barrier(2)

    def call() -> int:
        torch.set_num_threads(2)  # of this thread
        both.wait()
        return int(run())

    with ThreadPoolExecutor(2) as pool:
        assert [call.result() for call in [pool.submit(call), pool.submit(call)]] == [2, 2]
    assert loaded == [1, 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"flavour": ONNX}, "for the flavour python, not for onnx"),
        ({"gpus": (0,)}, "computes on the CPU: leave out --engine, or give --gpus none"),
        ({"models": ("edit", "translate")}, "is for the model morph, which is not served"),
    ],
)
@pytest.mark.parametrize("engine", ["auto", "onnxruntime"])
def test_an_engine_that_would_compute_nothing_is_refused(
    repository: Path, engine: str, change: dict[str, Any], said: str
) -> None:
    settings: dict[str, Any] = {"models": ("morph",), "flavour": PYTHON, "gpus": ()}
    check_engine(engine, repository, **settings)
    check_engine("torchscript", repository, **settings | change)
    with pytest.raises(ServerError, match=said):
        check_engine(engine, repository, **settings | change)


def test_a_missing_engine_is_one_line(homomorph: Any, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "find_spec", lambda package: None)
    outcome = homomorph("serve", "--repository", repository, "--gpus", "none", "--engine", "openvino")
    said = f"homomorph: for engine openvino, {install_hint('openvino')}: openvino is not installed\n"
    assert (outcome.code, outcome.err) == (2, said)


@pytest.fixture
def kept(repository: Path):
    """The file of the measurements, which does not exist before and after a test."""
    path = repository.with_name(f"{repository.name}.engines.json")
    yield path
    path.unlink(missing_ok=True)


def test_engines_are_measured_once(repository: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[str] = []
    times_ms = measured_engines(repository, cores=2, report=lambda progress: stages.append(progress.stage))
    assert {"torchscript", "onnxruntime"} <= times_ms.keys() <= {"torchscript", "onnxruntime", "openvino"}
    assert all(0 < time_ms < 60_000 for time_ms in times_ms.values())
    measured: list[Any] = []
    monkeypatch.setattr(engine_choice, "_measure", lambda *words: measured.append(words) or {"torchscript": 1.0})
    assert measured_engines(repository, cores=2) == times_ms
    assert (len(stages), len(measured)) == (1, 0), "the answer was kept"
    for change in (
        lambda: None,
        lambda: kept.write_text(kept.read_text().replace('"manifest": "', '"manifest": "0')),
        lambda: kept.write_text(kept.read_text()[:-9]),
        lambda: kept.write_text("[]"),
    ):
        change()
        assert measured_engines(repository, cores=3) == {"torchscript": 1.0}
    assert len(measured) == 4, "another number of cores, another export, and two damaged files"


def test_engines_that_fail_or_give_other_frames_are_not_used(
    repository: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer = '{"torchscript": {"ms": 3, "mean": 0, "max": 0}, "onnxruntime": {"ms": 2, "mean": 0.1, "max": 9}}'
    ended = subprocess.CompletedProcess([], 0, f"{answer}\n", "openvino: unsupported")
    monkeypatch.setattr(subprocess, "run", lambda *words, **settings: ended)
    monkeypatch.setattr(engine_choice, "find_spec", lambda package: package)
    monkeypatch.setattr(engine_choice, "version", lambda package: "1")
    assert measured_engines(repository, cores=2) == {"torchscript": 3}
    assert [record.args for record in caplog.records] == [("onnxruntime",), ("openvino",)]
    kept.unlink()
    ended.returncode, ended.stderr = -11, ""
    with pytest.raises(
        ServerError, match=r"the engines cannot be measured \(exit code -11\): choose one with --engine"
    ):
        measured_engines(repository, cores=2)


def test_a_measurement_that_hangs_leaves_torchscript(
    repository: Path,
    kept: Path,
    hanging_program: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "executable", str(hanging_program))
    monkeypatch.setattr(engine_choice, "_MEASURING_TIMEOUT_S", 0.5)
    server = TritonServer(repository, engine="auto")
    server.choose_engine()
    assert (server.engine, server.engine_ms) == ("torchscript", {})
    assert caplog.messages == ["the engines could not be measured within 0.5 s: TorchScript computes"]
    assert not kept.exists()


def test_a_damaged_model_is_named_as_the_reason(repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "triton_repo"
    shutil.copytree(repository, copy)
    (copy / "decoder" / "1" / "model.pt").write_bytes(b"damaged")
    with pytest.raises(ServerError, match=r"the engines cannot be measured \(RuntimeError: .*: choose one with"):
        measured_engines(copy, cores=2)
    assert not copy.with_name("triton_repo.engines.json").exists()
