"""Works on whole folders with Ray Data, in any number of processes, on one machine or several.

homomorph batch faces --out /shared/edited --run avatars64 --set glasses=round_glasses --engine ray --workers 8

All machines must see the folders at the same paths. If a process dies, Ray repeats its items in another one. Each
result appears whole or not at all, and existing results are skipped, so no result is written twice.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import ray

from homomorph.batch import Format, Item, Outcome, Work, check_results, folder_items, make, row_item
from homomorph.data.parquet_pictures import count_row_groups, read_rows
from homomorph.errors import DataError
from homomorph.progress import Progress, Report, silent

_FILES_PER_TASK = 4


class _Worker:
    """Holds the model in one of Ray's processes, and makes the results of a few items at a time."""

    def __init__(self, work: Work, out: str, kind: Format, settings: str) -> None:
        self._stack = ExitStack()
        self._compute = self._stack.enter_context(work.open())
        self._out, self._kind, self._settings = Path(out), kind, settings

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take a few files, each a picture or a row group of parquet; return the status of each picture."""
        names, statuses = [], []
        for name, file, group in zip(batch["name"], batch["file"], batch["row_group"], strict=True):
            path = Path(str(file))
            rows = (row_item(row, path) for row in read_rows(path, row_group=int(group)))
            for item in rows if group >= 0 else [Item(str(name), (path,))]:
                names.append(item.name)
                statuses.append(make(item, self._compute, self._out, self._kind, self._settings))
        return {"name": np.array(names, dtype=object), "status": np.array(statuses, dtype=object)}


def run_on_ray(
    folder: Path, work: Work, out: Path, *, kind: Format = "png", workers: int = 2, report: Report = silent
) -> Outcome:
    """Make the results of a folder's pictures, or of the pictures in its parquet files, on a cluster of Ray's.

    The cluster is the one at `RAY_ADDRESS`, else one is started on this machine and stopped again.

    Args:
        folder: pictures, or parquet files.
        work: the work on each picture.
        out: folder of results, see `homomorph.batch.check_results`.
        kind: form of each result.
        workers: processes with a model each.
        report: called after each item.

    Raises:
        DataError: `out` holds something else, or there are no pictures.
        HomomorphError: the work cannot go on; what was written stays, and the next run goes on from there.
    """
    settings = check_results(out, work, kind)
    first = next(iter(folder_items(folder)))
    started = not ray.is_initialized()
    if started:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # `report` shows the progress
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        total: int | None = None
        if isinstance(first.pictures[0], bytes):
            files = [
                {"name": "", "file": str(file.absolute()), "row_group": group}
                for file in sorted(folder.rglob("*.parquet"))
                for group in range(count_row_groups(file))
            ]
        else:
            files = [
                {"name": item.name, "file": str(Path(str(item.pictures[0])).absolute()), "row_group": -1}
                for item in folder_items(folder)
            ]
            total = len(files)
        results = ray.data.from_items(files, override_num_blocks=-(-len(files) // _FILES_PER_TASK)).map_batches(
            _Worker,
            fn_constructor_args=(work, str(out.absolute()), kind, settings),
            batch_size=_FILES_PER_TASK,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
        )
        outcome = Outcome()
        for done, row in enumerate(results.iter_rows(), start=1):
            outcome.add(row["name"], row["status"])
            report(Progress("pictures", done, total))
        return outcome
    except ray.exceptions.RayError as error:
        cause = str(getattr(error, "cause", None) or error).strip().splitlines()
        raise DataError(f"Ray could not go on: {cause[-1] if cause else error}") from error
    finally:
        if started:
            ray.shutdown()
