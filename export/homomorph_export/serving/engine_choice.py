"""Choose the runtime that computes E and D of `morpher`: check a named one, or measure all of them.

The times are kept beside the repository, in `NAME.engines.json`, for each machine. The engines are measured again after
a new export, with another version of a runtime, and on another machine.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from homomorph.environment import cpu_name
from homomorph.progress import Progress, Report, silent
from homomorph.text_files import read_json
from homomorph_client.errors import OutputError, ServerError
from homomorph_client.files import sha256, write_text
from homomorph_client.names import MORPH
from homomorph_client.version import install_hint
from homomorph_export.configuration import read_config
from homomorph_export.contract import MANIFEST_FILE
from homomorph_export.flavours import LIBTORCH, ONNX, PYTHON, Flavour

_LOGGER = logging.getLogger(__name__)

AUTO, TORCHSCRIPT = "auto", "torchscript"
_EXTRAS = {"onnxruntime": "export", "openvino": "openvino"}
"""Engine, which is also its package's name -> extra that installs it."""
_MORPHER = "morpher"
"""The served model whose E and D an engine computes."""
_MEASURING_TIMEOUT_S = 600.0
"""Longest time of a measurement. It usually takes some seconds, and minutes with large pictures on a slow machine."""


def check_engine(
    engine: str, repository: Path | None, models: Sequence[str], flavour: Flavour, gpus: Sequence[int]
) -> None:
    """Check, before the server starts, that it can compute with an engine.

    Args:
        engine: `auto`, `torchscript`, or one of `_EXTRAS`.
        repository: folder that `homomorph export` wrote; None if it will be written, with ONNX.
        models: the models that are served.
        flavour: which of Triton's backends runs them.
        gpus: numbers of the GPUs that they are placed on.

    Raises:
        ServerError: the engine is not installed, its files are missing, or it would have nothing to compute.
    """
    if engine == TORCHSCRIPT:
        return
    if flavour is not PYTHON:
        raise ServerError(f"engine {engine} is for the flavour python, not for {flavour.name}: leave out --engine")
    if gpus:
        raise ServerError(f"engine {engine} computes on the CPU: leave out --engine, or give --gpus none")
    if not {MORPH, _MORPHER} & set(models):
        raise ServerError(f"engine {engine} is for the model {MORPH}, which is not served: leave out --engine")
    if engine == AUTO:
        return
    if find_spec(engine) is None:
        raise ServerError(f"for engine {engine}, {install_hint(_EXTRAS[engine])}: {engine} is not installed")
    if repository and (missing := _missing_files(repository)):
        raise ServerError(
            f"engine {engine} needs {missing[0]}, which does not exist: write the repository again with "
            "`homomorph export`, without --no-onnx"
        )


def measured_engines(repository: Path, *, cores: int, report: Report = silent) -> dict[str, float]:
    """Return the time that each engine takes for E and D of a morph of 9 frames.

    The engines are measured unless they have been before, on this machine.

    Args:
        repository: folder that `homomorph export` wrote.
        cores: number of cores of the server.
        report: called before a measurement.

    Returns:
        Milliseconds on one thread, by engine. Engines that are not installed or have no files are left out, and those
        that compute other frames than TorchScript. Empty if there is no other engine than TorchScript, or if the
        measurement takes longer than `_MEASURING_TIMEOUT_S`; the latter is logged, and nothing is kept.

    Raises:
        ServerError: the measurement failed.
    """
    repository = repository.resolve()
    others = [name for name in _EXTRAS if find_spec(name)]
    if not others or _missing_files(repository):
        return {}
    machine = ", ".join([cpu_name(), f"{cores} cores", *(f"{name} {version(name)}" for name in ("torch", *others))])
    path = repository.with_name(f"{repository.name}.engines.json")
    manifest = sha256(repository / MANIFEST_FILE)
    machines = _kept(path, manifest)
    if machine not in machines:
        report(Progress(f"Measuring {', '.join([TORCHSCRIPT, *others])}, once on this machine"))
        try:
            machines[machine] = _measure(repository, others)
        except subprocess.TimeoutExpired:
            limit = f"{_MEASURING_TIMEOUT_S:g} s"
            _LOGGER.warning("the engines could not be measured within %s: TorchScript computes", limit)
            return {}
        try:
            write_text(path, json.dumps({"manifest": manifest, "machines": machines}, indent=2) + "\n")
        except OutputError as error:
            _LOGGER.warning("the next start measures again: %s", error)
    return machines[machine]


def _kept(path: Path, manifest: str) -> dict[str, dict[str, float]]:
    """Return earlier measurements of the same export, by machine; none if the file is damaged."""
    try:
        kept = read_json(path, ValueError)
        if kept["manifest"] != manifest:
            return {}
        return {
            machine: {name: float(times[name]) for name in (TORCHSCRIPT, *_EXTRAS) if name in times}
            for machine, times in kept["machines"].items()
            if TORCHSCRIPT in times
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _version_folders(repository: Path) -> dict[str, Path]:
    """Return the newest version folder of `morpher`, and those of its parts, which have the same version."""
    versions = [int(path.name) for path in (repository / _MORPHER).glob("*") if path.name.isdecimal()]
    return {name: repository / name / str(max(versions, default=1)) for name in (_MORPHER, "encoder", "decoder")}


def _missing_files(repository: Path) -> list[Path]:
    """Return the files that engines other than TorchScript need and that do not exist."""
    folders = _version_folders(repository)
    # A repository of an earlier version has no engines.py, and its backend would compute in TorchScript.
    files = [folders.pop(_MORPHER) / "engines.py", *(folder / ONNX.model_file for folder in folders.values())]
    return [file for file in files if not file.is_file()]


def _measure(repository: Path, names: Sequence[str]) -> dict[str, float]:
    """Measure TorchScript and other engines in a process of its own; return as `measured_engines` does.

    Raises:
        ServerError: the process failed.
        subprocess.TimeoutExpired: it took longer than `_MEASURING_TIMEOUT_S`, and was killed.
    """
    from homomorph_export.precision import TOLERANCES  # imports torch, which takes seconds

    config = read_config(repository / _MORPHER / PYTHON.config_file)
    precision = config.parameters["precision"].string_value
    height, width, _ = config.model_warmup[0].inputs["SOURCE"].dims
    _, *folders = _version_folders(repository).values()
    file_names = {TORCHSCRIPT: LIBTORCH.model_file} | dict.fromkeys(names, ONNX.model_file)
    files = {name: [str(folder / file) for folder in folders] for name, file in file_names.items()}
    arguments = json.dumps({"files": files, "size": [height, width], "precision": precision})
    program = resources.files("homomorph_export") / "engine_times.py"
    # Without warnings: the last line of stderr is reported as the reason of a failure.
    command = [sys.executable, "-W", "ignore", str(program), arguments]
    ended = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_MEASURING_TIMEOUT_S,
    )
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
        raise ServerError(f"the engines cannot be measured ({reason}): choose one with --engine")
    found = json.loads(ended.stdout.splitlines()[-1])
    tolerance = TOLERANCES[precision]
    usable = [name for name in found if tolerance.allows(found[name]["mean"], found[name]["max"])]
    for name in names:
        if name not in usable:
            _LOGGER.warning("engine %s is not used: it fails, or its frames are not those of TorchScript", name)
    return {name: float(found[name]["ms"]) for name in usable}
