"""Triton Python backend for models that send each frame as soon as it is decoded.

The model calls the models of its steps, as an ensemble does, but calls the last one once for each frame. So the weights
are in memory only once, the frames are the same as those of the ensemble, frames of several requests are decoded as one
batch, and other requests run between two frames of a long sequence. Needs only numpy.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Triton appends this folder to the path, so packages of the same names would take precedence.
sys.path.insert(0, str(Path(__file__).parent))

import triton_python_backend_utils as pb_utils
from heartbeat import start_heartbeat
from limits import RequestError, is_urgent

MAX_STREAMS = 8
"""Largest number of requests that are answered concurrently; the others wait in Triton's queue."""


class PriorityGate:
    """Lets urgent streams go first: while one is answered, all others wait between two frames.

    Triton does not pass a request's priority on when a Python model calls another model.
    """

    def __init__(self) -> None:
        """Start without urgent streams."""
        self.urgent_streams = 0
        self.condition = threading.Condition()

    @contextmanager
    def entered(self, *, urgent: bool) -> Iterator[None]:
        """Count a stream as urgent, if it is, while the context lasts."""
        self._change_count(int(urgent))
        try:
            yield
        finally:
            self._change_count(-int(urgent))

    def wait(self, *, urgent: bool) -> None:
        """Wait until the stream may send its next frame."""
        with self.condition:
            self.condition.wait_for(lambda: urgent or not self.urgent_streams)

    def _change_count(self, change: int) -> None:
        with self.condition:
            self.urgent_streams += change
            self.condition.notify_all()


class StepError(Exception):
    """A step refused its inputs; holds Triton's error."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.message())
        self.error = error


class TritonPythonModel:
    """One instance of a model; Triton calls `initialize` once, `execute` for requests, and `finalize` at the end."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the steps; `args` come from Triton."""
        config = json.loads(args["model_config"])
        self.inputs = [tensor["name"] for tensor in config["input"]]
        # The last step decodes; it runs once for each frame.
        *self.steps, self.decode = json.loads(config["parameters"]["steps"]["string_value"])
        self.gate = PriorityGate()
        self.free_slots = threading.Semaphore(MAX_STREAMS)
        self.executor = ThreadPoolExecutor(MAX_STREAMS)
        start_heartbeat()

    def execute(self, requests: list[Any]) -> None:
        """Accept requests; other threads answer them later."""
        for request in requests:
            self.free_slots.acquire()
            self.executor.submit(self.respond, request)

    def finalize(self) -> None:
        """Finish the requests that are being answered."""
        self.executor.shutdown()

    def respond(self, request: Any) -> None:
        """Send all frames of one request, or an error after some frames; always close the request's stream."""
        sender = request.get_response_sender()
        error = None
        try:
            self.send_frames(request, sender)
        except StepError as raised:
            error = raised.error
        except RequestError as raised:
            error = pb_utils.TritonError(str(raised), pb_utils.TritonError.INVALID_ARG)
        except Exception as raised:  # the stream must be closed, or its client would wait
            error = pb_utils.TritonError(f"{type(raised).__name__}: {raised}", pb_utils.TritonError.INTERNAL)
        finally:
            self.free_slots.release()
        if error is None:
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        else:
            response = pb_utils.InferenceResponse(error=error)
            sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def send_frames(self, request: Any, sender: Any) -> None:
        """Send all frames of one request; stop silently if its client has cancelled it."""
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        urgent = is_urgent(request.parameters())
        for step in self.steps:
            if sender.is_cancelled():
                return
            tensors |= call_model(step, tensors)
        (features_name,) = self.decode["inputs"].values()
        features = tensors[features_name]  # (B, S, C, h, w)
        with self.gate.entered(urgent=urgent):
            for index in range(features.shape[1]):
                self.gate.wait(urgent=urgent)
                if sender.is_cancelled():
                    return
                outputs = call_model(self.decode, {features_name: features[:, index : index + 1]})
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor(name, x) for name, x in outputs.items()]))


def call_model(step: dict[str, Any], tensors: dict[str, Any]) -> dict[str, Any]:
    """Call the model of one step; return its outputs under the names that the step gives them.

    Raises:
        StepError: the model returned an error.
    """
    response = pb_utils.InferenceRequest(
        model_name=step["model"],
        inputs=[pb_utils.Tensor(name, tensors[source]) for name, source in step["inputs"].items()],
        requested_output_names=list(step["outputs"]),
    ).exec()
    if response.has_error():
        raise StepError(response.error())
    return {
        target: pb_utils.get_output_tensor_by_name(response, name).as_numpy()
        for name, target in step["outputs"].items()
    }
