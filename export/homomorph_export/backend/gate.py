"""Triton Python backend for a model before which requests wait for another one, its only step.

A queue of Triton's with a bound, timeouts and priorities keeps a request back until an instance is free, although it
could be computed beside those on their way. So the queue stands before this model instead, which computes nothing and
has several instances; each takes one request and asks the step. Needs no package at all.
"""

from __future__ import annotations

import json
from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of a model; Triton calls `initialize` once, and `execute` for requests."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the step; `args` come from Triton."""
        config = json.loads(args["model_config"])
        (step,) = json.loads(config["parameters"]["steps"]["string_value"])
        self.model = step["model"]
        self.inputs, self.outputs = list(step["inputs"]), list(step["outputs"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return what the step answers."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """Pass one request on."""
        if request.is_cancelled():
            error = pb_utils.TritonError("cancelled while it waited", pb_utils.TritonError.CANCELLED)
            return pb_utils.InferenceResponse(error=error)
        answer = pb_utils.InferenceRequest(
            model_name=self.model,
            inputs=request.inputs(),
            requested_output_names=self.outputs,
            parameters=json.loads(request.parameters() or "{}"),
        ).exec()
        if answer.has_error():
            message = answer.error().message()
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, self.code(message)))
        return pb_utils.InferenceResponse(answer.output_tensors())

    def code(self, message: str) -> Any:
        """Return the code of a step's error, which Triton (24.10) forgets between models.

        What is wrong with an input begins with its name.
        """
        if message.partition(":")[0] in self.inputs:
            return pb_utils.TritonError.INVALID_ARG
        if message.startswith("Exceeds maximum queue size"):
            return pb_utils.TritonError.UNAVAILABLE
        return pb_utils.TritonError.INTERNAL
