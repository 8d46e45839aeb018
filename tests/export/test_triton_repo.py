"""`triton_repo/` is what `homomorph export avatars64` writes, and docs/served-models.md draws the ensembles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from homomorph.runs.label_features import load_label_features
from homomorph.runs.run import load_model, resolve_run
from homomorph_export.catalogue import morph_models
from homomorph_export.contract import Model, Step
from homomorph_export.repository import write_description

REPOSITORY = Path(__file__).parents[2] / "triton_repo"
PAGE = REPOSITORY.parent / "docs" / "served-models.md"
DRAWINGS = dict(re.findall(r"```mermaid\nflowchart LR\n    %% ([^\n]+)\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.fixture(scope="module")
def models() -> tuple[Model, ...]:
    """The models served for `avatars64`."""
    folder = resolve_run("avatars64")
    config = load_model(folder).config
    return morph_models(config, labels=load_label_features(folder, config) is not None)


def texts(repository: Path) -> dict[str, str]:
    """Return what version control holds of the models that morph."""
    paths = [*repository.glob("*/**/*.pbtxt"), *repository.glob("*/1/*.py"), *repository.glob("*/1/.keep")]
    names = {path.relative_to(repository): path.read_text() for path in paths}
    return {str(name): text for name, text in names.items() if not name.parts[0].startswith("translate")}


def test_it_is_what_an_export_writes(models: tuple[Model, ...], tmp_path: Path) -> None:
    for model in models:
        write_description(tmp_path / model.name, model, method="homomorph")
    assert texts(REPOSITORY) == texts(tmp_path), "write it again: homomorph export avatars64"


@pytest.mark.parametrize(
    ("drawing", "name", "python"),
    [
        ("morph, Python backend", "morph", True),
        ("morph, libtorch, ONNX Runtime and OpenVINO backends", "morph", False),
        ("morph, libtorch, ONNX Runtime and OpenVINO backends", "morph_stream", False),
        ("morph_branches", "morph_branches", False),
        ("edit", "edit", False),
        ("latent", "latent", False),
    ],
)
def test_the_drawings_are_the_ensembles(models: tuple[Model, ...], drawing: str, name: str, python: bool) -> None:
    (model,) = (model for model in models if model.name == name)
    steps = model.python_steps if python else model.steps
    drawn = [[word.strip() for word in line.split("-->")] for line in DRAWINGS[drawing].splitlines()]
    assert {word for words in drawn for word in words} == {step.model for step in steps}
    assert {pair for words in drawn for pair in pairwise(words)} == set(arrows(steps))


# A size of a tensor in perf_analyzer's form, and in trtexec's, in a command that names the model.
COMMANDS = [
    (model, tensor, [int(length) for length in re.split("[,x]", shape)])
    for page in sorted(PAGE.parent.rglob("*.md"))
    for command in page.read_text().replace("\\\n", "").splitlines()
    if (named := re.search(r"perf_analyzer -m (\w+)|--onnx=triton_repo/(\w+)/", command))
    for model in named.groups()
    if model
    for tensor, shape in re.findall(r"\b([A-Z]+):([\dx,]+)", command)
]


def test_there_are_commands_with_shapes() -> None:
    assert {model for model, _, _ in COMMANDS} == {"morph", "decoder"}


@pytest.mark.parametrize(("model", "tensor", "shape"), COMMANDS)
def test_shapes_in_commands_of_the_pages_are_the_models(model: str, tensor: str, shape: list[int]) -> None:
    text = (REPOSITORY / model / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    (dims,) = (list(served.dims) for served in config.input if served.name == tensor)
    shape = shape[len(shape) - len(dims) :]  # trtexec's shapes begin with the batch
    assert len(shape) == len(dims)
    assert all(dim in (-1, length) for dim, length in zip(dims, shape, strict=True)), f"{dims} in triton_repo"


def arrows(steps: tuple[Step, ...]) -> Iterator[tuple[str, str]]:
    """Yield which model's output is which other model's input."""
    written = {tensor: step.model for step in steps for tensor in step.outputs.values()}
    for step in steps:
        for tensor in step.inputs.values():
            if tensor in written:
                yield written[tensor], step.model
