"""The same on Ray Data: any number of processes and machines, and one that dies loses nothing.

homomorph batch faces --out /shared/edited --run avatars64 --set glasses=round_glasses --engine ray --workers 8

All machines see the folders at the same paths. Each result is written under another name and renamed, and is skipped
where it is there, so an item that Ray tries again after a worker died is written once.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import ray

from homomorph.batch import Format, Item, Outcome, Work, count, folder_items, make, prepare, row_item
from homomorph.errors import DataError
from homomorph.progress import Progress, Report, silent

_TOGETHER = 4
"""Items of one task."""


class _Worker:
    """Holds the model in one of Ray's processes, and makes the results of a few items at a time."""

    def __init__(self, work: Work, out: str, kind: Format) -> None:
        self._stack = ExitStack()
        self._compute = self._stack.enter_context(work.open())
        self._out, self._kind = Path(out), kind

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take a few rows: names of files, or rows of parquet; return what became of each."""
        columns = list(batch)
        names, said = [], []
        for values in zip(*batch.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            if "homomorph_file" in row:
                item = Item(str(row["homomorph_name"]), (Path(str(row["homomorph_file"])),))
            else:
                item = row_item(row, "a parquet file")
            names.append(item.name)
            said.append(make(item, self._compute, self._out, self._kind))
        return {"name": np.array(names, dtype=object), "said": np.array(said, dtype=object)}


def run_on_ray(
    folder: Path, work: Work, out: Path, *, kind: Format = "png", workers: int = 2, report: Report = silent
) -> Outcome:
    """Make the results of a folder's pictures, or of the pictures in its parquet files, on a cluster of Ray's.

    The cluster is the one at `RAY_ADDRESS`, else one is started on this machine and stopped again.

    Args:
        folder: pictures, or parquet files.
        work: what to do.
        out: folder of results, see `homomorph.batch.prepare`.
        kind: what each result is.
        workers: processes with a model each.
        report: called after each item.

    Raises:
        DataError: `out` holds something else, or there are no pictures.
        HomomorphError: the work cannot go on; what was written stays, and the next run goes on from there.
    """
    prepare(out, work, kind)
    first = next(iter(folder_items(folder)))
    started = not ray.is_initialized()
    if started:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        total: int | None = None
        if isinstance(first.pictures[0], bytes):
            rows = ray.data.read_parquet([str(file) for file in sorted(folder.rglob("*.parquet"))])
        else:
            items = [
                {"homomorph_name": item.name, "homomorph_file": str(Path(str(item.pictures[0])).absolute())}
                for item in folder_items(folder)
            ]
            total = len(items)
            rows = ray.data.from_items(items, override_num_blocks=max(workers, -(-len(items) // _TOGETHER)))
        results = rows.map_batches(
            _Worker,
            fn_constructor_args=(work, str(out.absolute()), kind),
            batch_size=_TOGETHER,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
        )
        outcome = Outcome()
        for done, row in enumerate(results.iter_rows(), start=1):
            count(outcome, row["name"], row["said"])
            report(Progress("pictures", done, total))
        return outcome
    except ray.exceptions.RayError as error:
        cause = str(getattr(error, "cause", None) or error).strip().splitlines()
        raise DataError(f"Ray could not go on: {cause[-1] if cause else error}") from error
    finally:
        if started:
            ray.shutdown()
