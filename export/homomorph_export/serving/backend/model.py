"""Triton Python backend for every TorchScript model of a homomorph repository.

This file stands beside its `model.pt` in each model's version folder and needs torch and numpy alone. The requests
that Triton batched run as one forward pass, except where `morpher.py` stands there too and computes in its own order. A
request that the model cannot take gets an error of its own.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import math
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Read when OpenMP starts: idle threads must sleep instead of spinning, or the models' processes starve each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.utils.dlpack
import triton_python_backend_utils as pb_utils

REPORT_EVERY_S = 0.2
"""How often metrics of ours change: as often as anybody looks."""


class RequestError(Exception):
    """A request asks for what the model cannot do; the message goes to the client."""


class TritonPythonModel:
    """One instance of a model; Triton calls `initialize` once and `execute` for each dynamic batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; `args` come from Triton."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        allowed = threads(parameters["intra_op_threads"])
        torch.set_num_threads(allowed)
        keep_freed_memory()
        folder = Path(args["model_repository"]) / args["model_version"]
        library = folder / "libhomomorph_ops.so"  # there only if the model needs it
        # Loading a library a second time into one process kills it.
        if library.exists() and not hasattr(torch.ops.homomorph, "interpolate"):
            torch.ops.load_library(library)
        self.device = device(args["model_instance_kind"], args["model_instance_device_id"])
        # A GPU would round to 10 bits, and differently for each size of a batch: what is asked for in float32 is
        # computed in float32. For speed there is `homomorph export --precision`.
        torch.backends.cudnn.allow_tf32 = False
        self.module = torch.jit.load(folder / "model.pt", map_location=self.device)
        self.morpher: Any = None
        if (folder / "morpher.py").exists():
            # The server has put this folder on Python's path.
            engine = importlib.import_module("morpher")
            self.codes = {
                RequestError: pb_utils.TritonError.INVALID_ARG,
                engine.OverloadedError: pb_utils.TritonError.UNAVAILABLE,
                # Clients send again what was unavailable. Triton knows no "deadline exceeded".
                engine.TooLateError: pb_utils.TritonError.CANCELLED,
            }
            self.counter = Counter(args["model_name"])
            self.morpher = engine.Morpher(
                self.module,
                # On a GPU one thread copies while the other one's kernels run.
                threads=allowed if self.device.type == "cpu" else 2,
                device=self.device,
                max_waiting=int(parameters["max_queue_size"]),
                longest_wait_s=float(parameters["queue_timeout_s"]),
                cache_bytes=int(os.environ.get("HOMOMORPH_CACHE_MIB", "0")) << 20,
                count=self.counter,
            )
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.checks = json.loads(parameters["checks"])

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Return one response for each request, in their order; or None if they leave later, each by itself."""
        if self.morpher:
            for request in requests:
                self.answer_later(request)
            return None
        responses: list[Any] = [None] * len(requests)
        accepted: dict[int, list[torch.Tensor]] = {}
        for index, request in enumerate(requests):
            tensors = [read(request, name) for name in self.inputs]
            try:
                check(dict(zip(self.inputs, tensors, strict=True)), self.checks)
                accepted[index] = tensors
            except RequestError as error:
                responses[index] = refusal(error, pb_utils.TritonError.INVALID_ARG)
        if accepted:
            batch = [torch.cat(parts).to(self.device) for parts in zip(*accepted.values(), strict=True)]
            with torch.inference_mode():
                results = self.module(*batch)
            if len(self.outputs) == 1:
                results = (results,)
            sizes = [tensors[0].shape[0] for tensors in accepted.values()]
            shares = zip(*(result.cpu().split(sizes) for result in results), strict=True)
            for index, parts in zip(accepted, shares, strict=True):
                responses[index] = self.response(parts)
        return responses

    def answer_later(self, request: Any) -> None:
        """Have a request computed, and its response sent then."""
        sender = request.get_response_sender()

        def send(response: Any) -> None:
            sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

        def refuse(error: Exception) -> None:  # whatever it is, the client must not wait for ever
            send(refusal(error, self.codes.get(type(error), pb_utils.TritonError.INTERNAL)))

        def answer(frames: Any) -> None:
            try:
                send(self.response([frames.result()]))
            except Exception as error:
                refuse(error)

        try:
            tensors = [read(request, name) for name in self.inputs]
            check(dict(zip(self.inputs, tensors, strict=True)), self.checks)
            self.morpher.submit(
                *(tensor.clone() for tensor in tensors),  # Triton wants its own back as soon as `execute` returns
                urgent=bool(json.loads(request.parameters() or "{}").get("urgent")),
                timeout_s=request.timeout() / 1e6 or math.inf,
            ).add_done_callback(answer)
        except Exception as error:
            refuse(error)

    def response(self, tensors: Iterable[torch.Tensor]) -> Any:
        """Return the response that holds all outputs."""
        named = zip(self.outputs, tensors, strict=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, tensor.numpy()) for name, tensor in named])

    def finalize(self) -> None:
        """Answer what was taken on."""
        if self.morpher:
            self.morpher.close()
            self.counter.close()


def refusal(error: BaseException, code: Any) -> Any:
    """Return the response that says what was wrong."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))


