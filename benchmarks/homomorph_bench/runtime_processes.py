"""Run each runtime in a process of its own, which waits while another one computes.

Within one process, the thread pools of several runtimes would contend for the cores.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from homomorph.models.config import ModelConfig
from homomorph.models.morph import MorphModel
from homomorph.models.pixels import normalise
from homomorph_bench import branches
from homomorph_bench.runtimes import RuntimeModel, runtime_models
from homomorph_bench.timing import Timing, wall_ms
from homomorph_export.ops.interpolate import load_operator
from homomorph_export.parts import exported_parts
from homomorph_export.precision import DTYPES

SEQUENCE = "sequence"
PARTS = ("E", "T", "D")
ALL_BRANCHES = "one frame, all branches"
ONE_BRANCH = "one frame, one branch"
_PICTURES = 16
_PAUSE_S = 0.02
"""Pause before a measurement, until the threads of the previous process have stopped polling for work."""


@dataclass(frozen=True)
class Setup:
    """Settings from which every process creates the same model with random weights, and the same pictures."""

    config: ModelConfig
    frames: int
    threads: int
    folder: Path
    """For exported files."""
    packages: Path | None
    """For AOTInductor's packages instead; None: `folder`."""
    device: str = "cpu"
    """Torch's name of the device of the model and the pictures."""

    def model(self) -> MorphModel:
        """Return the model, with random weights that give the frames contrast."""
        torch.manual_seed(0)
        model = MorphModel(self.config).eval().requires_grad_(False)
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        return model.to(self.device)

    def pictures(self) -> Tensor:
        """Return random pictures, uint8 [N, H, W, 3]; the first two are source and target."""
        size, generator = self.config.picture_size, torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (_PICTURES, size, size, 3), dtype=torch.uint8, generator=generator).to(self.device)

    def ramp(self) -> Tensor:
        """Return strengths from the source to the target, [1, S, K]."""
        return (
            torch.linspace(0, 1, self.frames, device=self.device).view(1, -1, 1).repeat(1, 1, len(self.config.branches))
        )


@dataclass(frozen=True)
class RemoteModel:
    """A model in its runtime's process."""

    name: str
    precision: str
    any_length: bool
    call_worker: Callable[..., Any]
    """Calls a method of the process's `_RuntimeWorker` by name."""

    def morph(self) -> Tensor:
        """Return the frames of the sequence, uint8 [1, S, H, W, 3]."""
        return torch.from_numpy(self.call_worker("morph", self.name))

    def call(self, part: str) -> RemoteCall:
        """Return a call of the sequence, of a part of it, or of one frame."""
        return RemoteCall(self, part)


@dataclass(frozen=True)
class RemoteCall:
    """A call that runs, and is timed, in the model's process."""

    model: RemoteModel
    part: str

    def __call__(self) -> float:
        return self.time_ms(1)

    def time_ms(self, calls: int) -> float:
        """Call it `calls` times; return the milliseconds of one call."""
        time.sleep(_PAUSE_S)
        return float(self.model.call_worker("time_ms", self.model.name, self.part, calls))


def time_ms(candidate: Callable[[], object], calls: int) -> float:
    """Time a candidate in this process, or a `RemoteCall` in its process; for `time_in_turns`."""
    if isinstance(candidate, RemoteCall):
        return candidate.time_ms(calls)
    time.sleep(_PAUSE_S)
    return wall_ms(candidate, calls)


@contextmanager
def start_runtime(runtime: str, setup: Setup) -> Iterator[Sequence[RemoteModel]]:
    """Start a runtime's process, and end it when the context is left.

    Args:
        runtime: one of `torchscript`, `onnxruntime`, `openvino` and `aotinductor`.
        setup: the model and the pictures.

    Raises:
        BrokenProcessPool: the process ended.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start_worker, (runtime, setup)) as pool:

        def call_worker(*method_and_arguments: Any) -> Any:
            return pool.submit(_call_worker, *method_and_arguments).result()

        described = call_worker("describe")
        yield [RemoteModel(name, precision, any_length, call_worker) for name, precision, any_length in described]


def _start_worker(runtime: str, setup: Setup) -> None:
    """Begin a runtime's process: export the model and load it."""
    global _worker
    torch.set_num_threads(setup.threads)
    torch.backends.cudnn.allow_tf32 = False  # as in the served models
    load_operator()
    _worker = _RuntimeWorker(runtime, setup)


@torch.inference_mode()
def _call_worker(method: str, *arguments: Any) -> Any:
    """Call a method of this process's worker."""
    return getattr(_worker, method)(*arguments)


class _RuntimeWorker:
    """The models of one runtime, and the calls to time."""

    def __init__(self, runtime: str, setup: Setup) -> None:
        self.setup, self.model, self.pictures = setup, setup.model(), setup.pictures()
        source, target, ramp = self.pictures[:1], self.pictures[1:2], setup.ramp()
        with torch.no_grad():
            models = runtime_models(
                runtime,
                self.model,
                setup.folder,
                packages=setup.packages,
                pictures=self.pictures,
                example=(source, target, ramp),
            )
            self.models = {model.name: model for model in models}
            self.calls = {name: self._calls(model, source, target, ramp) for name, model in self.models.items()}

    def describe(self) -> list[tuple[str, str, bool]]:
        return [(model.name, model.precision, model.any_length) for model in self.models.values()]

    def morph(self, name: str) -> Any:
        return self.calls[name][SEQUENCE]().cpu().numpy()

    def time_ms(self, name: str, part: str, calls: int) -> float:
        return wall_ms(self.calls[name][part], calls)

    def branches(self, precision: str, frames: int, repeats: int) -> dict[str, Timing]:
        """Time the branches one by one and as one joint network, on the last frames of the sequence."""
        features = self.model.encoder(normalise(self.pictures[:2].permute(0, 3, 1, 2), self.setup.config.network))
        parts, strengths = exported_parts(self.model, None, DTYPES[precision]), self.setup.ramp()[:, -frames:]
        return branches.time_branches(parts, DTYPES[precision], features[:1], features[1:], strengths, repeats=repeats)

    @staticmethod
    def _calls(model: RuntimeModel, source: Tensor, target: Tensor, ramp: Tensor) -> dict[str, Callable[[], Tensor]]:
        features = model.encode(source, target)
        mixed = model.interpolate(*features, ramp)
        half = torch.full_like(ramp[:, :1], 0.5)
        one_branch = half.clone()
        one_branch[..., 1:] = 0
        return {
            SEQUENCE: lambda: model.morph(source, target, ramp),
            "E": lambda: model.encode(source, target)[0],
            "T": lambda: model.interpolate(*features, ramp),
            "D": lambda: model.decode(mixed),
            ALL_BRANCHES: lambda: model.decode(model.interpolate(*features, half)),
            ONE_BRANCH: lambda: model.decode(model.interpolate(*features, one_branch)),
        }


_worker: _RuntimeWorker
"""The worker of this process, if it is a runtime's process."""
