"""Every written configuration, read by Triton's own schema, against the contract and the files that it serves."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from homomorph.models.config import CompactConfig, ModelConfig
from homomorph.models.morph import MAX_STRENGTH, MorphModel
from homomorph_client.names import BLENDS
from homomorph_client.served_model import ServedModel, to_json
from homomorph_export import torchscript
from homomorph_export.catalogue import morph_models
from homomorph_export.configuration import config_text, flavours, model_config, read_config, streamed_steps
from homomorph_export.contract import (
    MAX_PICTURE_SIZE,
    MAX_PIXELS,
    MAX_QUEUE,
    MAX_STEPS,
    QUEUE_TIMEOUT_S,
    Axis,
    Model,
    Tensor,
)
from homomorph_export.flavours import AOTI, LIBTORCH, ONNX, OPENVINO, PYTHON, TENSORRT, Flavour
from homomorph_export.ops.interpolate import load_operator

TORCH_TYPES = {"UINT8": torch.uint8, "FP32": torch.float32}
SHAPES = [
    (1, {"S": 2, "H": 32, "W": 32, "h": 4, "w": 4, "P": 2}),
    (3, {"S": 1, "H": 16, "W": 40, "h": 2, "w": 5, "P": 4}),
]
"""Batch sizes, and the lengths of the axes that requests choose."""
CONFIG = ModelConfig(
    groups={"hair": ("red", "blue"), "glasses": ("glasses",)},
    picture_size=32,
    network=CompactConfig(feature_channels=16),
)
"""As `conftest.py` has it, where the contract looks."""
MODELS = {model.name: model for model in morph_models(CONFIG, labels=True)}


MEMBERS = [model.name for model in MODELS.values() if not model.steps]
WITH_NAMES = (PYTHON, LIBTORCH, ONNX, OPENVINO)
"""Flavours whose backends know tensors by the contract's names."""
IN_ONNX = [name for name in MEMBERS if not MODELS[name].joint]
ENSEMBLES = [model for model in MODELS.values() if model.is_ensemble]


def read(repository: Path, name: str, flavour: Flavour = PYTHON) -> schema.ModelConfig:
    return read_config(repository / name / flavour.config_file)


def taken(repository: Path, name: str, flavour: Flavour) -> schema.ModelConfig:
    """Triton takes the default where a model has no configuration of the name that it was started with."""
    return read(repository, name, flavour if (repository / name / flavour.config_file).exists() else PYTHON)


def test_the_models_are_the_promised_ones():
    assert set(MODELS) == {
        "encoder",
        "encoder_pair",
        "difference",
        "branch_hair",
        "branch_glasses",
        "branch_residual",
        "interpolate",
        "interpolator",
        "decoder",
        "morpher",
        "morph",
        "morph_stream",
        "morph_branches",
        "label_target",
        "edit",
        "pixel",
        "encoder_corners",
        "mix_latent",
        "mix_slerp",
        "latent",
        "slerp",
    }
    without_labels = {model.name for model in morph_models(CONFIG, labels=False)}
    assert set(MODELS) - without_labels == {"label_target", "edit"}


def test_a_folder_for_each_model(repository: Path):
    assert {path.name for path in repository.iterdir() if path.is_dir()} == set(MODELS)


def tensor_lengths(tensor: Tensor, lengths: dict[str, int]) -> list[int]:
    return [lengths[dim.letter] if isinstance(dim, Axis) else dim for dim in tensor.dims]


def tensors_of(config: schema.ModelConfig) -> list[list[tuple[str, int, tuple[int, ...]]]]:
    return [[(t.name, t.data_type, tuple(t.dims)) for t in tensors] for tensors in (config.input, config.output)]


