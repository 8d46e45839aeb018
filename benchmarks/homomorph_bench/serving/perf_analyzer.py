"""NVIDIA's perf_analyzer on the same server, as a check of our own load generator."""

from __future__ import annotations

import asyncio
import csv
import tempfile
from pathlib import Path

from homomorph_bench.serving.systems import Inputs
from homomorph_client.errors import ServerError

_WINDOWS = 10
"""perf_analyzer gives up after this many measurements if no three in a row agree."""
_STABLE_PERCENT = 20
"""Largest difference between three measurements that agree."""


async def rate(program: Path, url: str, inputs: Inputs, *, concurrency: int, window_s: float) -> float:
    """Return the sequences a second that perf_analyzer measures for the model `morph`.

    Args:
        program: the executable perf_analyzer, or a script that runs it.
        url: host:port of Triton's gRPC.
        inputs: of one request, one sequence.
        concurrency: requests on their way at any time.
        window_s: length of each measurement.

    Raises:
        ServerError: the program failed.
    """
    with tempfile.TemporaryDirectory(prefix="homomorph-perf-analyzer-") as scratch:
        table, data = Path(scratch) / "table.csv", Path(scratch) / "data"
        data.mkdir()
        words = ["-m", "morph", "-i", "grpc", "-u", url, "--input-data", str(data), "-f", str(table)]
        for name, array in inputs.arrays().items():
            array[0].tofile(data / name)
            words += ["--shape", f"{name}:{','.join(map(str, array.shape[1:]))}"]
        words += ["--concurrency-range", f"{concurrency}:{concurrency}:1", "-p", str(int(window_s * 1e3))]
        words += ["-s", str(_STABLE_PERCENT), "-r", str(_WINDOWS)]
        try:
            process = await asyncio.create_subprocess_exec(
                program, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
        except OSError as error:
            raise ServerError(f"{program} does not run: {error.strerror}") from error
        output, _ = await process.communicate()
        rows = list(csv.DictReader(table.read_text().splitlines())) if table.exists() else []
        if process.returncode or not rows:
            (*_, last) = output.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise ServerError(f"{program} measured nothing (exit code {process.returncode}): {last}")
        return float(rows[0]["Inferences/Second"])
