"""Makes a model's Triton configurations (protobuf messages) from its entry in the catalogue."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelDynamicBatching,
    ModelInstanceGroup,
    ModelQueuePolicy,
)

from homomorph.text_files import read_text
from homomorph_export.contract import MAX_QUEUE, QUEUE_TIMEOUT_S, Model, Step
from homomorph_export.flavours import AOTI, GPU, LIBTORCH, ONNX, OPENVINO, PYTHON, TENSORRT, Flavour

_OURS = "# Written by `homomorph export`"
_THREADS = 1
"""Default number of threads for one operation, in backends that need a number. The exporter does not know the server's
machine, and with one thread for each model, no model's threads wait for those of another."""


def flavours(model: Model, *, onnx: bool, aot: bool = False) -> tuple[Flavour, ...]:
    """Return the flavours for which a model has its own configuration. The other flavours use the default one.

    Args:
        model: its entry in the catalogue.
        onnx: whether the repository holds ONNX.
        aot: whether it holds packages of AOTInductor.
    """
    written = [PYTHON]
    if model.computation or model.python_steps:
        written.append(LIBTORCH)
        if onnx and not model.joint:
            written += [ONNX, TENSORRT]
    if model.computation:
        written.append(GPU)
    # Ensembles and streams have it too, so that they do not send their members batches.
    if onnx and not model.joint:
        written.append(OPENVINO)
    # The backend of AOTI identifies tensors by their places, and clients identify them by name. So the models that
    # clients call keep the default configuration.
    if aot and not model.joint and not (model.computation and model.client_parameters):
        written.append(AOTI)
    return tuple(written)


def model_config(
    model: Model, flavour: Flavour = PYTHON, *, precision: str = "fp32", threads: int | None = None
) -> ModelConfig:
    """Return the configuration of a served model for one of Triton's backends.

    Args:
        model: its entry in the catalogue.
        flavour: the backend; of an ensemble, that of its members.
        precision: number format of the export.
        threads: largest number of threads of one operation. None: in the Python backend, half of the server's cores, or
            all of them for a joint model; in the other backends, one.
    """
    config = ModelConfig(name=model.name, max_batch_size=flavour.max_batch_size)
    by_place = flavour is AOTI and model.computation is not None
    for tensors, written, prefix in ((model.inputs, config.input, "INPUT"), (model.outputs, config.output, "OUTPUT")):
        for place, tensor in enumerate(tensors):
            name = f"{prefix}__{place}" if by_place else tensor.name
            written.add(name=name, data_type=_type(tensor.type), dims=tensor.wire_shape)
    steps = model.python_steps if flavour is PYTHON and model.python_steps else model.steps
    if flavour is AOTI:
        steps = tuple(map(_by_place, steps))
    checks = model.checks([tensor.name for tensor in config.input])
    parameters = {**model.client_parameters, "checks": json.dumps(checks)}
    if model.is_ensemble:
        config.platform = "ensemble"
        for step in steps:
            config.ensemble_scheduling.step.add(
                model_name=step.model, model_version=-1, input_map=dict(step.inputs), output_map=dict(step.outputs)
            )
    else:
        if model.streams or flavour in (PYTHON, GPU):
            config.backend = PYTHON.backend
        else:
            config.default_model_filename = flavour.model_file
            if flavour.platform:
                config.platform = flavour.platform
            else:
                config.backend = flavour.backend
        # With KIND_GPU, this is the number of instances on each GPU.
        config.instance_group.add(count=model.instances, kind=ModelInstanceGroup.Kind.Value(f"KIND_{flavour.kind}"))
        config.dynamic_batching.CopyFrom(_batching(model))
        if flavour.accelerator:
            config.optimization.execution_accelerators.gpu_execution_accelerator.add(name=flavour.accelerator)
    if model.streams:
        config.model_transaction_policy.decoupled = True
        parameters["steps"] = json.dumps([asdict(step) for step in steps])
    if model.computation:
        parameters |= _backend_parameters(model, flavour, precision, threads)
        _add_warm_up(config, model)
    if model.cached:
        config.response_cache.enable = True
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def config_text(config: ModelConfig) -> str:
    """Return a configuration in protobuf's text format, as Triton reads it."""
    text: str = text_format.MessageToString(config, use_short_repeated_primitives=True)
    return text


