"""Compares the results of exported files with those of the run's own networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from homomorph_export.contract import Axis, Model, Step, Tensor
from homomorph_export.errors import ExportError
from homomorph_export.examples import numbers
from homomorph_export.manifest import Parity
from homomorph_export.precision import TOLERANCES

_BATCH_SIZES = (1, 3)
"""Batch sizes that are compared."""
PICTURES = 8
"""Number of different pictures that a comparison uses."""
_FRAMES = 3

Exported = Mapping[str, Callable[..., Any]]
"""Served model's name -> function that runs its file, from tensors to a tensor or a tuple of tensors."""
Pictures = Callable[[tuple[int, int]], torch.Tensor]
"""Function from a height and a width to pictures, uint8 [`PICTURES`, H, W, 3]."""


def random_pictures(size: tuple[int, int]) -> torch.Tensor:
    """Return pictures of random pixels. No network handles them well by chance."""
    generator = torch.Generator().manual_seed(PICTURES)
    return torch.randint(0, 256, (PICTURES, *size, 3), generator=generator).to(torch.uint8)


@torch.inference_mode()
def compare(
    models: Sequence[Model],
    exported: Exported,
    run: object,
    *,
    kind: str,
    precision: str,
    pictures: Pictures = random_pictures,
) -> Parity:
    """Compare the frames of all served models with the run's, on several batch sizes and picture sizes.

    An ensemble runs its steps. It is skipped if the format lacks the files of a step.

    Args:
        models: the catalogue.
        exported: functions that run the files of one format.
        run: the run's own networks, for `Model.reference`.
        kind: name of the file format, for the message.
        precision: number format of these files, which decides the tolerance.
        pictures: makes the input pictures.

    Raises:
        ExportError: the difference is beyond the tolerance, or a model is not compared with anything.
    """
    runnable = list(_runnable_models(models, exported))
    compared = {model.name for model, _ in runnable} | {step.model for _, steps in runnable for step in steps}
    if missed := [
        model.name
        for model in models
        if model.name not in compared and not (model.joint and model.name not in exported)
    ]:
        raise ExportError(
            f"nothing compares {', '.join(missed)} with the run: a model that gives frames needs `reference`, another "
            "one must be a step of such a model; nothing was written"
        )
    # Models with the same steps give the same result, so one comparison is enough.
    distinct: list[tuple[Model, tuple[Step, ...]]] = []
    for model, steps in runnable:
        if steps not in [other_steps for _, other_steps in distinct]:
            distinct.append((model, steps))
    by_name = {model.name: model for model in models}
    axes = (dim for model, _ in runnable for tensor in model.inputs for dim in tensor.dims if isinstance(dim, Axis))
    (size,) = {axis.typical for axis in axes if axis.letter == "H"}
    pairs = []
    for batch in _BATCH_SIZES:
        for case in (
            _Case(batch, {"H": size, "W": size, "P": 4}, pictures),
            _Case(batch, {"H": 2 * size, "W": size, "P": 2}, pictures),
        ):
            references: dict[Any, torch.Tensor] = {}
            for model, steps in distinct:
                inputs = {tensor.name: case.value(tensor) for tensor in model.inputs}
                found = _run(steps, exported, by_name, inputs)[model.outputs[0].name]
                assert model.reference is not None
                if model.reference not in references:  # several models give the same frames
                    references[model.reference] = model.reference(run, found, *inputs.values())
                pairs.append((found, references[model.reference]))
    return measure_parity(pairs, kind=kind, precision=precision)


def measure_parity(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], *, kind: str, precision: str) -> Parity:
    """Measure the difference of frames to the run's own, and check that it is within the tolerance.

    Args:
        pairs: frames of the files, and of the run: both uint8 [B, ..., H, W, 3].
        kind: name of the file format, for the message.
        precision: number format of these files, which decides the tolerance.

    Raises:
        ExportError: the difference is beyond the tolerance.
    """
    difference = torch.cat([(found.int() - reference.int()).abs().double().flatten() for found, reference in pairs])
    parity = Parity(
        precision=precision,
        mean=float(difference.mean()),
        max=float(difference.max()),
        batch_sizes=tuple(sorted({reference.shape[0] for _, reference in pairs})),
        picture_sizes=tuple(sorted({(reference.shape[-3], reference.shape[-2]) for _, reference in pairs})),
    )
    tolerance = TOLERANCES[precision]
    if not tolerance.allows(parity.mean, parity.max):
        at_most = "" if tolerance.max is None else f" and {tolerance.max:g}"
        raise ExportError(
            f"the {kind} files ({precision}) compute other frames than the run: {parity.mean:.4f} grey levels off on "
            f"average and {parity.max:.0f} at most, where {tolerance.mean:g}{at_most} are allowed; nothing was written"
        )
    return parity


class _Case:
    """One batch of requests. An input has the same values in all models that have an input of this name."""

    def __init__(self, batch: int, lengths: Mapping[str, int], pictures: Pictures) -> None:
        self._batch = batch
        self._lengths = lengths
        self._pictures = pictures((lengths["H"], lengths["W"]))
        self._taken = 0
        self._generator = torch.Generator().manual_seed(0)
        self._values: dict[str, torch.Tensor] = {}

    def value(self, tensor: Tensor) -> torch.Tensor:
        """Return the values of an input, with the batch axis."""
        if tensor.name not in self._values:
            self._values[tensor.name] = self._draw(tensor)
        return self._values[tensor.name]

    def _draw(self, tensor: Tensor) -> torch.Tensor:
        if tensor.type == "INT64":
            assert tensor.range is not None
            every = {"S": max(_FRAMES, int(tensor.range[1]) + 1)}
            return torch.from_numpy(numbers(tensor, self._batch, {**self._lengths, **every}))
        shape = (self._batch, *tensor.shape({"S": _FRAMES, **self._lengths}))
        if tensor.type == "UINT8":
            count = math.prod(shape[:-3])
            places = torch.arange(self._taken, self._taken + count) % PICTURES
            self._taken += count
            return self._pictures[places].view(shape)
        assert tensor.range is not None
        values = torch.rand(shape, generator=self._generator) * tensor.range[1]
        values[0, ..., 0] = 0  # so that the first request does not use a branch that the others use
        return values


def _runnable_models(models: Sequence[Model], exported: Exported) -> Iterator[tuple[Model, tuple[Step, ...]]]:
    """Yield each model that gives frames, with the steps that compute them from the files of this format."""
    candidates = [candidate for entry in models for candidate in (entry, entry.compared_as)]
    for model in (candidate for candidate in candidates if candidate and candidate.reference):
        itself = Step(
            model.name,
            {tensor.name: tensor.name for tensor in model.inputs},
            {tensor.name: tensor.name for tensor in model.outputs},
        )
        for steps in [(itself,)] if model.computation else [model.steps, model.python_steps]:
            if steps and all(step.model in exported for step in steps):
                yield model, steps


def _run(
    steps: Sequence[Step], exported: Exported, models: Mapping[str, Model], inputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Run the steps in order, and return all tensors of the ensemble."""
    tensors = dict(inputs)
    for step in steps:
        member = models[step.model]
        results = exported[step.model](*(tensors[step.inputs[tensor.name]] for tensor in member.inputs))
        results = results if isinstance(results, tuple) else (results,)
        for tensor, result in zip(member.outputs, results, strict=True):
            tensors[step.outputs[tensor.name]] = result
    return tensors
