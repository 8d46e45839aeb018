"""TorchScript, which torch has deprecated but Triton's backends load: every use of `torch.jit` stands here."""

from __future__ import annotations

import copy
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
    """Record the module's operations; they then work for any batch size, height and width.

    The convolutions' weights are laid out channels last, which makes them faster on CPUs and GPUs alike.
    """
    module = copy.deepcopy(module).eval().to(memory_format=torch.channels_last)
    with _deprecation_silenced(), torch.no_grad():
        # What tracing can get wrong shows on other shapes than the example's: the export's own comparison has those.
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
        """A class of its own for each call, because a ScriptModule's class can have one forward() only."""

    with _deprecation_silenced():
        module = Defined().eval()
        module.define(source)
        return module


def save(module: torch.jit.ScriptModule, path: Path, *, methods: Sequence[str] = ()) -> None:
    """Write a TorchScript file, the weights folded into the graph as constants.

    Args:
        module: what to write.
        path: where to.
        methods: those that can be called on the file's module beside forward().
    """
    frozen = freeze(module, methods=methods)
    with _deprecation_silenced():
        torch.jit.save(frozen, str(path))


def freeze(module: torch.jit.ScriptModule, *, methods: Sequence[str] = ()) -> torch.jit.ScriptModule:
    """Return the module with its weights folded into the graph as constants, and these methods beside forward()."""
    with _deprecation_silenced():
        frozen: torch.jit.ScriptModule = torch.jit.freeze(module, preserved_attrs=list(methods))
        return frozen


def load_torchscript(path: Path, device: str = "cpu") -> torch.jit.ScriptModule:
    """Read a TorchScript file onto a device, the CPU unless told otherwise."""
    with _deprecation_silenced():
        module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device)
        return module