def first_line(method: str) -> str:
    """Return the comment that begins every configuration of an export of a method, `homomorph` or `cyclegan`."""
    return f"{_OURS}, of a run of the method {method}.\n"


def is_ours(folder: Path, line: str | None = None) -> bool:
    """Return whether an export has written a model's folder.

    Args:
        folder: the model's.
        line: expected first line of the configuration; None accepts that of any method.
    """
    path = folder / PYTHON.config_file
    return path.is_file() and path.read_text(errors="replace").startswith(_OURS if line is None else line)


def read_config(path: Path) -> ModelConfig:
    """Read a `config.pbtxt`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no regular file, too large, not in UTF-8, or cannot be read.
        text_format.ParseError: it is not one.
    """
    config: ModelConfig = text_format.Parse(read_text(path, ValueError), ModelConfig())
    return config


def streamed_steps(config: ModelConfig) -> tuple[Step, ...]:
    """Return the steps of a streaming model, from its configuration; empty for any other model."""
    steps = config.parameters["steps"].string_value if "steps" in config.parameters else "[]"
    return tuple(Step(**step) for step in json.loads(steps))


def _by_place(step: Step) -> Step:
    """Return a step that names its model's tensors by their places, which are those in the step's mappings."""
    inputs = {f"INPUT__{place}": tensor for place, tensor in enumerate(step.inputs.values())}
    outputs = {f"OUTPUT__{place}": tensor for place, tensor in enumerate(step.outputs.values())}
    return Step(step.model, inputs, outputs)


def _backend_parameters(model: Model, flavour: Flavour, precision: str, threads: int | None) -> dict[str, str]:
    """Return the parameters that a backend reads from a model's configuration."""
    if flavour not in (PYTHON, GPU):
        return {flavour.threads_parameter: str(threads or _THREADS)}
    # This backend is ours. It counts the server's cores.
    share = "all" if model.joint else "half"
    parameters = {flavour.threads_parameter: str(threads or share)}
    if model.joint:  # it has a queue of its own
        parameters |= {"max_queue_size": str(MAX_QUEUE), "queue_timeout_s": str(QUEUE_TIMEOUT_S)}
        parameters["precision"] = precision  # an engine may need it, as ONNX files of a bf16 export are float32
    return parameters


def _batching(model: Model) -> ModelDynamicBatching:
    if model.joint:
        # A joint model has its own queue. If Triton's queue had a bound, a timeout or priorities, Triton (24.10) would
        # hold requests back until an instance is free.
        return ModelDynamicBatching()
    # All requests that wait when an instance becomes free form one batch. A delay would make them wait for requests
    # that may not come. Preferred sizes would only split the batch.
    return ModelDynamicBatching(
        priority_levels=2,
        default_priority_level=2,  # the client sends 1 for urgent requests
        default_queue_policy=ModelQueuePolicy(
            timeout_action=ModelQueuePolicy.REJECT,
            default_timeout_microseconds=QUEUE_TIMEOUT_S * 1_000_000,
            allow_timeout_override=True,
            max_queue_size=MAX_QUEUE,
        ),
    )


def _add_warm_up(config: ModelConfig, model: Model) -> None:
    """Add the request that Triton sends at load, before the model counts as ready; its values lie in `warmup/`."""
    # TorchScript specialises its graph during the first calls. ONNX Runtime allocates its buffers.
    warm_up = config.model_warmup.add(name="typical", batch_size=1, count=3)
    for tensor, written in zip(model.inputs, config.input, strict=True):
        value = warm_up.inputs[written.name]
        value.data_type, value.input_data_file = _type(tensor.type), tensor.name
        value.dims.extend(tensor.shape())


def _type(name: str) -> DataType:
    return DataType.Value(f"TYPE_{name}")
