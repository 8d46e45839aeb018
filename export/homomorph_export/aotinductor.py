"""AOTInductor: the only module that uses `torch.export` and Inductor.

A package (`.pt2`) is the weights and machine code for the processor that compiled it. Python loads it with
`torch._inductor.aoti_load_package`, C++ with `torch::inductor::AOTIModelPackageLoader`.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from homomorph_export.contract import MAX_BATCH_SIZE, Axis, Model
from homomorph_export.errors import ExportError
from homomorph_export.examples import zeros

_EXAMPLE_BATCH = 2
_EXAMPLE_LENGTHS = {"H": 6, "W": 8, "h": 6, "w": 8, "S": 3, "P": 2}
"""Example lengths of axes, as multiples of `Axis.multiple_of`. None is 1, which torch would take for fixed."""


class _Positional(nn.Module):
    """Wraps a module so that its inputs form one tuple: `torch.export` then takes shapes of any number of inputs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs: Tensor | tuple[Tensor, ...] = self.module(*inputs)
        return outputs


def record(module: nn.Module, entry: Model) -> ExportedProgram:
    """Record a served model's operations, for any batch size, number of frames, height and width.

    Args:
        module: its forward() takes the inputs of `entry`, in their order.
        entry: the served model that it computes.
    """
    batch = Dim("B", min=1, max=MAX_BATCH_SIZE)
    found = {dim.letter: dim for tensor in entry.inputs for dim in tensor.dims if isinstance(dim, Axis)}
    examples = zeros(
        entry,
        _EXAMPLE_BATCH,
        {letter: axis.multiple_of * _EXAMPLE_LENGTHS[letter] for letter, axis in found.items()},
    )
    # Not the letters alone: sympy takes S for something else.
    axes = {
        letter: axis.multiple_of * Dim(f"length_{letter}", min=1, max=axis.maximum // axis.multiple_of)
        for letter, axis in found.items()
    }
    shapes = tuple(
        {0: batch} | {place: axes[dim.letter] for place, dim in enumerate(tensor.dims, 1) if isinstance(dim, Axis)}
        for tensor in entry.inputs
    )
    with _quiet(), torch.no_grad():
        return torch.export.export(_Positional(module).eval(), examples, dynamic_shapes=(shapes,))


def compile_package(module: nn.Module, entry: Model, path: Path) -> None:
    """Write a served model as a package.

    Args:
        module: as for `record`.
        entry: as for `record`.
        path: the file; it ends in `.pt2`.

    Raises:
        ExportError: it cannot be compiled; Inductor needs a C++ compiler.
    """
    program = record(module, entry)
    content = io.BytesIO()  # torch's own writer ends the process if the disk is full
    with _quiet(), torch.no_grad():
        try:
            # Freezing lays the weights out for this processor.
            torch._inductor.aoti_compile_and_package(program, package_path=content, inductor_configs={"freezing": True})
        except (RuntimeError, OSError) as error:
            raise ExportError(f"AOTInductor cannot compile {entry.name}: {error}") from error
    path.write_bytes(content.getbuffer())


def load_package(path: Path) -> Callable[..., Any]:
    """Read a package onto the CPU."""
    with _quiet():
        return cast(Callable[..., Any], torch._inductor.aoti_load_package(str(path)))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
