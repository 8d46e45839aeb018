"""F = F_a + sum_i v_i * T_i(F_b - F_a) for many strength vectors at once: the operator `homomorph::interpolate`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor

from homomorph.models import morph
from homomorph_export.errors import OperatorError
from homomorph_export.ops import library
from homomorph_export.ops.build import build, library_path

Implementation = Literal["auto", "reference", "native"]


def interpolate(source: Tensor, deltas: Tensor, strengths: Tensor, *, impl: Implementation = "auto") -> Tensor:
    """Add every branch's output to the source's features, scaled by its strength.

    Args:
        source: features of the source picture, [B, C, h, w]; float32, float64, float16 or bfloat16.
        deltas: outputs of the K branches, [B, K, C, h, w], of the same dtype.
        strengths: v, [B, S, K], of the same dtype.
        impl: `native` is the fused operator; its library is built if it is missing. It sums 16-bit numbers in 32 bits,
            does not read deltas of strength 0, and returns the source's memory format (channels last or contiguous);
            tensors in other layouts are copied first. `reference` is the definition in plain torch. `auto` is `native`
            if its library is built and has a kernel for the device, else `reference`.

    Returns:
        Features [B, S, C, h, w]; differentiable twice with respect to all three.

    Raises:
        OperatorError: the native operator's library cannot be built or loaded, or has no kernel for the device.
        RuntimeError: shapes, dtypes or devices do not fit each other.
    """
    if impl == "reference" or (impl == "auto" and not (library.is_loaded() or library_path().exists())):
        return morph.interpolate(source, deltas, strengths)
    native = load_operator()
    if library.has_kernel(source.device.type):
        return native(source, deltas, strengths)
    if impl == "auto":
        return morph.interpolate(source, deltas, strengths)
    raise OperatorError(
        f"the operator's library has no kernel for {source.device.type}: for cuda, build it where there are a torch "
        "with CUDA and nvcc (`python -m homomorph_export.ops.build`)"
    )


@functools.cache
def load_operator() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the native operator, its library built and loaded and its Python half registered.

    Raises:
        OperatorError: the library cannot be built or loaded.
    """
    if not library.is_loaded():
        library.load_library(build())
    torch.library.register_fake("homomorph::interpolate", _fake)
    torch.library.register_autograd("homomorph::interpolate", _backward, setup_context=_setup_context)
    return cast(Callable[[Tensor, Tensor, Tensor], Tensor], torch.ops.homomorph.interpolate.default)


def _fake(source: Tensor, deltas: Tensor, strengths: Tensor) -> Tensor:
    """Return an empty tensor with the result's shape, dtype and layout."""
    batch, steps, _ = strengths.shape
    last = not source.is_contiguous() and source.is_contiguous(memory_format=torch.channels_last)
    frames = torch.empty(
        (batch * steps, *source.shape[1:]),
        dtype=source.dtype,
        device=source.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )
    return frames.view(batch, steps, *source.shape[1:])


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    _, deltas, strengths = inputs
    ctx.save_for_backward(deltas, strengths)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients, made of differentiable operations so that they have gradients themselves."""
    deltas, strengths = ctx.saved_tensors
    needs_source, needs_deltas, needs_strengths = ctx.needs_input_grad
    return (
        grad.sum(dim=1) if needs_source else None,
        torch.einsum("bsk,bschw->bkchw", strengths, grad) if needs_deltas else None,
        torch.einsum("bschw,bkchw->bsk", grad, deltas) if needs_strengths else None,
    )
