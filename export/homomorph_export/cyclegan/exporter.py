"""From CycleGANs' run folders to a Triton model repository: trace, compare, write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.progress import Progress, Report, silent
from homomorph.runs.cyclegan import load_translator
from homomorph_client.names import TRANSLATE
from homomorph_export import contract, onnx_graphs, torchscript
from homomorph_export.cyclegan import parity
from homomorph_export.cyclegan.formats import onnx_models, torchscript_models
from homomorph_export.errors import ExportError
from homomorph_export.manifest import Manifest, versions
from homomorph_export.precision import DTYPES, IN_ONNX, IN_TORCHSCRIPT
from homomorph_export.repository import ONNX_FILE, TORCHSCRIPT_FILE, hashes, publish, staging, write_model

PRECISIONS = ("fp32", "bf16", "fp16")


def export_cyclegans(
    runs: Sequence[Path],
    repository: Path,
    *,
    precision: str = "fp32",
    onnx: bool = True,
    threads: int | None = None,
    report: Report = silent,
) -> Manifest:
    """Write the generators of CycleGANs as a Triton model repository.

    Models of another method that the repository holds stay; those of an earlier export of CycleGANs are replaced.

    Args:
        runs: run folders, whose directions can then follow each other in one request.
        repository: the folder to write into; made if it is not there.
        precision: number format of weights and arithmetic: fp32, bf16, fp16. Formats that lack it stay at fp32.
        onnx: whether to write ONNX beside TorchScript.
        threads: how many threads one operation of a model may use; None as for `export_run`.
        report: called with what is done next.

    Returns:
        What was written, and how exact it is.

    Raises:
        CheckpointError: a run is missing or damaged, or not a CycleGAN's.
        ConfigError: two runs have a direction of the same name, or were trained at different sizes.
        ExportError: the files do not compute what the runs compute, or the repository has foreign folders in the way,
            or the precision is not offered.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"precision {precision!r} is not offered for CycleGANs: choose {', '.join(PRECISIONS)}")
    translator = load_translator(runs)
    entries = {entry.name: entry for entry in contract.translation_models(translator.strides)}
    size, stride = translator.picture_size, max(translator.strides.values())
    client_parameters = {
        "directions": ",".join(translator.directions),
        "picture_size": str(size),
        "stride": str(stride),
        "max_picture_size": str(contract.MAX_PICTURE_SIZE),
        "max_pixels": str(contract.MAX_PIXELS),
        "max_steps": str(contract.MAX_CHAIN),
    }
    with staging(repository) as staged:
        modules = torchscript_models(translator, DTYPES[IN_TORCHSCRIPT[precision]], report)
        graphs = onnx_models(translator, DTYPES[IN_ONNX[precision]], entries, report) if onnx else {}
        for name, entry in entries.items():
            report(Progress(f"Writing {name}"))
            write_model(
                staged / name,
                entry,
                modules[name],
                graphs.get(name),
                # Every direction once.
                lengths={"H": size, "W": size, "S": len(translator.directions)},
                threads=threads,
                client_parameters=client_parameters if name == TRANSLATE else {},
            )
        report(Progress("Comparing with the runs"))
        # Read back, so that the comparison is of what the server will load.
        read = {name: torchscript.load(staged / name / TORCHSCRIPT_FILE) for name in modules}
        measured = {
            "torchscript": parity.compare(translator, read, kind="TorchScript", precision=IN_TORCHSCRIPT[precision])
        }
        if onnx:
            sessions = {name: onnx_graphs.load(staged / name / ONNX_FILE) for name in graphs}
            measured["onnx"] = parity.compare(translator, sessions, kind="ONNX", precision=IN_ONNX[precision])
        manifest = Manifest(
            method=CycleGANConfig.method,
            directions=translator.directions,
            picture_size=size,
            stride=stride,
            precision=precision,
            versions=versions(onnx=onnx),
            models=tuple(entries),
            files=hashes(staged),
            parity=measured,
        )
        publish(staged, repository, manifest)
    return manifest
