"""The number formats of an export: what each file format makes of them, and how exact its frames must be."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tolerance:
    """Largest differences allowed to the run's own float32 frames, in grey levels 0-255."""

    mean: float
    """Largest mean difference over all compared pixels."""
    max: float | None
    """Largest difference in one channel of one pixel; None: no limit."""

    def allows(self, mean: float, max: float) -> bool:
        """Whether differences are within the tolerance. NaN is not."""
        return mean <= self.mean and (self.max is None or max <= self.max)


TOLERANCES = {
    # Rounding to whole grey levels may fall to either side.
    "fp32": Tolerance(mean=0.02, max=1.0),
    "bf16": Tolerance(mean=0.5, max=None),
    "fp16": Tolerance(mean=0.5, max=None),
    "int8": Tolerance(mean=2.0, max=None),
}
PRECISIONS = tuple(TOLERANCES)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}
"""Type that the networks are converted to; int8 files are quantised from float32 ones."""

IN_TORCHSCRIPT = {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16", "int8": "fp32"}
"""Number format of the TorchScript files by the one asked for: int8 is for ONNX alone."""
IN_ONNX = {"fp32": "fp32", "bf16": "fp32", "fp16": "fp16", "int8": "int8"}
"""The same of the ONNX files: neither ONNX at our opset nor ONNX Runtime on a CPU convolves bfloat16."""
