"""Writes measured results into pages of documentation, each table or sentence between its marks.

    python -m homomorph_bench.page_tables . benchmarks/results

<!-- serving -->
this text is replaced
<!-- end -->
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from homomorph.errors import DataError
from homomorph.evaluation.page import replace_sections
from homomorph.runs.record import METRICS_FILE
from homomorph.text_files import read_json
from homomorph_bench.kernel import BASELINE, COPY, ONE_HOT, OPERATOR
from homomorph_bench.kernel_summary import summarise
from homomorph_bench.results import Record, read
from homomorph_bench.serving.shortcuts import CONCURRENCIES, KNOWN_PICTURES, KNOWN_TARGET, NEW_PICTURES, SLIDER
from homomorph_client.errors import HomomorphError
from homomorph_client.files import write_text

_COST_OF_A_CORE = 0.05
"""Price of a core for an hour, in an example."""
_BUSY = 0.5
"""Average utilisation of the servers of that example."""
_DTYPES = ("float32", "float16", "bfloat16")
_RUNTIMES = {
    "published way": "published way",
    "TorchScript, float32": "torchscript fp32",
    "AOTInductor, float32": "aotinductor fp32",
    "ONNX Runtime, float32": "onnxruntime fp32",
    "OpenVINO, float32": "openvino fp32",
    "TorchScript, bfloat16": "torchscript bf16",
    "AOTInductor, bfloat16": "aotinductor bf16",
    "OpenVINO, bfloat16": "openvino bf16",
    "ONNX Runtime, int8": "onnxruntime int8",
    "OpenVINO, int8": "openvino int8",
}
"""Names in `results.json` of `bench model`, by those in the pages."""
_PUBLISHED, _AVATARS64 = "17 frames of 128x128", "9 frames of 64x64"


def serving(results: Path) -> str:
    """Every system of `bench serving` under each scenario."""
    records = _by_name(results / "serving")
    lines = []
    systems = [name.removesuffix(", SingleStream p50") for name in records if name.endswith(", SingleStream p50")]
    for system in systems:
        p50, p99, offline, p50_at_70, p99_at_70, bounded, overloaded = (
            _value(records, f"{system}, {case}")
            for case in (
                "SingleStream p50",
                "SingleStream p99",
                "Offline",
                "p50 at 70% of its saturating rate",
                "p99 at 70% of its saturating rate",
                "Server, p99 <= 100 ms",
                "within 1 s at 150% of its saturating rate",
            )
        )
        if by_eight := _value(records, f"{system} by 8, Offline"):
            offline += f"; by 8: {by_eight}"
        lines.append([system, p50, p99, offline, p50_at_70, p99_at_70, bounded, overloaded])
    return _table(
        "| | SingleStream, ms: p50 | p99 | Offline, sequences/s | at 70 % of the saturating rate, ms: p50 | p99 "
        "| Server: sequences/s under a p99 of 100 ms | overloaded: answers/s within 1 s |",
        lines,
    )


def serving_known(results: Path) -> str:
    """Time that the server's cache saves, for whole sequences and for a slider's frames."""
    records = _by_name(results / "serving")
    lines = [
        [case, *(_value(records, f"{pictures}, {case}") for pictures in (NEW_PICTURES, KNOWN_TARGET, KNOWN_PICTURES))]
        for case in (*CONCURRENCIES, SLIDER)
    ]
    return _table(f"| ms | {NEW_PICTURES} | {KNOWN_TARGET} | {KNOWN_PICTURES} |", lines)


def serving_cost(results: Path) -> str:
    """Cost of frames for each core that serves morphs, at three rates."""
    records = _by_name(results / "serving")
    environment = next(iter(records.values())).meta["environment"]
    p99 = records["Triton, p99 at 70% of its saturating rate"]
    rates = {
        "a full queue (Offline)": records["Triton, Offline"].value,
        f"70 % of the saturating rate, p99 {p99.value / 1000:.2f} s": p99.meta["offered"],
        "p99 of 100 ms": records["Triton, Server, p99 <= 100 ms"].value,
    }
    lines = []
    for name, rate in rates.items():
        frames = rate * p99.meta["frames"] / environment["cores"]
        cost = _COST_OF_A_CORE * 1e6 / (3600 * frames * _BUSY)
        lines.append([name, f"{rate:.1f}", f"{frames:.0f}", f"{cost:.2f}"])
    return _table(
        "| | sequences/s | frames/s and core "
        f"| cost of 10^6 frames at {_COST_OF_A_CORE} an hour and core, u = {_BUSY} |",
        lines,
    )


def model(results: Path) -> str:
    """The published networks in each runtime, on two machines."""
    machines = [_by_name(results / folder) for folder in ("model", "model-zen3")]
    lines = []
    for label, runtime in _RUNTIMES.items():
        name = f"{runtime}, {_PUBLISHED}"
        cells = [(_value(records, name), _value(records, name, "ratio")) for records in machines]
        lines.append([label, *(cell for pair in cells for cell in pair)])
    return _table("| | Xeon with AMX, ms | times as fast | EPYC, ms | times as fast |", lines)


def model_avatars64(results: Path) -> str:
    """Networks of two sizes, in the runtimes that a server could use."""
    small, published = (_by_name(results / folder) for folder in ("model-avatars64", "model"))
    lines = [
        [
            label,
            _value(small, f"{_RUNTIMES[label]}, {_AVATARS64}"),
            _value(published, f"{_RUNTIMES[label]}, {_PUBLISHED}"),
        ]
        for label in (
            "TorchScript, float32",
            "ONNX Runtime, float32",
            "OpenVINO, float32",
            "TorchScript, bfloat16",
            "OpenVINO, bfloat16",
        )
    ]
    return _table("| | seven branches, 64 px, 9 frames | published, 128 px, 17 frames |", lines)


def branches(results: Path) -> str:
    """The T_i one by one, at once, and folded."""
    small, published = (_by_name(results / folder) for folder in ("model-avatars64", "model"))
    ways = {
        "one by one": "branches one by one",
        "at once": "branches at once",
        "at once, folded": "branches at once, last layers folded",
    }
    lines = [
        [
            label,
            *(_value(published, f"{way}, torchscript {precision}, 17 frames") for precision in ("fp32", "bf16")),
            *(_value(small, f"{way}, torchscript {precision}, 9 frames") for precision in ("fp32", "bf16")),
        ]
        for label, way in ways.items()
    ]
    return _table("| | published, float32 | bfloat16 | seven branches, float32 | bfloat16 |", lines)


def kernel(results: Path) -> str:
    """The operator on a CPU."""
    one_hot = "one-hot against dense, per ratio of bytes"
    memory = f"share of {COPY}'s bandwidth beyond the cache"
    lines = []
    for case, records in _by_dtype_and_size(read(results / "kernel")).items():
        figures = summarise(records)
        bandwidths = [
            f"{figures[f'{memory}, {name}: mean']:.0%}, {figures[f'{memory}, {name}: slowest case']:.0%}"
            if f"{memory}, {name}: mean" in figures
            else ""
            for name in (OPERATOR, ONE_HOT)
        ]
        lines.append(
            [
                *case,
                *_speed_ups(figures),
                f"{figures[f'{one_hot}: geometric mean']:.2f}, {figures[f'{one_hot}: least']:.2f}",
                *(text.replace("%", " %") for text in bandwidths),
            ]
        )
    return _table(
        "| dtype | features | against the fastest of three, slowest case | against `baddbmm`, geometric mean "
        "| one-hot, per ratio of bytes: geometric mean, slowest case "
        "| bandwidth beyond the cache, of `copy_`'s, dense: mean, slowest case | one-hot |",
        lines,
    )


def kernel_h100(results: Path) -> str:
    """The operator on a GPU."""
    lines = []
    for case, records in _by_dtype_and_size(read(results / "kernel-h100")).items():
        calls_us = sorted(1000 * record.value for record in records if record.name.startswith(f"{OPERATOR}, K="))
        least_median_most = (calls_us[0], statistics.median(calls_us), calls_us[-1])
        lines.append([*case, *_speed_ups(summarise(records)), ", ".join(f"{us:.1f}" for us in least_median_most)])
    return _table(
        "| dtype | features | against the fastest of three, slowest case | against `baddbmm`, geometric mean "
        "| microseconds of a call: least, median, most |",
        lines,
    )


def shipped_groups(results: Path) -> str:
    """What each slider of the shipped weights does."""
    figures = _evaluation(results)["homomorph"]
    names = ("transfer", "preservation", "monotonicity", "counterfactual")
    lines = [[group, *(f"{figures[name][group]:.3f}" for name in names)] for group in figures["transfer"]]
    return _table(f"| group | {' | '.join(names)} |", lines)


def shipped_aims(results: Path) -> str:
    """The figures of the shipped weights beside their aims."""
    evaluation = _evaluation(results)
    figures, pixel, meta = evaluation["homomorph"], evaluation["pixel"], evaluation["meta"]
    transfer, background = figures["transfer"].values(), figures["background"]
    groups = figures["ghost_others_0"]
    below = f"below `pixel` ({pixel['frechet']:.1f}) and `frechet_ends` ({meta['frechet_ends']:.1f})"
    lines = [
        ["`transfer`, mean and least", f"{statistics.fmean(transfer):.3f}, {min(transfer):.3f}", "0.99, 0.97"],
        ["`preservation`", f"{statistics.fmean(figures['preservation'].values()):.3f}", "0.995"],
        ["`counterfactual`", f"{statistics.fmean(figures['counterfactual'].values()):.3f}", "0.97"],
        ["`frechet`", f"{figures['frechet']:.1f}", below],
        ["`symmetry`", f"{figures['symmetry']:.3f}", "0.1"],
        ["`endpoint`", f"{figures['endpoint']:.2f}", "1.5"],
        ["`background` reconstruction, morph", f"{background['reconstruction']:.2f}, {background['morph']:.2f}", "0.5"],
        ["`ghost`", f"{figures['ghost']:.2f}", "0.2"],
        ["`ghost_floor`", f"{figures['ghost_floor']:.2f}", "0.2"],
        [
            f"`ghost_others_0` of {', '.join(groups)}",
            ", ".join(f"{value:.2g}" for value in groups.values()),
            "0.3",
        ],
        ["`reconstruction` PSNR", f"{figures['reconstruction']['psnr']:.1f}", "36"],
        ["`jump`", f"{figures['jump']:.2f}", "1.8"],
        ["`shift`", f"{figures['shift']:.3f}", "-0.05"],
    ]
    return _table("| figure | measured | aim |", lines)


def shipped_sliders(results: Path) -> str:
    """What one slider alone reaches, in two sentences."""
    evaluation = _evaluation(results)
    figures, pairs = evaluation["homomorph"], evaluation["meta"]["pairs"]
    transfer, preservation, reached = (
        f"{100 * statistics.fmean(figures[name].values()):.2f} %"
        for name in ("transfer", "preservation", "counterfactual")
    )
    return (
        f"*On {pairs} other pairs, one slider alone brings {transfer} of the labels of its group to b's and keeps "
        f"{preservation} of all other labels. Compared with the true picture, which the built-in set can draw, it "
        f"reaches {reached} of what encoding and decoding that picture would.*"
    )


PAGES: Mapping[str, tuple[Callable[[Path], str], ...]] = {
    "README.md": (shipped_sliders,),
    "docs/deployment.md": (serving_cost,),
    "docs/evaluation.md": (shipped_groups, shipped_aims),
    "docs/export.md": (model,),
    "docs/history/runtimes-2026-11.md": (model_avatars64, branches),
    "docs/operator.md": (kernel, kernel_h100),
    "docs/serving.md": (serving, serving_known),
}
"""Tables and sentences of each page. Each stands between marks with its function's name."""


