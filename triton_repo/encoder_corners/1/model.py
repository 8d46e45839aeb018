"""Triton Python backend for every TorchScript model of a homomorph repository.

Each model's version folder has this file, the helpers that it imports, and `model.pt`. They need only torch,
numpy, and the runtime that the environment variable `HOMOMORPH_ENGINE` names.
Requests that Triton has batched run as one forward pass. If the folder also has `morpher.py`, each request is computed
and answered separately, in the scheduler's order. A request outside the model's limits is answered with an error and
does not affect the others.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# OpenMP reads this when it starts. Idle threads must sleep, because spinning ones take cores from the other models.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Triton appends this folder to the path, so packages of the same names would take precedence.
sys.path.insert(0, str(Path(__file__).parent))

import torch
import torch.utils.dlpack
import triton_python_backend_utils as pb_utils
from heartbeat import start_heartbeat
from limits import RequestError, check, is_urgent, timeout_s
from memory import keep_freed_memory


class TritonPythonModel:
    """One instance of a model; Triton calls `initialize` once and `execute` for each dynamic batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; `args` come from Triton."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        threads = thread_count(parameters["intra_op_threads"])
        torch.set_num_threads(threads)
        keep_freed_memory()
        folder = Path(args["model_repository"]) / args["model_version"]
        library = folder / "libhomomorph_ops.so"  # exists only if the model needs it
        # Loading the library twice would crash the process.
        if library.exists() and not hasattr(torch.ops.homomorph, "interpolate"):
            torch.ops.load_library(library)
        self.device = torch_device(args["model_instance_kind"], args["model_instance_device_id"])
        # TF32 rounds to 10 bits, and results would depend on the batch size. Models exported in float32 compute in
        # float32; `homomorph export --precision` gives faster ones.
        torch.backends.cudnn.allow_tf32 = False
        self.module = torch.jit.load(folder / "model.pt", map_location=self.device)
        self.morpher: Any = None
        if (folder / "morpher.py").exists():
            self._start_morpher(args["model_name"], folder, threads, parameters)
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.checks = json.loads(parameters["checks"])
        start_heartbeat()

    def _start_morpher(self, name: str, folder: Path, threads: int, parameters: dict[str, str]) -> None:
        """Start the `MorphRunner`, which computes each request separately."""
        morpher, scheduler, metrics = map(importlib.import_module, ("morpher", "scheduler", "metrics"))
        self.error_codes = {
            RequestError: pb_utils.TritonError.INVALID_ARG,
            scheduler.OverloadedError: pb_utils.TritonError.UNAVAILABLE,
            # Not UNAVAILABLE, after which clients retry. Triton has no code for "deadline exceeded".
            scheduler.DeadlineExceededError: pb_utils.TritonError.CANCELLED,
        }
        # On a GPU, one thread copies while the kernels of the other run.
        threads = threads if self.device.type == "cpu" else 2
        engine = os.environ.get("HOMOMORPH_ENGINE", "torchscript")
        self.metrics = metrics.Metrics(name, engine)
        self.morpher = morpher.MorphRunner(
            self._parts(engine, folder, threads, parameters["precision"]),
            threads=threads,
            device=self.device,
            max_queue_size=int(parameters["max_queue_size"]),
            max_queue_s=float(parameters["queue_timeout_s"]),
            cache_bytes=int(os.environ.get("HOMOMORPH_CACHE_MIB", "0")) << 20,
            count=self.metrics.add,
        )

    def _parts(self, engine: str, folder: Path, threads: int, precision: str) -> Any:
        """Return the joint model, with E and D in the engine."""
        if engine == "torchscript":
            return self.module
        if self.device.type != "cpu":
            raise ValueError(f"engine {engine} computes on the CPU: leave out HOMOMORPH_ENGINE on a GPU")
        repository, version = folder.parents[1], folder.name
        folders = {part: repository / part / version for part in ("encoder", "decoder")}
        engines = importlib.import_module("engines")
        return engines.EngineParts(self.module, engine, folders, threads=threads, precision=precision)

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Return one response for each request, in their order; None if the responses are sent later, one by one."""
        if self.morpher:
            for request in requests:
                self._submit(request)
            return None
        responses: list[Any] = [None] * len(requests)
        accepted: dict[int, list[torch.Tensor]] = {}
        for index, request in enumerate(requests):
            tensors = [read(request, name) for name in self.inputs]
            try:
                check(dict(zip(self.inputs, tensors, strict=True)), self.checks)
                accepted[index] = tensors
            except RequestError as error:
                responses[index] = error_response(error, pb_utils.TritonError.INVALID_ARG)
        if accepted:
            batch = [torch.cat(parts).to(self.device) for parts in zip(*accepted.values(), strict=True)]
            with torch.inference_mode():
                results = self.module(*batch)
            if len(self.outputs) == 1:
                results = (results,)
            sizes = [tensors[0].shape[0] for tensors in accepted.values()]
            shares = zip(*(result.cpu().split(sizes) for result in results), strict=True)
            for index, parts in zip(accepted, shares, strict=True):
                responses[index] = self._response(parts)
        return responses

    def _submit(self, request: Any) -> None:
        """Pass a request to the `MorphRunner`, which sends its response when it is computed."""
        sender = request.get_response_sender()

        def send(response: Any) -> None:
            sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

        def send_error(error: Exception) -> None:  # any kind of error, so that the client gets an answer
            send(error_response(error, self.error_codes.get(type(error), pb_utils.TritonError.INTERNAL)))

        def send_frames(frames: Any) -> None:
            try:
                send(self._response([frames.result()]))
            except Exception as error:
                send_error(error)

        try:
            tensors = [read(request, name) for name in self.inputs]
            check(dict(zip(self.inputs, tensors, strict=True)), self.checks)
            self.morpher.submit(
                *(tensor.clone() for tensor in tensors),  # the originals are valid only until `execute` returns
                urgent=is_urgent(request.parameters()),
                timeout_s=timeout_s(request.timeout()),
            ).add_done_callback(send_frames)
        except Exception as error:
            send_error(error)

    def _response(self, tensors: Iterable[torch.Tensor]) -> Any:
        """Return the response that holds all outputs."""
        named = zip(self.outputs, tensors, strict=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, tensor.numpy()) for name, tensor in named])

    def finalize(self) -> None:
        """Finish the submitted requests and end the threads."""
        if self.morpher:
            self.morpher.close()
            self.metrics.close()


def error_response(error: Exception, code: Any) -> Any:
    """Return a response that holds an error instead of outputs."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))


def torch_device(kind: str, number: str) -> torch.device:
    """Return the device of a model instance, from the kind of its instance group and the number of its GPU."""
    return torch.device("cuda", int(number)) if kind == "GPU" else torch.device("cpu")


def thread_count(setting: str) -> int:
    """Return the number of threads that a model may use: a number, `all` cores, or `half` of them."""
    cores = len(os.sched_getaffinity(0))
    return {"all": cores, "half": max(1, cores // 2)}.get(setting) or int(setting)


def read(request: Any, name: str) -> torch.Tensor:
    """Return one input [B, ...] of a request, without a copy."""
    return torch.utils.dlpack.from_dlpack(pb_utils.get_input_tensor_by_name(request, name).to_dlpack())
