"""Every written `config.pbtxt`, read by Triton's own schema, against the contract."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from homomorph.networks import MorphModel
from homomorph_export import torchscript
from homomorph_export.contract import Axis, Model, served_models
from homomorph_export.ops.interpolate import load

BRANCHES = ("hair", "glasses", "residual")
MODELS = {model.name: model for model in served_models(BRANCHES, 16, 8, 3)}


def read(repository: Path, name: str) -> schema.ModelConfig:
    return text_format.Parse((repository / name / "config.pbtxt").read_text(), schema.ModelConfig())


def test_the_models_are_the_promised_ones():
    assert set(MODELS) == {
        "encoder",
        "encoder_pair",
        "difference",
        "branch_hair",
        "branch_glasses",
        "branch_residual",
        "interpolate",
        "interpolator",
        "decoder",
        "morph",
        "morph_branches",
        "label_target",
        "edit",
    }
    without_labels = {model.name for model in served_models(BRANCHES, 16, 8, 0)}
    assert set(MODELS) - without_labels == {"label_target", "edit"}


def test_a_folder_for_each_model(repository: Path):
    assert {path.name for path in repository.iterdir() if path.is_dir()} == set(MODELS)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_configuration_says_what_the_contract_says(repository: Path, model: Model):
    config = read(repository, model.name)
    assert config.name == model.name
    assert config.max_batch_size > 0
    for written, tensors in ((config.input, model.inputs), (config.output, model.outputs)):
        assert [(tensor.name, tensor.data_type, tuple(tensor.dims)) for tensor in written] == [
            (tensor.name, schema.DataType.Value(f"TYPE_{tensor.type}"), tensor.shape) for tensor in tensors
        ]
    assert (config.platform == "ensemble") == bool(model.steps)
    assert (config.backend == "python") == (not model.steps)


@pytest.mark.parametrize("name", [model.name for model in MODELS.values() if not model.steps])
def test_torchscript_takes_the_inputs_by_name_and_in_order(repository: Path, name: str):
    load()
    module = torchscript.load(repository / name / "1" / "model.pt")
    arguments = module.forward.schema.arguments[1:]  # without self
    assert [argument.name for argument in arguments] == [tensor.name for tensor in MODELS[name].inputs]


@pytest.mark.parametrize("name", [model.name for model in MODELS.values() if not model.steps])
def test_warm_up_data_has_the_size_that_its_shape_needs(repository: Path, name: str):
    itemsize = {schema.TYPE_UINT8: 1, schema.TYPE_FP32: 4}
    (warmup,) = read(repository, name).model_warmup
    assert set(warmup.inputs) == {tensor.name for tensor in MODELS[name].inputs}
    for value in warmup.inputs.values():
        count = 1
        for dim in value.dims:
            count *= dim
        data = repository / name / "warmup" / value.input_data_file
        assert data.stat().st_size == count * itemsize[value.data_type]


@pytest.mark.parametrize("model", [model for model in MODELS.values() if model.steps], ids=lambda model: model.name)
def test_ensembles_connect_tensors_of_one_type_and_shape(repository: Path, model: Model):
    tensors = {tensor.name: tensor for tensor in model.inputs}
    for step in read(repository, model.name).ensemble_scheduling.step:
        member = MODELS[step.model_name]
        assert set(step.input_map) == {tensor.name for tensor in member.inputs}
        for tensor in member.inputs:
            fed = tensors[step.input_map[tensor.name]]  # a KeyError here: nothing before this step writes it
            assert (fed.type, fed.dims) == (tensor.type, tensor.dims)
        tensors |= {step.output_map[tensor.name]: tensor for tensor in member.outputs}
    for tensor in model.outputs:
        assert (tensors[tensor.name].type, tensors[tensor.name].dims) == (tensor.type, tensor.dims)


@pytest.mark.parametrize("model", [model for model in MODELS.values() if model.steps], ids=lambda model: model.name)
def test_nothing_that_a_client_sends_reaches_two_steps_at_once(model: Model):
    """Triton deadlocks if the first steps are several and one fails, and keeps a request of which one step of several
    fails. So whatever reads the request's own tensors must be ready at another time than all other steps."""
    ready_at = dict.fromkeys((tensor.name for tensor in model.inputs), 0)
    starts: list[int] = []
    for step in model.steps:
        starts.append(max(ready_at[name] for name in step.inputs.values()))
        ready_at |= dict.fromkeys(step.outputs.values(), starts[-1] + 1)
    for step, start in zip(model.steps, starts, strict=True):
        if {tensor.name for tensor in model.inputs} & set(step.inputs.values()):
            assert starts.count(start) == 1, step.model


@pytest.mark.parametrize("name", ["morph", "morph_branches"])
def test_a_client_learns_what_it_must_know_from_the_configuration(repository: Path, name: str, model: MorphModel):
    parameters = {key: value.string_value for key, value in read(repository, name).parameters.items()}
    assert parameters["groups"].split(",") == list(BRANCHES) == list(model.config.branches)
    assert parameters["picture_size"] == "32"
    assert parameters["stride"] == "8"
    assert float(parameters["max_strength"]) == 2


def test_checks_survive_the_configuration(repository: Path):
    parameters = read(repository, "interpolator").parameters
    assert json.loads(parameters["checks"].string_value) == MODELS["interpolator"].checks()


def test_an_axis_means_the_same_in_all_tensors():
    axes: dict[str, Axis] = {}
    for model in MODELS.values():
        for tensor in (*model.inputs, *model.outputs):
            for dim in tensor.dims:
                if isinstance(dim, Axis):
                    assert axes.setdefault(dim.letter, dim) == dim