def with_tables(root: Path, name: str, results: Path) -> str:
    """Return the text of one of `PAGES` with its tables.

    Args:
        root: folder of the pages.
        name: of the page, which has marks for all its tables in `PAGES`.
        results: a folder for each benchmark, with its `results.json`, and one for `metrics.json` of `evaluate`.

    Raises:
        DataError: the page lacks the marks of a table, or a result file is no JSON.
    """
    sections = {table.__name__: table(results) for table in PAGES[name]}
    return replace_sections(root / name, sections)


def _evaluation(results: Path) -> dict[str, Any]:
    """Return what `evaluate` measured, by method."""
    found: dict[str, Any] = read_json(results / "evaluation" / METRICS_FILE, DataError)
    return found


def _by_name(folder: Path) -> dict[str, Record]:
    return {record.name: record for record in read(folder)}


def _value(records: Mapping[str, Record], name: str, field: str = "value") -> str:
    """Return a record's value or ratio to three digits, or no text where it was not measured."""
    if name not in records:
        return ""
    value: float = getattr(records[name], field)
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _by_dtype_and_size(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """Return the operator's records by dtype and size of the features, with both memory formats together."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if case := record.meta.get("case"):
            groups.setdefault((case["dtype"], "x".join(map(str, case["features"]))), []).append(record)
    return dict(sorted(groups.items(), key=lambda item: _DTYPES.index(item[0][0])))


def _speed_ups(figures: Mapping[str, float]) -> list[str]:
    names = ("against the best of three: slowest case", f"against {BASELINE}: geometric mean")
    return [f"{figures[name]:.2f}" for name in names]


def _table(heading: str, lines: Sequence[Sequence[str]]) -> str:
    rule = "|" + " --- |" * (heading.count("|") - 1)
    return "\n".join(
        [heading, rule, *("|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in lines)]
    )


def main() -> None:
    """Write all tables of `PAGES`; if one cannot be made, write none."""
    parser = argparse.ArgumentParser(description="Write measured results into the pages.")
    parser.add_argument("root", type=Path, help="folder of README.md and docs")
    parser.add_argument("results", type=Path, help="folder with a folder of results for each benchmark")
    words = parser.parse_args()
    try:
        texts = {words.root / name: with_tables(words.root, name, words.results) for name in PAGES}
    except (HomomorphError, OSError) as error:
        print(f"page_tables: {error}", file=sys.stderr)
        sys.exit(2)
    for page, text in texts.items():
        write_text(page, text)


if __name__ == "__main__":
    main()