@pytest.mark.parametrize("flavour", WITH_NAMES, ids=lambda flavour: flavour.name)
@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_configuration_says_what_the_contract_says(repository: Path, model: Model, flavour: Flavour):
    config = taken(repository, model.name, flavour)
    assert config.name == model.name
    assert config.max_batch_size == (PYTHON if model.joint else flavour).max_batch_size
    assert tensors_of(config) == [
        [(tensor.name, schema.DataType.Value(f"TYPE_{tensor.type}"), tensor.wire_shape) for tensor in tensors]
        for tensors in (model.inputs, model.outputs)
    ]
    assert config.model_transaction_policy.decoupled == model.streams
    assert config.response_cache.enable == model.cached
    if model.is_ensemble:
        assert (config.platform, config.backend) == ("ensemble", "")
        written = {path.stem for path in (repository / model.name / "configs").glob("*")}
        assert written == {"openvino"} | ({"libtorch", "onnx", "tensorrt"} if model.python_steps else set())
        steps = model.python_steps if model.python_steps and flavour is PYTHON else model.steps
        assert [step.model_name for step in config.ensemble_scheduling.step] == [step.model for step in steps]
    elif model.joint:
        if flavour is PYTHON:
            assert config.parameters["max_queue_size"].string_value == str(MAX_QUEUE)
            assert config.parameters["queue_timeout_s"].string_value == str(QUEUE_TIMEOUT_S)
        assert config.dynamic_batching == schema.ModelDynamicBatching(), "what it is sent comes at once"
    else:
        queue = config.dynamic_batching.default_queue_policy
        assert (queue.max_queue_size, queue.timeout_action) == (MAX_QUEUE, schema.ModelQueuePolicy.REJECT)
        assert queue.default_timeout_microseconds == QUEUE_TIMEOUT_S * 10**6
        assert (config.dynamic_batching.priority_levels, config.dynamic_batching.default_priority_level) == (2, 2)
    if model.streams:
        assert config.backend == "python"
        assert (repository / model.name / "1" / PYTHON.model_file).is_file()
        steps = json.loads(config.parameters["steps"].string_value)
        assert [step["model"] for step in steps] == [step.model for step in model.steps]
    elif not model.is_ensemble and not (model.joint and flavour in (ONNX, OPENVINO)):
        expected = {
            "python": ("", "python"),
            "libtorch": ("pytorch_libtorch", ""),
            "onnx": ("onnxruntime_onnx", ""),
            "openvino": ("", "openvino"),
        }
        assert (config.platform, config.backend) == expected[flavour.name]


