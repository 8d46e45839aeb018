"""The text of a model's configurations, from its entry in the contract."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from homomorph_export.contract import MAX_BATCH_SIZE, MAX_QUEUE, QUEUE_TIMEOUT_S, Model, Tensor
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
        flavour: the backend; of an ensemble, that of its members.
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
    if model.is_ensemble:
        steps = model.python_steps if flavour is PYTHON and model.python_steps else model.steps
        config["platform"] = "ensemble"
        config["ensemble_scheduling"] = {
            "step": [
                {
                    "model_name": step.model,
                    "model_version": -1,
                    "input_map": [{"key": key, "value": value} for key, value in step.inputs.items()],
                    "output_map": [{"key": key, "value": value} for key, value in step.outputs.items()],
                }
                for step in steps
            ]
        }
    else:
        if flavour.platform:
            config |= {"platform": flavour.platform, "default_model_filename": flavour.model_file}
        else:
            config["backend"] = flavour.backend
        # Of KIND_GPU so many on every GPU that the server sees.
        config["instance_group"] = [{"count": model.instances, "kind": Symbol(f"KIND_{flavour.kind}")}]
        config["dynamic_batching"] = _batching(model)
    if model.streams:
        config["model_transaction_policy"] = {"decoupled": True}
        asked = json.dumps([asdict(step) for step in model.steps])
        config["parameters"].append({"key": "steps", "value": {"string_value": asked}})
    if model.cached:
        config["response_cache"] = {"enable": True}
    if warmup:
        config["model_warmup"] = [_warmup(model, warmup)]
    return "\n".join(_lines(config)) + "\n"


def _batching(model: Model) -> dict[str, Any]:
    if model.joint:
        # It has a queue of its own. As soon as Triton's has a bound, a timeout or priorities, Triton (24.10) keeps
        # requests back until an instance is free.
        return {}
    return _QUEUE


_QUEUE = {
    # Whatever waits when an instance is free becomes one batch. A delay would make everybody wait for requests that may
    # not come, and preferred sizes would only split that up.
    "priority_levels": 2,
    "default_priority_level": 2,  # the client asks for 1 where somebody is looking
    "default_queue_policy": {
        "timeout_action": Symbol("REJECT"),
        "default_timeout_microseconds": QUEUE_TIMEOUT_S * 1_000_000,
        "allow_timeout_override": True,
        "max_queue_size": MAX_QUEUE,
    },
}


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
    # JSON's escapes within a quoted string are a subset of the text format's, and its true and false are its own.
    return json.dumps(value) if isinstance(value, str | bool) and not isinstance(value, Symbol) else str(value)