def device(kind: str, number: str) -> torch.device:
    """Return where an instance computes, of the kind of its group and the number of its GPU, as Triton gives them."""
    return torch.device("cuda", int(number)) if kind == "GPU" else torch.device("cpu")


def threads(setting: str) -> int:
    """Return how many threads a model may use; `half` leaves half of the cores to the other models."""
    cores = len(os.sched_getaffinity(0))
    return {"all": cores, "half": max(1, cores // 2)}.get(setting) or int(setting)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next request, up to 32 MiB a block and 256 MiB at an end of its heaps.

    Else large blocks go back to the system after each layer and come again as zeroed pages, one fault for 4 KiB: that
    took a twentieth of the time of a morph.
    """
    trim_threshold, mmap_threshold = -1, -3  # glibc's malloc.h, whose largest threshold is 32 MiB
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, 256 << 20)


class Counter:
    """Counts in the server's metrics what Triton does not know of the requests that leave later."""

    def __init__(self, model: str) -> None:
        """Add the metrics of a model of that name."""
        pictures = pb_utils.MetricFamily(
            name="homomorph_pictures",
            description="Pictures of morphs, by whether their features were in the cache",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        queue, compute = (
            pb_utils.MetricFamily(
                name=f"homomorph_{part}_duration_us",
                description=f"Microseconds that requests {what}, which Triton does not count",
                kind=pb_utils.MetricFamily.COUNTER,
            )
            for part, what in (("queue", "waited until they were begun"), ("compute", "took from then on"))
        )
        self.families = pictures, queue, compute  # which must outlive their metrics
        self.metrics = {
            "known": (pictures.Metric(labels={"cached": "yes"}), 1),
            "encoded": (pictures.Metric(labels={"cached": "no"}), 1),
            "queue_s": (queue.Metric(labels={"model": model}), 1e6),
            "compute_s": (compute.Metric(labels={"model": model}), 1e6),
        }
        self.changed = threading.Condition()  # whose lock guards what follows
        self.counted = dict.fromkeys(self.metrics, 0.0)
        self.closed = False
        self.reporter = threading.Thread(target=self.report, daemon=True)
        self.reporter.start()

    def __call__(self, what: str, more: float) -> None:
        """Count some more."""
        with self.changed:
            self.counted[what] += more
            self.changed.notify_all()

    def report(self) -> None:
        """Tell Triton now and then what was counted, which takes it longer than each count is worth; in a thread."""
        while not self.closed:
            with self.changed:
                self.changed.wait_for(lambda: self.closed or any(self.counted.values()))
                self.changed.wait_for(lambda: self.closed, timeout=REPORT_EVERY_S)
                counted, self.counted = self.counted, dict.fromkeys(self.metrics, 0.0)
            for what, more in counted.items():
                if more:
                    metric, unit = self.metrics[what]
                    metric.increment(more * unit)

    def close(self) -> None:
        """Report the rest."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.reporter.join()


def read(request: Any, name: str) -> torch.Tensor:
    """Return one input [B, ...] of a request, in place."""
    return torch.utils.dlpack.from_dlpack(pb_utils.get_input_tensor_by_name(request, name).to_dlpack())


def check(tensors: dict[str, torch.Tensor], checks: dict[str, Any]) -> None:
    """Hold a request's tensors against the limits in the model's configuration.

    Triton itself has checked types, numbers of axes and axes of fixed length.

    Raises:
        RequestError: an axis has a length that is out of bounds or differs between inputs, the frames are too many
            for their size, or a value is out of range.
    """
    first: dict[str, tuple[str, int]] = {}  # by axis: the first input that has it, and its length there
    for name, tensor in tensors.items():
        for dim, length in zip(checks["dims"][name], tensor.shape[1:], strict=True):
            if isinstance(dim, int):
                continue
            minimum, maximum, multiple_of = checks["axes"][dim]
            if not minimum <= length <= maximum or length % multiple_of:
                kind = f"a multiple of {multiple_of} " if multiple_of > 1 else ""
                raise RequestError(f"{name}: {dim} must be {kind}from {minimum} to {maximum}, not {length}")
            other, expected = first.setdefault(dim, (name, length))
            if length != expected:
                raise RequestError(f"{name}: {dim} must be {expected} as in {other}, not {length}")
    if checks["pixels"]:
        (name, steps), (_, height), (_, width) = (first[axis] for axis in checks["pixels"]["axes"])
        height, width = height * checks["pixels"]["stride"], width * checks["pixels"]["stride"]
        if steps * height * width > checks["pixels"]["maximum"]:
            raise RequestError(
                f"{name}: too many frames for their size: {steps} of {height}x{width} pixels are "
                f"{steps * height * width} pixels, not at most {checks['pixels']['maximum']}"
            )
    for name, (low, high) in checks["ranges"].items():
        values = tensors[name]
        refused = values[~((values >= low) & (values <= high))]  # written so that NaN is among them
        if refused.numel():
            raise RequestError(f"{name}: every value must be a number from {low:g} to {high:g}, not {refused[0]:g}")