@pytest.mark.parametrize(
    ("name", "flavour"),
    [*((name, LIBTORCH) for name in MEMBERS), *((name, flavour) for flavour in (ONNX, OPENVINO) for name in IN_ONNX)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_backends_get_only_parameters_that_they_take(repository: Path, name: str, flavour: Flavour):
    config = read(repository, name, flavour)
    # In two models, INTER_OP_THREAD_COUNT ends the server. Backends ignore what clients and the request guard read.
    for_others = {"checks"} if name != "pixel" else {"checks", *read(repository, "slerp").parameters}
    assert set(config.parameters) - for_others == {flavour.threads_parameter}
    assert int(config.parameters[flavour.threads_parameter].string_value) >= 1
    instances = MODELS[name].instances
    assert [(group.count, group.kind) for group in config.instance_group] == [
        (instances, schema.ModelInstanceGroup.KIND_CPU)
    ]
    assert config.default_model_filename == flavour.model_file
    assert (repository / name / "1" / flavour.model_file).is_file()
    assert config.model_warmup == read(repository, name).model_warmup


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_aotinductor_is_named_by_place(model: Model):
    """The backend's names are the places in forward()'s arguments and results, and it takes batches of 1 only."""
    if AOTI not in flavours(model, onnx=True, aot=True):
        assert model.joint or model.name == "pixel", "what clients call by its tensors' names"
        return
    config = text_format.Parse(config_text(model_config(model, AOTI)), schema.ModelConfig())
    assert config.max_batch_size == 1
    if model.computation:
        assert (config.platform, config.default_model_filename) == ("torch_aoti", "model.pt2")
        assert [tensor.name for tensor in config.input] == [f"INPUT__{place}" for place in range(len(model.inputs))]
        assert [tensor.name for tensor in config.output] == [f"OUTPUT__{place}" for place in range(len(model.outputs))]
        assert [value.input_data_file for _, value in sorted(config.model_warmup[0].inputs.items())] == [
            tensor.name for tensor in model.inputs
        ]
    else:
        assert [tensor.name for tensor in config.input] == [tensor.name for tensor in model.inputs]
        steps = streamed_steps(config) if model.streams else config.ensemble_scheduling.step
        for written, step in zip(steps, model.steps, strict=True):
            inputs, outputs = (
                (written.inputs, written.outputs) if model.streams else (written.input_map, written.output_map)
            )
            member = MODELS[step.model]
            for place, tensor in enumerate(member.inputs):
                assert inputs[f"INPUT__{place}"] == step.inputs[tensor.name]
            for place, tensor in enumerate(member.outputs):
                assert outputs[f"OUTPUT__{place}"] == step.outputs[tensor.name]


@pytest.mark.parametrize("name", IN_ONNX)
def test_tensorrt_is_onnx_on_a_gpu(repository: Path, name: str):
    config, expected = read(repository, name, TENSORRT), read(repository, name, ONNX)
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    config.ClearField("optimization")
    expected.instance_group[0].kind = schema.ModelInstanceGroup.KIND_GPU
    assert config == expected


@pytest.mark.parametrize("name", MEMBERS)
def test_torchscript_takes_and_gives_what_its_configuration_says(repository: Path, name: str):
    load_operator()
    config = read(repository, name, LIBTORCH)
    module = torchscript.load_torchscript(repository / name / "1" / "model.pt")
    arguments = module.forward.schema.arguments[1:]  # without self
    # The backend matches inputs by the arguments' names, and outputs by their order.
    assert [argument.name for argument in arguments] == [tensor.name for tensor in config.input]
    assert {str(argument.type) for argument in arguments} == {"Tensor"}
    assert {str(value.type) for value in module.forward.schema.returns} <= {"Tensor", "Tuple[Tensor, Tensor]"}
    for batch, lengths in SHAPES:
        inputs = [
            torch.ones([batch, *tensor_lengths(tensor, lengths)]).to(TORCH_TYPES[tensor.type])
            for tensor in MODELS[name].inputs
        ]
        with torch.inference_mode():
            results = module(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        for result, written, tensor in zip(results, config.output, MODELS[name].outputs, strict=True):
            assert result.dtype == TORCH_TYPES[schema.DataType.Name(written.data_type).removeprefix("TYPE_")]
            assert result.shape == (batch, *tensor_lengths(tensor, lengths))


@pytest.mark.parametrize("name", IN_ONNX)
def test_onnx_takes_and_gives_what_its_configuration_says(repository: Path, name: str):
    config = read(repository, name, ONNX)
    graph = onnx.load(repository / name / "1" / "model.onnx").graph
    types = {onnx.TensorProto.UINT8: schema.TYPE_UINT8, onnx.TensorProto.FLOAT: schema.TYPE_FP32}
    for written, values in ((config.input, graph.input), (config.output, graph.output)):
        for tensor, value in zip(written, values, strict=True):
            found = value.type.tensor_type
            batch, *dims = (dim.dim_param or dim.dim_value for dim in found.shape.dim)
            assert (value.name, types[found.elem_type]) == (tensor.name, tensor.data_type)
            assert batch == "B", "the backend wants the batch axis to be free"
            assert [-1 if isinstance(dim, str) else dim for dim in dims] == list(tensor.dims)


OPENVINO_ANSWERS = """
import json
import sys
from pathlib import Path

import openvino
import torch

from homomorph_export import torchscript
from homomorph_export.ops.interpolate import load_operator

load_operator()
core = openvino.Core()
for served in json.load(sys.stdin):
    folder = Path(served["folder"])
    module = torchscript.load_torchscript(folder / "model.pt")
    # As the backend loads a model.
    steps = openvino.preprocess.PrePostProcessor(core.read_model(folder / served["file"]))
    for name in served["inputs"]:
        steps.input(name).tensor().set_layout(openvino.Layout("N..."))
    graph = steps.build()
    openvino.set_batch(graph, served["batch"])
    for name, dims in served["outputs"].items():
        # -1 is a size without an upper limit. The backend refuses others, and wrong sizes.
        assert [dim.get_max_length() for dim in graph.output(name).partial_shape] == [served["batch"], *dims], name
    run = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shapes, first_used in ((shapes, used) for shapes in served["shapes"] for used in (1, 0)):
        tensors = {
            name: torch.rand(shape) if type == "FP32" else torch.randint(0, 256, shape, dtype=torch.uint8)
            for (name, type), shape in zip(served["inputs"].items(), shapes)
        }
        if "STRENGTHS" in tensors:
            tensors["STRENGTHS"][..., 0] *= first_used  # `interpolator` skips a branch of strength 0
        with torch.inference_mode():
            expected = module(*tensors.values())
        answers = run({name: tensor.numpy() for name, tensor in tensors.items()})
        for name, tensor in zip(served["outputs"], expected if isinstance(expected, tuple) else [expected]):
            tolerance = 1 if tensor.dtype == torch.uint8 else 1e-5
            torch.testing.assert_close(torch.from_numpy(answers[name]), tensor, rtol=0, atol=tolerance)
"""


def test_openvino_answers_as_torchscript(repository: Path):
    """In a process without gRPC, beside which OpenVINO crashed."""
    if not find_spec("openvino"):  # not imported here
        pytest.skip("openvino is not installed")
    served = []
    for name in IN_ONNX:
        config, inputs = read(repository, name, OPENVINO), MODELS[name].inputs
        served.append(
            {
                "folder": str(repository / name / "1"),
                "file": config.default_model_filename,
                "batch": config.max_batch_size,
                "inputs": {tensor.name: tensor.type for tensor in inputs},
                "outputs": {tensor.name: list(tensor.dims) for tensor in config.output},
                "shapes": [
                    [[config.max_batch_size, *tensor_lengths(tensor, lengths)] for tensor in inputs]
                    for _, lengths in SHAPES
                ],
            }
        )
    words = [sys.executable, "-c", OPENVINO_ANSWERS]
    ended = subprocess.run(words, input=json.dumps(served), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("name", MEMBERS)
def test_warm_up_data_has_the_size_that_its_shape_needs(repository: Path, name: str):
    itemsize = {schema.TYPE_UINT8: 1, schema.TYPE_FP32: 4}
    (warmup,) = read(repository, name).model_warmup
    assert set(warmup.inputs) == {tensor.name for tensor in MODELS[name].inputs}
    for value in warmup.inputs.values():
        count = 1
        for dim in value.dims:
            count *= dim
        data = repository / name / "warmup" / value.input_data_file
        assert data.stat().st_size == count * itemsize[value.data_type]


@pytest.mark.parametrize("flavour", WITH_NAMES, ids=lambda flavour: flavour.name)
@pytest.mark.parametrize("model", ENSEMBLES, ids=lambda model: model.name)
def test_ensembles_connect_tensors_of_one_type_and_shape(repository: Path, model: Model, flavour: Flavour):
    tensors = {tensor.name: tensor for tensor in model.inputs}
    for step in taken(repository, model.name, flavour).ensemble_scheduling.step:
        member = MODELS[step.model_name]
        assert set(step.input_map) == {tensor.name for tensor in member.inputs}
        for tensor in member.inputs:
            fed = tensors[step.input_map[tensor.name]]  # a KeyError here: nothing before this step writes it
            assert (fed.type, fed.dims) == (tensor.type, tensor.dims)
        tensors |= {step.output_map[tensor.name]: tensor for tensor in member.outputs}
    for tensor in model.outputs:
        assert (tensors[tensor.name].type, tensors[tensor.name].dims) == (tensor.type, tensor.dims)


@pytest.mark.parametrize("model", ENSEMBLES, ids=lambda model: model.name)
def test_nothing_that_a_client_sends_reaches_two_steps_at_once(model: Model):
    """Triton deadlocks if the first steps are several and one fails, and keeps a request of which one step of several
    fails. So whatever reads the request's own tensors must be ready at another time than all other steps."""
    ready_at = dict.fromkeys((tensor.name for tensor in model.inputs), 0)
    starts: list[int] = []
    for step in model.steps:
        starts.append(max(ready_at[name] for name in step.inputs.values()))
        ready_at |= dict.fromkeys(step.outputs.values(), starts[-1] + 1)
    for step, start in zip(model.steps, starts, strict=True):
        if {tensor.name for tensor in model.inputs} & set(step.inputs.values()):
            assert starts.count(start) == 1, step.model


@pytest.mark.parametrize("name", ["morph", "morph_branches", "morph_stream", "pixel", "latent", "slerp"])
def test_a_client_learns_what_it_must_know_from_the_configuration(repository: Path, name: str, model: MorphModel):
    parameters = {key: value.string_value for key, value in read(repository, name).parameters.items()}
    groups = ["all"] if name in BLENDS else list(model.config.branches)
    assert parameters["groups"].split(",") == groups
    assert parameters["stride"] == "8"
    assert parameters["max_picture_size"] == str(MAX_PICTURE_SIZE)
    assert parameters["max_pixels"] == str(MAX_PIXELS)
    served = ServedModel.from_config(to_json(read(repository, name)))
    assert (served.name, served.groups, served.picture_size) == (name, tuple(groups), 32)
    assert (served.max_steps, served.max_strength) == (MAX_STEPS, MAX_STRENGTH)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_every_configuration_has_the_limits_that_the_guard_checks(model: Model):
    for flavour in flavours(model, onnx=True):
        parameters = model_config(model, flavour).parameters
        assert json.loads(parameters["checks"].string_value) == model.checks(), flavour.name


def test_limits_of_a_backend_that_knows_tensors_by_place_have_its_names():
    parameters = model_config(MODELS["interpolator"], AOTI).parameters
    checks = json.loads(parameters["checks"].string_value)
    assert list(checks["dims"]) == ["INPUT__0", "INPUT__1", "INPUT__2"]
    assert list(checks["ranges"]) == ["INPUT__2"]


def test_an_axis_means_the_same_in_all_tensors():
    axes: dict[str, Axis] = {}
    for model in MODELS.values():
        for tensor in (*model.inputs, *model.outputs):
            for dim in tensor.dims:
                if isinstance(dim, Axis):
                    assert axes.setdefault(dim.letter, dim) == dim
