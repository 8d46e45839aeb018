"""`homomorph bench model`: every way computes the same, and what is written says what was measured."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from homomorph.models.config import CompactConfig, ModelConfig, PublishedConfig
from homomorph.models.morph import MorphModel
from homomorph.runs.import_homointerpgan import CELEBA_GROUPS
from homomorph.training.settings import MorphPreset, preset_names, read_preset
from homomorph_bench import branches, model, model_picture, runtime_processes, runtimes
from homomorph_export.contract import Model
from homomorph_export.ops import interpolate
from homomorph_export.parts import exported_parts

TINY = CompactConfig(
    feature_channels=16, widths=(8, 12, 16), encoder_blocks=(0, 0, 1), decoder_blocks=(0, 0, 1), branch_width=8
)
TINY_MODEL = ModelConfig(CELEBA_GROUPS, 32, TINY)


@pytest.fixture(scope="module", autouse=True)
def short_turns() -> Iterator[None]:
    """What a turn takes does not matter here, so it is a single call without a pause."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_TURN_MS", 0.0)
        patch.setattr(model, "_MATMUL_SIZE", 128)
        patch.setattr(runtime_processes, "_PAUSE_S", 0.0)
        yield


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in this process what a runtime's process computes: each of those imports torch anew."""

    @contextmanager
    def start_here(runtime: str, setup: runtime_processes.Setup) -> Iterator[Sequence[runtime_processes.RemoteModel]]:
        with torch.inference_mode(False):
            runtime_processes._start_worker(runtime, setup)
        call = runtime_processes._call_worker
        yield [runtime_processes.RemoteModel(*described, call) for described in call("describe")]

    monkeypatch.setattr(model, "start_runtime", start_here)


@pytest.fixture(scope="module")
def measured() -> model.ModelMeasurements:
    return model.run(
        TINY_MODEL,
        frames=3,
        runtimes=("torchscript", "onnxruntime"),
        repeats=10,
        threads=1,
    )


def test_every_way_is_compared_with_the_published_one(measured: model.ModelMeasurements) -> None:
    names = {record.name for record in measured.records if record.baseline.startswith(model.BASELINE)}
    ways = ["onnxruntime fp32", "onnxruntime int8", *(f"torchscript {precision}" for precision in runtimes.formats())]
    assert names == {f"{name}, 3 frames of 32x32" for name in (model.BASELINE, *ways)}
    baseline = next(record for record in measured.records if record.name.startswith(model.BASELINE))
    assert baseline.ratio == 1
    for record in measured.records:
        assert record.value > 0
        assert record.meta["threads"] == 1


def test_openvino_computes_the_same() -> None:
    """In a process of its own: with OpenVINO and gRPC loaded, Python crashes later on."""
    code = f"""
from homomorph.models.config import CompactConfig, ModelConfig
from homomorph_bench import model, runtime_processes
measured = model.run({TINY_MODEL!r}, frames=3, runtimes=("openvino",), repeats=10, threads=1)
compared = [record for record in measured.records if record.baseline.startswith(model.BASELINE)]
print(*(record.name.partition(",")[0] for record in compared), sep=";")
assert not any(record.baseline == runtime_processes.ALL_BRANCHES for record in measured.records)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr
    ways = {"openvino int8", *(f"openvino {precision}" for precision in runtimes.formats())}
    names = set(result.stdout.strip().split(";"))
    assert names == {model.BASELINE, *ways}, "one frame is not among them: it compiles for the length of the sequence"


def test_one_branch_is_compared_with_all(measured: model.ModelMeasurements) -> None:
    names = [record.name for record in measured.records if record.baseline.startswith(runtime_processes.ALL_BRANCHES)]
    assert len(names) == 2 * len(measured.parts)
    assert f"{runtime_processes.ONE_BRANCH}, onnxruntime fp32" in names


def test_branches_at_once_are_compared_with_one_by_one(measured: model.ModelMeasurements) -> None:
    names = {record.name for record in measured.records if record.baseline.startswith(branches.ONE_BY_ONE)}
    ways = (branches.ONE_BY_ONE, branches.AT_ONCE, branches.FOLDED)
    cases = itertools.product(ways, runtimes.formats(), (1, 3))
    assert names == {f"{way}, torchscript {precision}, {frames} frames" for way, precision, frames in cases}


@pytest.mark.parametrize(
    "network",
    [TINY, dataclasses.replace(TINY, branch_context=True), PublishedConfig(feature_channels=16, widths=(4, 4, 8, 8))],
)
def test_branches_at_once_compute_the_same(network: CompactConfig | PublishedConfig) -> None:
    """Those of the published family have biases and activations."""
    torch.manual_seed(0)
    morph = MorphModel(ModelConfig(CELEBA_GROUPS, 32, network)).eval().requires_grad_(False)
    for parameter in morph.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    interpolate.load_operator()
    parts = exported_parts(morph, None, torch.float32)
    features = torch.randn(4, network.feature_channels, 4, 4)
    strengths = torch.rand(2, 3, 6)
    with torch.inference_mode():
        timings = branches.time_branches(parts, torch.float32, features[:2], features[2:], strengths, repeats=10)
        assert set(timings) == {branches.ONE_BY_ONE, branches.AT_ONCE, branches.FOLDED}


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("preset", [name for name in preset_names() if "cyclegan" not in name])
def test_each_preset_can_be_measured(preset: str) -> None:
    """With the preset's own structure, its layers as narrow as they may be."""
    settings = read_preset(preset)
    assert isinstance(settings, MorphPreset)
    network = settings.network
    if isinstance(network, PublishedConfig):
        network = dataclasses.replace(network, feature_channels=32, widths=(16, 16, 16, 16))
    else:
        network = dataclasses.replace(network, feature_channels=16, widths=(8, 12, 16), branch_width=8)
    size = 4 * network.stride
    config = ModelConfig(CELEBA_GROUPS, size, network)
    measured = model.run(config, frames=2, runtimes=("torchscript",), repeats=10, threads=1)
    names = {record.name for record in measured.records}
    assert {f"torchscript fp32, 2 frames of {size}x{size}", f"{branches.AT_ONCE}, torchscript fp32, 2 frames"} <= names


