"""The configurations that every exported model has, one for each of Triton's backends that can run it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from homomorph_export.contract import MAX_BATCH_SIZE


@dataclass(frozen=True)
class Flavour:
    """One of Triton's backends: its name, the file that it loads and its parameters."""

    name: str
    """Value of `homomorph serve --flavour` and, except for the default, of `tritonserver --model-config-name`."""
    backend: str
    """Folder of the backend among Triton's backends."""
    library: str
    """File of the backend's library, in that folder."""
    platform: str | None
    """Value of `platform` in a configuration; None for a backend that is named in `backend` instead."""
    model_file: str
    """File that the backend loads from a model's version folder."""
    threads_parameter: str
    """Name of the configuration's parameter for the threads of one operation."""
    kind: str = "CPU"
    """Place of its instances: the CPU, or each GPU."""
    accelerator: str | None = None
    """ONNX Runtime's execution accelerator on a GPU; None is its default."""
    max_batch_size: int = MAX_BATCH_SIZE
    """Largest batch that its models take, ensembles included."""

    @property
    def config_file(self) -> str:
        """Path of its configuration in a model's folder. Without one, as in most ensembles, Triton uses the
        default configuration."""
        return "config.pbtxt" if self is PYTHON else f"configs/{self.name}.pbtxt"


PYTHON = Flavour("python", "python", "libtriton_python.so", None, "model.py", "intra_op_threads")
"""The default: the only backend in nvidia-pytriton."""
LIBTORCH = Flavour(
    "libtorch", "pytorch", "libtriton_pytorch.so", "pytorch_libtorch", "model.pt", "INTRA_OP_THREAD_COUNT"
)
"""Needs the operator's library preloaded."""
ONNX = Flavour(
    "onnx", "onnxruntime", "libtriton_onnxruntime.so", "onnxruntime_onnx", "model.onnx", "intra_op_thread_count"
)
OPENVINO = Flavour(
    "openvino", "openvino", "libtriton_openvino.so", None, ONNX.model_file, "INFERENCE_NUM_THREADS", max_batch_size=1
)
"""Reads the same files as `ONNX`. Its backend fixes the batch of each model at `max_batch_size`. It can pad smaller
batches (`ENABLE_BATCH_PADDING`) only where all other sizes are fixed too, and here they are not."""
AOTI = Flavour(
    "aoti", "pytorch", "libtriton_pytorch.so", "torch_aoti", "model.pt2", "INTRA_OP_THREAD_COUNT", max_batch_size=1
)
"""AOTInductor's packages, for Triton 26.05 or newer. Its backend knows tensors by their places instead of their names,
and takes batches of 1 only."""
TENSORRT = replace(ONNX, name="tensorrt", kind="GPU", accelerator="tensorrt")
"""ONNX Runtime computes with TensorRT what TensorRT can compute. Not among `FLAVOURS`: for NVIDIA's container alone."""
GPU = replace(PYTHON, name="gpu", kind="GPU")
"""The flavour that `homomorph serve` uses instead of the default on GPUs."""
FLAVOURS = {flavour.name: flavour for flavour in (PYTHON, LIBTORCH, ONNX, OPENVINO, AOTI)}
