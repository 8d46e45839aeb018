"""Run ONNX files in ONNX Runtime and in OpenVINO, on the CPU.

An export uses these functions to compare its files with the run, `homomorph bench model` to measure them, and the
Python backend to compute E and D. The backend has a copy of this file, which imports only torch and the runtime.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_CACHED_PRIMITIVES = 1024
"""Largest number of compiled operations that OpenVINO keeps for each model and stream: the most recently used ones."""

Run = Callable[..., Any]
"""A function from input tensors to the output, or to a tuple of outputs. Several threads may call it at once."""


class EngineParts:
    """A joint model with the methods that `MorphRunner` calls: E and D in an engine, the rest in TorchScript."""

    def __init__(self, module: Any, engine: str, folders: Mapping[str, Path], *, threads: int, precision: str) -> None:
        """Load the files.

        Args:
            module: the TorchScript model in `model.pt`.
            engine: `onnxruntime` or `openvino`.
            folders: version folders of `encoder` and `decoder`, by these names. Their `model.onnx` has the weights.
            threads: number of threads that call the methods; also the most that one call uses.
            precision: the export's number format: fp32, bf16, fp16 or int8.
        """
        self.interpolate, self.delta, self.combine = module.interpolate, module.delta, module.combine
        self.encode, self.decode = (
            load(engine, folders[part] / "model.onnx", threads=threads, precision=precision)
            for part in ("encoder", "decoder")
        )


def load(engine: str, file: Path, *, threads: int, precision: str) -> Run:
    """Load a file for calls from several threads, each of which computes with as many threads as torch would.

    A call reads torch's setting, `torch.get_num_threads()` of the calling thread, and rounds it down to a power of two.
    The runtimes fix the number of threads when they load a file. So it is loaded for one thread now, and once more for
    every other number at the first call that needs it.

    Args:
        engine: `onnxruntime` or `openvino`.
        file: the model.
        threads: number of threads of all concurrent calls.
        precision: the export's number format. OpenVINO computes a bf16 export in bfloat16, where the processor has it.

    Raises:
        ValueError: there is no such engine.
    """
    if engine not in ("onnxruntime", "openvino"):
        raise ValueError(f"there is no engine {engine!r}: choose torchscript, onnxruntime or openvino")

    runs: dict[int, Run] = {}
    lock = threading.Lock()

    def loaded(count: int) -> Run:
        if count not in runs:
            with lock:
                if count not in runs:  # another call may have loaded it while this one waited
                    if engine == "onnxruntime":
                        runs[count] = load_onnxruntime(file, threads=count)
                    else:
                        streams = max(1, threads // count)
                        runs[count] = load_openvino(file, threads=threads, streams=streams, bf16=precision == "bf16")
        return runs[count]

    loaded(1)
    return lambda *tensors: loaded(1 << (torch.get_num_threads().bit_length() - 1))(*tensors)


def load_onnxruntime(file: Path, *, threads: int | None = None) -> Run:
    """Load a file into ONNX Runtime.

    Args:
        file: the model, which may have dynamic sizes.
        threads: number of threads of one call, the calling one included; None for torch's.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    # Threads that spin after a call would take cores from the next model's session.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # ONNX Runtime would keep a memory pattern for every shape, without a limit.
    options.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]

    def run(*tensors: Tensor) -> Any:
        arrays = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return _tensors(session.run(None, arrays))

    return run


def load_openvino(
    file: Path,
    *,
    threads: int,
    streams: int = 1,
    bf16: bool = False,
    shapes: Sequence[Sequence[int]] | None = None,
) -> Run:
    """Load a model into OpenVINO.

    Args:
        file: the model, in ONNX.
        threads: number of threads of all concurrent calls.
        streams: number of calls that are computed at the same time, each with its share of the threads.
        bf16: whether to compute in bfloat16, on a processor that has it.
        shapes: of the inputs; None: they stay dynamic. If the batch is dynamic, OpenVINO 2026.4 computes wrong results
            within an `If`.
    """
    import openvino

    core = openvino.Core()
    graph = core.read_model(file)
    if shapes is not None:
        graph.reshape({place: list(shape) for place, shape in enumerate(shapes)})
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        # Other processes use the same cores, and `homomorph serve --cores` chooses them.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _CACHED_PRIMITIVES,
    }
    compiled = core.compile_model(graph, "CPU", settings)
    of_thread = threading.local()  # a request computes one call at a time

    def run(*tensors: Tensor) -> Any:
        if not hasattr(of_thread, "request"):
            of_thread.request = compiled.create_infer_request()
        results = of_thread.request.infer([tensor.numpy() for tensor in tensors], share_inputs=True)
        return _tensors(results[place] for place in range(len(compiled.outputs)))

    return run


def _tensors(arrays: Any) -> Any:
    tensors = tuple(map(torch.from_numpy, arrays))
    return tensors if len(tensors) > 1 else tensors[0]
