"""Every use of `torch.jit`. Torch has deprecated TorchScript, but Triton's backends load it."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn


@contextmanager
def _deprecation_silenced() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=FutureWarning)
        yield


def trace(module: nn.Module, *example: Tensor) -> torch.jit.ScriptModule:
    """Record the module's operations. They then work for any batch size, height and width.

    The convolutions' weights are laid out channels last, which makes them faster on CPUs and GPUs alike.
    """
    module = copy.deepcopy(module).eval().to(memory_format=torch.channels_last)
    with _deprecation_silenced(), torch.no_grad():
        # Tracing errors appear with other shapes than the example's. The export's comparison tests other shapes.
        warnings.filterwarnings("ignore", message="Converting a tensor to a Python boolean")
        traced: torch.jit.ScriptModule = torch.jit.trace(module, example, check_trace=False)
        return traced


def script(module: nn.Module) -> torch.jit.ScriptModule:
    """Compile a module whose control flow depends on its inputs."""
    with _deprecation_silenced():
        scripted: torch.jit.ScriptModule = torch.jit.script(module.eval())
        return scripted


def define(source: str) -> torch.jit.ScriptModule:
    """Compile a module without weights from the source of its forward(), for arguments known only at run time."""

    class Defined(torch.jit.ScriptModule):
        """A new class for each call, because a ScriptModule class can have only one forward()."""

    with _deprecation_silenced():
        module = Defined().eval()
        module.define(source)
        return module


def save(module: torch.jit.ScriptModule, path: Path, *, methods: Sequence[str] = ()) -> None:
    """Write a TorchScript file, the weights folded into the graph as constants.

    Args:
        module: what to write.
        path: the file.
        methods: names of the methods, besides forward(), that the file keeps.
    """
    frozen = freeze(module, methods=methods)
    content = io.BytesIO()  # torch's own writer ends the process if the disk is full
    with _deprecation_silenced():
        torch.jit.save(frozen, content)
    path.write_bytes(content.getbuffer())


def freeze(module: torch.jit.ScriptModule, *, methods: Sequence[str] = ()) -> torch.jit.ScriptModule:
    """Return the module with its weights as constants in the graph. It keeps forward() and these methods."""
    with _deprecation_silenced():
        frozen: torch.jit.ScriptModule = torch.jit.freeze(module, preserved_attrs=list(methods))
        return frozen


def load_torchscript(path: Path, device: str = "cpu") -> torch.jit.ScriptModule:
    """Read a TorchScript file onto a device, by default the CPU."""
    with _deprecation_silenced():
        module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device)
        return module