def test_packages_are_kept_for_a_later_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def compile_package(module: torch.nn.Module, entry: Model, path: Path) -> None:
        compiled.append(entry.name)
        path.write_bytes(b"")

    monkeypatch.setattr(runtimes.aotinductor, "compile_package", compile_package)
    monkeypatch.setattr(runtimes.aotinductor, "load_package", lambda path: path)
    morph = MorphModel(ModelConfig(CELEBA_GROUPS, 32, TINY)).eval().requires_grad_(False)
    pictures = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    for _ in range(2):
        found = runtimes.runtime_models(
            "aotinductor",
            morph,
            tmp_path,
            packages=tmp_path / "packages",
            pictures=pictures,
            example=(pictures[:1], pictures[1:], torch.ones(1, 3, 6)),
        )
        assert [way.precision for way in found] == list(runtimes.formats())
    assert compiled == list(runtimes.MODELS) * len(runtimes.formats())


def test_rates_are_compared_with_a_product_of_matrices(measured: model.ModelMeasurements) -> None:
    rates = {record.name: record for record in measured.records if record.baseline == "matmul fp32"}
    assert rates["matmul fp32"].ratio == 1
    decoder = rates["D, torchscript fp32"]
    seconds = measured.parts["torchscript fp32"]["D"].median_ms / 1e3
    assert decoder.value == pytest.approx(measured.gmac["D"] / seconds)
    assert decoder.spread == measured.parts["torchscript fp32"]["D"].spread
    assert decoder.ratio == pytest.approx(decoder.value / rates["matmul fp32"].value)


@pytest.mark.usefixtures("one_process")
def test_frames_without_contrast_are_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.init, "kaiming_normal_", lambda weight: weight.zero_())
    with pytest.raises(AssertionError, match=r"contrast is \d\.\d grey levels"):
        model.run(TINY_MODEL, frames=3, runtimes=("torchscript",), repeats=10, threads=1)


def test_multiplications_are_counted(measured: model.ModelMeasurements) -> None:
    # By hand: E's convolutions at 16, 8 and 4 pixels a side for both pictures; T_i: 6 branches of 3x3, 16 -> 8 -> 16.
    encoder = 12 * 8 * 9 * 16**2 + 8 * 12 * 9 * 8**2 + 12 * 16 * 9 * 4**2
    encoder += (2 * 16 * 16 * 9 + 16 * 16) * 4**2 - 16 * 16 * (4**2 - 1)  # the block, its context seen once a picture
    encoder += 16 * 16 * 4**2
    assert measured.gmac["E"] == pytest.approx(2 * encoder / 1e9)
    branches = 6 * 2 * 16 * 8 * 9 * 4**2 + 16 * 4**2 * 3 * 6
    assert measured.gmac["T"] == pytest.approx(branches / 1e9)
    assert measured.gmac["D"] > 0
    assert set(measured.matmul) == set(runtimes.formats())


def test_the_picture_is_drawn(measured: model.ModelMeasurements, tmp_path: Path) -> None:
    path = model_picture.draw(measured, tmp_path)
    assert path.stat().st_size > 10_000


@pytest.mark.usefixtures("one_process")
def test_a_way_that_computes_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.randint(0, 256, (1, 3, 32, 32, 3), dtype=torch.uint8)
    monkeypatch.setattr(model, "compute_published_way", lambda *_: noise)
    with pytest.raises(AssertionError, match=r"torchscript fp32 is \d+\.\d+ grey levels off"):
        model.run(TINY_MODEL, frames=3, runtimes=("torchscript",), repeats=10, threads=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--preset", "huge"], "there is no preset 'huge'"),
        (["--runtime", "tensorrt"], "'tensorrt' is not one of 'torchscript'"),
        (["--device", "cuda"], "--device cuda: torch finds no CUDA device"),
        (["--picture-size", "100"], "--picture-size must be a multiple of 16 for published, not 100"),
    ],
)
def test_mistakes_are_one_line(
    homomorph: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    outcome = homomorph("bench", "model", "--out", tmp_path / "out", *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["kernel", "model", "train", "serving"])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_measured(
    homomorph: Callable[..., Any], tmp_path: Path, command: str
) -> None:
    (tmp_path / "file").write_text("")
    outcome = homomorph("bench", command, "--out", tmp_path / "file" / "out")
    assert outcome.code == 2
    assert f"{tmp_path / 'file'} is not a folder" in outcome.err
    assert outcome.err.count("\n") == 1


def test_the_command_writes_what_it_measured(
    homomorph: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: model.ModelMeasurements
) -> None:
    monkeypatch.setattr(model, "run", lambda *_, **__: measured)
    outcome = homomorph("bench", "model", "--out", tmp_path)
    assert outcome.code == 0
    assert len(json.loads((tmp_path / "results.json").read_text())) == len(measured.records)
    assert (tmp_path / "model.png").is_file()
    assert "matmul fp32" in outcome.out
