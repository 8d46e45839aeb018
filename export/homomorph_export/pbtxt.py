"""The text of a model's configurations, from its entry in the contract."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from homomorph_export.contract import MAX_BATCH_SIZE, Model, Tensor
from homomorph_export.flavours import PYTHON, Flavour


class Symbol(str):
    """An enumeration's value, which protobuf's text format writes without quotes."""


def model_config(
    model: Model,
    *,
    parameters: Mapping[str, str],
    warmup: Mapping[str, tuple[int, ...]],
    flavour: Flavour = PYTHON,
) -> str:
    """Write the configuration of one served model for one of Triton's backends, or of an ensemble.

    Args:
        model: its entry in the contract.
        flavour: the backend; an ensemble has none.
        parameters: what the backend or a client reads from the configuration.
        warmup: the shape of each input, without the batch axis, of the request that Triton sends at load, before the
            model counts as ready; its values lie in `warmup/<input>` beside the configuration. Empty for none.
    """
    config: dict[str, Any] = {
        "name": model.name,
        "max_batch_size": MAX_BATCH_SIZE,
        "input": [_tensor(tensor) for tensor in model.inputs],
        "output": [_tensor(tensor) for tensor in model.outputs],
        "parameters": [{"key": key, "value": {"string_value": value}} for key, value in parameters.items()],
    }
    if model.steps:
        config["platform"] = "ensemble"
        config["ensemble_scheduling"] = {
            "step": [
                {
                    "model_name": step.model,
                    "model_version": -1,
                    "input_map": [{"key": key, "value": value} for key, value in step.inputs.items()],
                    "output_map": [{"key": key, "value": value} for key, value in step.outputs.items()],
                }
                for step in model.steps
            ]
        }
    else:
        if flavour.platform:
            config |= {"platform": flavour.platform, "default_model_filename": flavour.model_file}
        else:
            config["backend"] = flavour.backend
        # The TorchScript modules are traced and frozen on the CPU, and parity was measured there.
        config["instance_group"] = [{"count": 1, "kind": Symbol("KIND_CPU")}]
        config["dynamic_batching"] = {}
    if warmup:
        config["model_warmup"] = [_warmup(model, warmup)]
    return "\n".join(_lines(config)) + "\n"


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "data_type": Symbol(f"TYPE_{tensor.type}"), "dims": list(tensor.shape)}


def _warmup(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    return {
        "name": "typical",
        "batch_size": 1,
        # TorchScript specialises its graph during the first calls; ONNX Runtime gathers its buffers.
        "count": 3,
        "inputs": [
            {
                "key": tensor.name,
                "value": {
                    "data_type": Symbol(f"TYPE_{tensor.type}"),
                    "dims": list(shapes[tensor.name]),
                    "input_data_file": tensor.name,
                },
            }
            for tensor in model.inputs
        ],
    }


def _lines(message: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Write a message in protobuf's text format, two spaces a level; a list is a repeated field."""
    for key, value in message.items():
        if isinstance(value, list) and not any(isinstance(item, Mapping) for item in value):
            yield f"{indent}{key}: [{', '.join(map(_scalar, value))}]"
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                yield f"{indent}{key} {{"
                yield from _lines(item, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{key}: {_scalar(item)}"


def _scalar(value: Any) -> str:
    # JSON's escapes within a quoted string are a subset of the text format's.
    return json.dumps(value) if isinstance(value, str) and not isinstance(value, Symbol) else str(value)
