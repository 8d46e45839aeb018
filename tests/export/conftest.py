"""A small run with random weights, the repository exported from it, and what runs its backend without a server."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as schema

from homomorph.models.config import CompactConfig, ModelConfig
from homomorph.models.label_features import LabelFeatures
from homomorph.models.morph import MorphModel
from homomorph.runs.label_features import save_label_features
from homomorph.runs.run import load_model, save_model
from homomorph_export.exporter import export_run
from homomorph_export.manifest import Manifest

CONFIG = ModelConfig(
    groups={"hair": ("red", "blue"), "glasses": ("glasses",)},
    picture_size=32,
    network=CompactConfig(
        feature_channels=16, widths=(8, 12, 16), encoder_blocks=(0, 1, 1), decoder_blocks=(0, 1, 1), branch_width=8
    ),
)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = MorphModel(CONFIG)
    for parameter in model.parameters():
        # What starts at zero would hide what an export gets wrong.
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("run")
    save_model(folder, model)
    fitted = LabelFeatures(CONFIG)
    for values in fitted.buffers():
        torch.nn.init.normal_(values)
    save_label_features(folder, fitted)
    return folder


@pytest.fixture(scope="session")
def model(run: Path) -> MorphModel:
    return load_model(run)


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The exported repository, which tests must not change, and what the export returned."""
    repository = tmp_path_factory.mktemp("export") / "repository"
    return repository, export_run(run, repository)


@pytest.fixture(scope="session")
def repository(exported: tuple[Path, Manifest]) -> Path:
    return exported[0]


# What Triton brings into a model's process as `triton_python_backend_utils`.


class TritonError(Exception):
    INVALID_ARG, INTERNAL, UNAVAILABLE, CANCELLED = "invalid argument", "internal", "unavailable", "cancelled"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    def to_dlpack(self) -> Any:
        return torch.utils.dlpack.to_dlpack(torch.from_numpy(self.array))


class MetricFamily:
    COUNTER = "counter"
    counted: ClassVar[dict[str, dict[str, float]]] = {}
    """By the family's name and the first label's value."""

    def __init__(self, name: str, description: str, kind: str) -> None:
        self.counted[name] = {}
        self.name = name

    def Metric(self, labels: dict[str, str]) -> Any:
        label, *_ = labels.values()
        return SimpleNamespace(increment=lambda value: self.count(label, value))

    def count(self, label: str, value: float) -> None:
        self.counted[self.name][label] = self.counted[self.name].get(label, 0) + value


class InferenceResponse:
    def __init__(self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None) -> None:
        self.output_tensors, self.error = output_tensors, error


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch):
    """Return a function that starts one exported model's backend and returns its `execute`, module and instance."""
    server = ModuleType("triton_python_backend_utils")
    server.Tensor, server.TritonError, server.InferenceResponse = Tensor, TritonError, InferenceResponse
    server.MetricFamily, server.TRITONSERVER_RESPONSE_COMPLETE_FINAL = MetricFamily, 1
    server.get_input_tensor_by_name = lambda request, name: Tensor(name, request[name])
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", server)
    threads = torch.get_num_threads()
    started: list[Any] = []

    def start(repository: Path, name: str):
        folder = repository / name
        config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
        monkeypatch.syspath_prepend(folder / "1")  # as the server does
        settings = json_format.MessageToJson(config, preserving_proto_field_name=True)
        spec = importlib.util.spec_from_file_location("exported_backend", folder / "1" / "model.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        instance = module.TritonPythonModel()
        arguments = {
            "model_config": settings,
            "model_repository": str(folder),
            "model_version": "1",
            "model_name": name,
        }
        instance.initialize(arguments | {"model_instance_kind": "CPU", "model_instance_device_id": "0"})
        started.append(instance)
        return SimpleNamespace(execute=instance.execute, module=module, instance=instance)

    yield start
    for instance in started:
        instance.finalize()
    torch.set_num_threads(threads)
