"""The work of `morph`, `edit`, `translate` and `batch`: on a picture or a pair, and on whole folders."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import typer

from homomorph_cli.options import Server, check_no_server, morpher
from homomorph_cli.progress import announcing, progress_display
from homomorph_client import DirectionError, HomomorphError, SettingsError
from homomorph_client.methods import blending_model
from homomorph_client.names import EDIT, HOMOMORPH, Method
from homomorph_client.output import check_output, write_output
from homomorph_client.pictures import fit_picture, load_picture
from homomorph_client.served_model import ServedModel, check_names
from homomorph_client.strengths import even_ramp, to_strengths

if TYPE_CHECKING:
    from homomorph.batch import Compute, Format, Item, Outcome

DEFAULT_FORMAT: Format = "png"
"""Format of each result of a folder."""
_CONCURRENCY = 4
"""Number of concurrent requests for the items of a folder."""

FormatOption = Annotated[
    Literal["png", "gif", "mp4", "frames"] | None,
    typer.Option(
        "--format",
        show_default="png",
        help="With folders: form of each result: all frames side by side, a loop, a film, or a folder of pictures.",
    ),
]

FullSizeOption = Annotated[
    bool,
    typer.Option(
        "--full-size",
        help="Frames of the pictures' own size (at most 2048), with their own details wherever a frame shows them.",
    ),
]


@dataclass(frozen=True)
class _Work:
    """Work on each picture or pair, by a server or by runs in this process."""

    name: ClassVar[str]
    server: Server
    run: str | Sequence[str] | None
    """One or several runs that compute here; none if a server computes."""

    @property
    def asks_server(self) -> bool:
        """Whether a server computes."""
        return not self.run

    def settings(self) -> dict[str, Any]:
        """Return the settings that the results depend on."""
        return {"work": self.name, **{name: value for name, value in vars(self).items() if name != "server"}}


@dataclass(frozen=True)
class MorphWork(_Work):
    """A picture becomes another; where `target` is given, each picture becomes that one."""

    name = "morph"
    run: str | None
    ends: dict[str, float]
    """Strength of each group at the end; none is 1 of all."""
    steps: int
    method: Method = HOMOMORPH
    target: str | None = None
    full_size: bool = False
    """Whether the frames have the pictures' own size and details."""

    @contextlib.contextmanager
    def open(self) -> Iterator[Compute]:
        """Connect to the server, or load the run."""
        with morpher(self.server, self.run) as model:
            served = model.served_model(blending_model(self.method))
            strengths = slider_strengths(served, self.ends, self.steps)
            others = () if self.target is None else (load_picture(self.target),)
            if self.full_size:
                yield lambda pictures: model.morph_full_size(*pictures, *others, strengths=strengths)
            else:
                yield lambda pictures: model.morph(*pictures, *others, strengths=strengths, method=self.method)


@dataclass(frozen=True)
class EditWork(_Work):
    """A picture gets labels."""

    name = "edit"
    run: str | None
    labels: dict[str, list[str]]
    ends: dict[str, float]
    steps: int
    full_size: bool = False
    """As of `MorphWork`."""

    @contextlib.contextmanager
    def open(self) -> Iterator[Compute]:
        """Connect to the server, or load the run."""
        with morpher(self.server, self.run) as model:
            ramp = even_ramp(model.served_model(EDIT), self.steps)
            strengths = {group: end * ramp for group, end in self.ends.items()}
            edit = model.edit_full_size if self.full_size else model.edit
            yield lambda pictures: edit(pictures[0], self.labels, strengths=strengths)


