"""CycleGANs as a Triton repository: what is written, what it computes, and what shares the folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from google.protobuf import text_format
from torch import Tensor
from tritonclient.grpc import model_config_pb2 as schema

from homomorph.errors import CheckpointError, ConfigError
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.models.translator import Translator
from homomorph.runs.cyclegan import load_translator
from homomorph.runs.run import save_model
from homomorph_client import DirectionError
from homomorph_client.translation import ServedTranslation, chosen_steps
from homomorph_export import contract, engines, torchscript
from homomorph_export.catalogue import translation_models
from homomorph_export.contract import Axis, Model
from homomorph_export.errors import ExportError
from homomorph_export.exporter import export_cyclegans, export_run
from homomorph_export.flavours import LIBTORCH, ONNX, OPENVINO, PYTHON, Flavour
from homomorph_export.manifest import Manifest
from homomorph_export.servable import GeneratorServable, TranslateServable

Exported = Mapping[str, Callable[..., Any]]

MODELS = {model.name: model for model in translation_models({"smiling": 4, "not_smiling": 4, "blond": 64}, 64)}
LOADERS = {"torchscript": (torchscript.load_torchscript, "model.pt"), "onnx": (engines.load_onnxruntime, "model.onnx")}


@pytest.fixture(scope="module")
def written(cyclegan_runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """A repository of both runs, which tests must not change, and what the export returned."""
    repository = tmp_path_factory.mktemp("cyclegans") / "repository"
    return repository, export_cyclegans(cyclegan_runs, repository, threads=1)


@pytest.fixture(scope="module")
def translator(cyclegan_runs: tuple[Path, Path]) -> Translator:
    return load_translator(cyclegan_runs)


@pytest.fixture(params=LOADERS)
def runners(request: pytest.FixtureRequest, written: tuple[Path, Manifest]) -> Exported:
    """What runs the files of one format."""
    load, file = LOADERS[request.param]
    return {name: load(written[0] / name / "1" / file) for name in MODELS}


def pictures(count: int, height: int = 64, width: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator).to(torch.uint8)


def largest_difference(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape
    return int((a.int() - b.int()).abs().max())


def test_the_manifest_says_what_was_written(written: tuple[Path, Manifest]):
    repository, returned = written
    files = {str(path.relative_to(repository)): path for path in repository.rglob("*") if path.is_file()}
    manifest = json.loads(files.pop("manifest.json").read_text())
    assert manifest["files"] == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert manifest["method"] == "cyclegan"
    assert manifest["directions"] == ["smiling", "not_smiling", "blond"]
    assert (manifest["picture_size"], manifest["stride"], manifest["precision"]) == (64, 64, "fp32")
    assert manifest["models"] == list(MODELS)
    assert manifest["others"] == []
    assert set(manifest["parity"]) == {"torchscript", "onnx"}
    for file_format, measured in manifest["parity"].items():
        assert measured["mean"] == returned.parity[file_format].mean <= 0.02
        assert measured["max"] <= 1
        assert measured["batch_sizes"] == [1, 3]
        assert measured["picture_sizes"] == [[64, 64], [128, 64]]
    assert {path.name for path in repository.iterdir() if path.is_dir()} == set(MODELS)
    assert set(MODELS) == {"translate_smiling", "translate_not_smiling", "translate_blond", "translate"}


@pytest.mark.parametrize("flavour", [PYTHON, LIBTORCH, ONNX, OPENVINO], ids=lambda flavour: flavour.name)
@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_configuration_says_what_the_contract_says(written: tuple[Path, Manifest], model: Model, flavour: Flavour):
    folder = written[0] / model.name
    config = text_format.Parse((folder / flavour.config_file).read_text(), schema.ModelConfig())
    for found, tensors in ((config.input, model.inputs), (config.output, model.outputs)):
        assert [(tensor.name, tensor.data_type, tuple(tensor.dims)) for tensor in found] == [
            (tensor.name, schema.DataType.Value(f"TYPE_{tensor.type}"), tensor.wire_shape) for tensor in tensors
        ]
    assert config.max_batch_size == flavour.max_batch_size
    assert config.HasField("dynamic_batching")
    assert config.parameters[flavour.threads_parameter].string_value == "1"
    (warmup,) = config.model_warmup
    for name, value in warmup.inputs.items():
        itemsize = {schema.TYPE_UINT8: 1, schema.TYPE_INT64: 8}[value.data_type]
        assert (folder / "warmup" / name).stat().st_size == torch.Size(value.dims).numel() * itemsize
    if model.name == "translate":
        settings = {
            "name": model.name,
            "parameters": {k: {"string_value": v.string_value} for k, v in config.parameters.items()},
        }
        served = ServedTranslation.from_config(settings)
        assert served == ServedTranslation("translate", ("smiling", "not_smiling", "blond"), 64, contract.MAX_CHAIN)


@pytest.mark.parametrize("name", MODELS)
def test_torchscript_and_onnx_take_the_contracts_tensors(written: tuple[Path, Manifest], name: str):
    folder = written[0] / name / "1"
    inputs = [tensor.name for tensor in MODELS[name].inputs]
    arguments = torchscript.load_torchscript(folder / "model.pt").forward.schema.arguments[1:]  # without self
    assert [argument.name for argument in arguments] == inputs
    model = onnx.load(folder / "model.onnx")
    assert [tensor.name for tensor in model.graph.input] == inputs
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    for values, tensors in ((model.graph.input, MODELS[name].inputs), (model.graph.output, MODELS[name].outputs)):
        for value, tensor in zip(values, tensors, strict=True):
            dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            assert dims == ["B", *(dim.letter if isinstance(dim, Axis) else dim for dim in tensor.dims)]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 40), (128, 64)])
def test_sizes_are_free(runners: Exported, translator: Translator, height: int, width: int):
    for direction, stride in translator.strides.items():
        if height % stride == 0 and width % stride == 0:
            given = pictures(2, height, width)
            found = runners[f"translate_{direction}"](given)
            assert largest_difference(found, translator.changed(direction, given)) <= 1


def test_a_batch_changes_no_picture(runners: Exported, translator: Translator):
    given = pictures(3)
    for direction in translator.directions:
        run = runners[f"translate_{direction}"]
        together = run(given)
        assert largest_difference(together[0], together[1]) > 50
        for row in range(3):
            assert largest_difference(together[row : row + 1], run(given[row : row + 1])) <= 1


def test_a_chain_is_its_steps_one_after_the_other(runners: Exported, translator: Translator):
    steps = torch.tensor([[2, 0, 0, 1], [0, 1, 2, 1], [2, 2, 1, 0]])
    given = pictures(3)
    frames = runners["translate"](given, steps)
    assert frames.shape == (3, 4, 64, 64, 3)
    for row in range(3):
        alone = runners["translate"](given[row : row + 1], steps[row : row + 1])
        before = given[row : row + 1]
        for place, number in enumerate(steps[row].tolist()):
            expected = translator.changed(translator.directions[number], before)
            assert largest_difference(frames[row : row + 1, place], expected) <= 1
            assert largest_difference(expected, before) > 50
            before = frames[row : row + 1, place]
        # What rounds the other way in one step may grow in the next.
        assert (alone.int() - frames[row : row + 1].int()).abs().float().mean() < 0.02


def test_a_direction_runs_once_a_step_and_only_if_it_is_asked_for(
    cyclegan_runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    batches: list[tuple[str, int]] = []

    class Direction(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, picture: Tensor) -> Tensor:
            batches.append((self.name, len(picture)))
            return picture + 1

    servable = TranslateServable([Direction("a"), Direction("b"), Direction("c")])  # type: ignore[list-item]
    frames = servable(torch.zeros(3, 8, 8, 3, dtype=torch.uint8), torch.tensor([[0, 2], [0, 0], [2, 2]]))
    assert batches == [("a", 2), ("c", 1), ("a", 1), ("c", 2)]
    assert frames[:, :, 0, 0, 0].tolist() == [[1, 2]] * 3


@pytest.mark.parametrize(("precision", "of_onnx"), [("bf16", "fp32"), ("fp16", "fp16")])
def test_16_bit_numbers(
    cyclegan_runs: tuple[Path, Path], written: tuple[Path, Manifest], tmp_path: Path, precision: str, of_onnx: str
):
    manifest = export_cyclegans(cyclegan_runs[:1], tmp_path / "repository", precision=precision)
    assert {name: parity.precision for name, parity in manifest.parity.items()} == {
        "torchscript": precision,
        "onnx": of_onnx,
    }
    assert 0 < manifest.parity["torchscript"].mean <= 0.5
    file = Path("translate_smiling", "1", "model.pt")
    assert (tmp_path / "repository" / file).stat().st_size < (written[0] / file).stat().st_size


def test_both_methods_share_a_repository(
    run: Path, repository: Path, written: tuple[Path, Manifest], cyclegan_runs: tuple[Path, Path], tmp_path: Path
):
    target = tmp_path / "repository"
    shutil.copytree(repository, target)
    export_cyclegans(cyclegan_runs[:1], target, onnx=False)
    morphing = json.loads((repository / "manifest.json").read_text())
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["directions"] == ["smiling", "not_smiling"]
    assert [manifest["others"][0] | {"others": []}] == [morphing]
    # Each method's next export replaces its own models alone.
    export_cyclegans(cyclegan_runs[1:], target, onnx=False)
    folders = {path.name for path in target.iterdir() if path.is_dir()}
    assert folders == {*morphing["models"], "translate", "translate_blond"}
    export_run(run, target, onnx=False)
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["groups"] == ["hair", "glasses", "residual"]
    assert manifest["others"][0]["directions"] == ["blond"]
    assert {path.name for path in target.iterdir() if path.is_dir()} == folders
    files = {**manifest["files"], **manifest["others"][0]["files"]}
    assert {name: hashlib.sha256((target / name).read_bytes()).hexdigest() for name in files} == files


def test_a_wrong_export_writes_nothing(
    cyclegan_runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    right = GeneratorServable.forward
    monkeypatch.setattr(GeneratorServable, "forward", lambda self, IMAGE: right(self, IMAGE // 2))
    with pytest.raises(ExportError, match=r"TorchScript files .* grey levels off on average"):
        export_cyclegans(cyclegan_runs[1:], tmp_path / "repository", onnx=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("spoiled", ["translate_blond", "translate"])
def test_every_onnx_file_is_compared(
    cyclegan_runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: str
):
    right = engines.load_onnxruntime

    def load(path: Path) -> Callable[..., Any]:
        session = right(path)
        return (lambda *tensors: session(*tensors) ^ 8) if path.parents[1].name == spoiled else session

    monkeypatch.setattr(engines, "load_onnxruntime", load)
    with pytest.raises(ExportError, match=r"ONNX files .* grey levels off on average"):
        export_cyclegans(cyclegan_runs[1:], tmp_path / "repository")
    assert not list(tmp_path.iterdir())


def test_runs_that_cannot_be_together(cyclegan_runs: tuple[Path, Path], run: Path, tmp_path: Path):
    save_model(tmp_path / "large", CycleGAN(CycleGANConfig(("old",), "resnet_6blocks", 2, 128)))
    for runs, error, message in (
        ((cyclegan_runs[0], cyclegan_runs[0]), ConfigError, "two runs have the direction 'smiling'"),
        ((cyclegan_runs[0], tmp_path / "large"), ConfigError, "trained at different sizes .* 64, 128 pixels"),
        ((run,), CheckpointError, "is no CycleGAN's run"),
    ):
        with pytest.raises(error, match=message):
            export_cyclegans(runs, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_the_command_says_what_it_wrote(
    homomorph: Callable[..., Any], cyclegan_runs: tuple[Path, Path], tmp_path: Path
):
    outcome = homomorph("export", *cyclegan_runs, "--repository", tmp_path / "repository", "--no-onnx")
    assert outcome.code == 0, outcome.err
    assert f"{tmp_path / 'repository'}: 4 models" in outcome.out
    assert "directions: smiling, not_smiling, blond" in outcome.out
    assert "torchscript (fp32): parity with the run" in outcome.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "int8"], "precision 'int8' is not offered for CycleGANs: choose fp32, bf16, fp16"),
        (["--aot"], "--aot is not offered for CycleGANs"),
        (["--calibration", "."], "--calibration is not offered for CycleGANs"),
        (["avatars64"], "avatars64 is not a CycleGAN's run: export it by a command of its own"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals_are_one_line(
    homomorph: Callable[..., Any], cyclegan_runs: tuple[Path, Path], tmp_path: Path, words: list[str], message: str
):
    outcome = homomorph("export", cyclegan_runs[0], *words, "--repository", tmp_path / "repository")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err
    assert not (tmp_path / "repository").exists()


def test_steps_are_the_numbers_of_directions():
    model = ServedTranslation("translate", ("smiling", "not_smiling", "blond"), 64, max_steps=32)
    assert chosen_steps(model, ["blond", "smiling", "blond"]).tolist() == [2, 0, 2]
    assert chosen_steps(model, "not_smiling").tolist() == [1]
    for steps, message in (
        (["old"], "there is no direction 'old': the model has smiling, not_smiling, blond"),
        ([], "from 1 to 32 directions, not 0"),
        (["blond"] * 33, "from 1 to 32 directions, not 33"),
        (["blond", ""], "there is no direction ''"),
    ):
        with pytest.raises(DirectionError, match=message):
            chosen_steps(model, steps)
