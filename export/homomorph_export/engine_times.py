"""Time E and D of a morph in each engine, and compare the frames:

    python engine_times.py JSON

The JSON has the arguments of `measure`; its result is printed as JSON. This runs in a process of its own and imports
nothing else of this package, which would load gRPC: with OpenVINO and gRPC in one process, Python crashed later on.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from engines import load
from torch.nn.functional import interpolate

_ROUNDS = 4
"""Number of times that each engine is timed, in turns with the others; the shortest time counts."""


def measure(files: Mapping[str, Sequence[str]], size: Sequence[int], precision: str) -> dict[str, dict[str, float]]:
    """Measure the engines on one thread.

    The times are the processor's, so that other work on the machine hardly changes them.

    Args:
        files: files of the encoder and the decoder, by engine; `torchscript` must be one of the engines.
        size: height and width of the pictures.
        precision: the export's number format.

    Returns:
        By engine: `ms`, the milliseconds of E and D of a morph of 9 frames, and `mean` and `max`, the difference of its
        frames to those of TorchScript in grey levels. Engines that fail are left out.
    """
    torch.set_num_threads(1)
    timers: dict[str, timeit.Timer] = {}
    frames: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for name, paths in files.items():
            # Each runtime has its own errors. TorchScript must not fail: all others are compared with it.
            with contextlib.suppress(*([] if name == "torchscript" else [Exception])):
                morph = _morph([_load(name, Path(path), precision) for path in paths], size)
                frames[name] = morph().double()
                timers[name] = timeit.Timer(morph, timer=time.process_time)
        calls = {name: timer.autorange()[0] for name, timer in timers.items()}
        times_ms = dict.fromkeys(timers, math.inf)
        for _ in range(_ROUNDS):
            for name, timer in timers.items():
                times_ms[name] = min(times_ms[name], 1000 * timer.timeit(calls[name]) / calls[name])
    differences = {name: (those - frames["torchscript"]).abs() for name, those in frames.items()}
    return {
        name: {"ms": times_ms[name], "mean": float(difference.mean()), "max": float(difference.max())}
        for name, difference in differences.items()
    }


def _load(name: str, file: Path, precision: str) -> Any:
    if name == "torchscript":
        return torch.jit.load(file)
    return load(name, file, threads=1, precision=precision)


def _morph(parts: Sequence[Callable[..., Any]], size: Sequence[int]) -> Callable[[], torch.Tensor]:
    """Return a function that encodes two pictures and decodes three frames three times, as `MorphRunner` does."""
    encode, decode = parts
    noise = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 255
    pictures = interpolate(noise, tuple(size), mode="bilinear").to(torch.uint8).movedim(1, -1).contiguous()
    strengths = torch.linspace(0, 1, 3).view(3, 1, 1, 1)

    def morph() -> torch.Tensor:
        source, target = (encode(picture) for picture in pictures.split(1))
        between = torch.lerp(source, target, strengths).unsqueeze(1)
        return torch.cat([decode(between) for _ in range(3)])

    return morph


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