@dataclass(frozen=True)
class TranslateWork(_Work):
    """A picture is changed by CycleGANs, in one direction after the other."""

    name = "translate"
    run: Sequence[str]
    directions: list[str]

    @contextlib.contextmanager
    def open(self) -> Iterator[Compute]:
        """Connect to the server, or load the runs."""
        if not self.run:
            with self.server.client() as client:
                yield lambda pictures: client.translate(pictures[0], self.directions)
            return
        check_no_server(self.server)
        from homomorph.runs.cyclegan import load_translator
        from homomorph.runs.run import resolve_run

        model = load_translator([resolve_run(run) for run in self.run])
        check_names(self.directions, model.directions, "direction", DirectionError)
        yield lambda pictures: model.chained(fit_picture(pictures[0], model.picture_size), self.directions)


Work: TypeAlias = MorphWork | EditWork | TranslateWork


def slider_strengths(model: ServedModel, ends: dict[str, float], steps: int) -> npt.NDArray[np.float32]:
    """Return float32 [S, K]: the named groups go from 0 to their value, the others stay 0; without names all go to 1.

    Raises:
        StrengthError: a group is unknown, or a value or the number of frames is more than the model allows.
    """
    ends = ends or dict.fromkeys(model.groups, 1.0)
    ramp = even_ramp(model, steps)
    return to_strengths(model, {group: end * ramp for group, end in ends.items()})


def parse_directions(text: str) -> list[str]:
    """Read the directions of a translation, which have commas between them.

    Raises:
        DirectionError: one has no name.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise DirectionError("a step has no name: give directions such as smiling, with commas between several")
    return names


def work_on(sources: list[Path], work: Work, out: list[Path], kind: Format | None) -> None:
    """Write one result for a picture or a pair into each of the files `out`, or the results of folders into a folder.

    Raises:
        SettingsError: a format is given for a single result, or several folders of results.
        HomomorphError: some pictures of the folders gave no result; the others did.
    """
    if any(source.is_dir() for source in sources):
        from homomorph.batch import folder_items, paired_items

        if len(out) != 1:
            raise SettingsError(
                "for a folder of pictures, give one --out, a folder; --format chooses the form of results"
            )
        summary = None
        if len(sources) == 1:
            items = list(folder_items(*sources))
        else:
            items, note = paired_items(*sources)
            summary = f"{len(items)} pairs: {note}"
        work_on_folder(items, work, out[0], kind, len(items), summary)
        return
    if kind is not None:
        raise SettingsError("--format is for folders of pictures; for a single result, the ending of --out decides")
    for path in out:
        check_output(path)
    pictures = [load_picture(source) for source in sources]
    with work.open() as compute:
        start = time.perf_counter()
        frames = compute(pictures)
        latency_ms = (time.perf_counter() - start) * 1000
    for path in out:
        write_output(path, frames)
        typer.echo(path)
    count, height, width, _ = frames.shape
    typer.echo(f"{count} frames of {width}x{height} pixels in {latency_ms:.0f} ms")


def work_on_folder(
    items: Iterable[Item],
    work: Work,
    folder: Path,
    kind: Format | None,
    total: int | None = None,
    summary: str | None = None,
) -> None:
    """Make the results of a folder, show the progress, and print the number of results.

    Args:
        items: the pictures or pairs.
        work: the work on each.
        folder: of the results.
        kind: form of each result.
        total: number of items, if it is known.
        summary: line to print before the first result.

    Raises:
        HomomorphError: some pictures gave no result; the others did.
    """
    from homomorph.batch import run_local

    with progress_display() as report:
        outcome = run_local(
            items,
            work,
            folder,
            kind=kind or DEFAULT_FORMAT,
            total=total,
            concurrency=_CONCURRENCY if work.asks_server else 1,
            report=announcing(summary, report) if summary else report,
        )
    print_outcome(outcome, folder)


def print_outcome(outcome: Outcome, folder: Path) -> None:
    """Print the number of results.

    Raises:
        HomomorphError: some pictures gave no result.
    """
    typer.echo(f"{folder}: {outcome.written} written, {outcome.skipped} were there already")
    if outcome.failed:
        first = next(iter(outcome.failed.values()))
        raise HomomorphError(f"{len(outcome.failed)} pictures gave no result, the first: {first}")
