"""ONNX graphs of the served models.

The parts with weights are exported from the modules that TorchScript is traced from. The other models are short
graphs around them, written in ONNX's text syntax. `homomorph::interpolate` is written as standard operators, so every
runtime runs it without a library of this project.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, compose, helper, numpy_helper
from onnx.parser import parse_node
from torch import nn

from homomorph.models.label_features import LabelFeatures
from homomorph_export.contract import Axis, Model, Tensor

_OPSET = 18
"""The oldest that has all operators used here; ONNX Runtime 1.19, which Triton 24.10 carries, reads up to 21."""
_IR_VERSION = 8
"""Version of ONNX's file format in the first release with this opset."""

_INTERPOLATE = (
    "batch_and_steps = Shape <start = 0, end = 2> (STRENGTHS)",
    "features_of_one = Shape <start = 1> (SOURCE)",
    "flat = Constant <value_ints = [0, 0, -1]> ()",
    "flat_deltas = Reshape (deltas, flat)",
    "flat_sums = MatMul (STRENGTHS, flat_deltas)",
    "shape = Concat <axis = 0> (batch_and_steps, features_of_one)",
    "sums = Reshape (flat_sums, shape)",
    "steps_axis = Constant <value_ints = [1]> ()",
    "sources = Unsqueeze (SOURCE, steps_axis)",
    "FEATURES = Add (sources, sums)",
)
"""The operator: SOURCE [B, C, h, w], deltas [B, K, C, h, w], STRENGTHS [B, S, K] -> FEATURES [B, S, C, h, w]. Not a
function of the model's own, because OpenVINO reads none."""


def export(module: nn.Module, entry: Model, *example: torch.Tensor) -> ModelProto:
    """Export a module; it then works for any batch size, number of frames, height and width.

    Args:
        module: its forward() has the inputs of `entry`.
        entry: the served model that it computes.
        example: inputs of a typical shape.
    """
    tensors = (*entry.inputs, *entry.outputs)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(), torch.no_grad():
        # This exporter goes through TorchScript and is deprecated. Its successor writes the same graphs for these
        # networks and takes 20 times as long. The comparison after the export would show errors.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Converting a tensor to a Python boolean")
        # InstanceNorm always uses the picture's own statistics, and the pads of mirrored borders stay computed.
        warnings.filterwarnings("ignore", message="ONNX export mode is set to TrainingMode.EVAL")
        warnings.filterwarnings("ignore", message="Constant folding - Only steps=1")
        path = Path(scratch) / "part.onnx"
        torch.onnx.export(
            module,
            example,
            path,
            input_names=[tensor.name for tensor in entry.inputs],
            output_names=[tensor.name for tensor in entry.outputs],
            dynamic_axes={tensor.name: {0: "B"} | _dynamic_axes(tensor) for tensor in tensors},
            opset_version=_OPSET,
            dynamo=False,
        )
        return rebuilt(onnx.load(path), entry)


def rebuilt(model: ModelProto, entry: Model) -> ModelProto:
    """Return a tool's model with the contract's tensors, and without the tool's own metadata."""
    return _model(entry, model.graph.node, model.graph.initializer)


def encoder_pair(entry: Model, parts: object, encoder: ModelProto) -> ModelProto:
    """Encode sources and targets as one batch."""
    return _around_encoder(
        entry,
        encoder,
        before=["pictures = Concat <axis = 0> (SOURCE, TARGET)"],
        after=["SOURCE_FEATURES, TARGET_FEATURES = Split <axis = 0, num_outputs = 2> (features)"],
    )


def encoder_corners(entry: Model, parts: object, encoder: ModelProto) -> ModelProto:
    """Encode pictures to blend as one batch."""
    return _around_encoder(
        entry,
        encoder,
        before=[
            "batch_and_corners = Shape <start = 0, end = 2> (PICTURES)",
            "picture_shape = Shape <start = 2> (PICTURES)",
            "all = Constant <value_ints = [-1]> ()",
            "flat_shape = Concat <axis = 0> (all, picture_shape)",
            "pictures = Reshape (PICTURES, flat_shape)",
        ],
        after=[
            "features_shape = Shape <start = 1> (features)",
            "shape = Concat <axis = 0> (batch_and_corners, features_shape)",
            "CORNERS = Reshape (features, shape)",
        ],
    )


def interpolate(entry: Model, parts: object) -> ModelProto:
    """Apply the operator to the outputs of all branches."""
    _, *deltas, _ = (tensor.name for tensor in entry.inputs)
    return _model(entry, _interpolation(deltas))


def interpolator(entry: Model, parts: object, *branches: ModelProto) -> ModelProto:
    """Run the branches and apply the operator; a branch runs only if a request of the batch uses it."""
    nodes: list[str | NodeProto] = [
        "difference = Sub (TARGET, SOURCE)",
        "magnitudes = Abs (STRENGTHS)",
        "batch_and_steps_axes = Constant <value_ints = [0, 1]> ()",
        "largest = ReduceMax <keepdims = 0> (magnitudes, batch_and_steps_axes)",
        "zero = Constant <value_float = 0.0> ()",
        "used = Greater (largest, zero)",
    ]
    for column, part in enumerate(branches):
        branch = part.graph.name
        run, weights = _embedded(part, branch, {"DIFFERENCE": "difference", "DELTA": f"{branch}.delta"})
        skip = [f"shape_{branch} = Shape (difference)", f"none_{branch} = ConstantOfShape (shape_{branch})"]
        either = (
            _graph(f"run_{branch}", run, [_unknown(f"{branch}.delta")], weights),
            _graph(f"skip_{branch}", skip, [_unknown(f"none_{branch}")]),
        )
        nodes += [
            f"column_{branch} = Constant <value_int = {column}> ()",
            f"used_{branch} = Gather (used, column_{branch})",
            _if(f"used_{branch}", f"delta_{branch}", *either),
        ]
    return _model(entry, [*nodes, *_interpolation([f"delta_{part.graph.name}" for part in branches])])


def label_target(entry: Model, label_features: LabelFeatures) -> ModelProto:
    """Predict features from labels, at the size of the source's features."""
    nodes = [
        "flat_prediction = MatMul (LABELS, label_features)",
        "flat_features = Add (flat_prediction, base)",
        "features = Reshape (flat_features, fitted_shape)",
        "batch_and_channels = Shape <start = 0, end = 2> (features)",
        "size = Shape <start = 2> (SOURCE)",
        "shape = Concat <axis = 0> (batch_and_channels, size)",
        'TARGET = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (features, , , shape)',
    ]
    arrays = {
        "label_features": label_features.labels.flatten(1).numpy(),
        "base": label_features.base.flatten().numpy(),
        "fitted_shape": np.array([-1, *label_features.base.shape], np.int64),
    }
    return _model(entry, nodes, [numpy_helper.from_array(array, name) for name, array in arrays.items()])


def translate(entry: Model, parts: object, *directions: ModelProto) -> ModelProto:
    """Change pictures in one direction after the other; in each step, a direction runs on the pictures that take it."""
    nodes: list[str | NodeProto] = ["step = Gather <axis = 1> (STEPS, place)"]
    changed = "pictures"
    for number, part in enumerate(directions):
        direction = part.graph.name
        names = {"IMAGE": f"source_{direction}", "FRAME": f"result_{direction}"}
        generator, weights = _embedded(part, direction, names)
        run: list[str | NodeProto] = [
            f"source_{direction} = Gather <axis = 0> (pictures, places_{direction})",
            *generator,
            f"rows_{direction} = Unsqueeze (places_{direction}, last_axis)",
            f"update_{direction} = ScatterND ({changed}, rows_{direction}, result_{direction})",
        ]
        skip = [f"keep_{direction} = Identity ({changed})"]
        either = (
            _graph(f"run_{direction}", run, [_unknown(f"update_{direction}", TensorProto.UINT8)], weights),
            _graph(f"skip_{direction}", skip, [_unknown(f"keep_{direction}", TensorProto.UINT8)]),
        )
        changed = f"changed_{number}"
        nodes += [
            f"number_{direction} = Constant <value_int = {number}> ()",
            f"takes_{direction} = Equal (step, number_{direction})",
            f"found_{direction} = NonZero (takes_{direction})",
            f"places_{direction} = Squeeze (found_{direction}, first_axis)",
            f"count_{direction} = Size (places_{direction})",
            f"any_{direction} = Cast <to = {TensorProto.BOOL}> (count_{direction})",
            _if(f"any_{direction}", changed, *either),
        ]
    # The output of a step is the input of the next one, and one of the frames.
    nodes += [f"{name} = Identity ({changed})" for name in ("next_pictures", "frame")]
    place, more, next_more = (
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (("place", TensorProto.INT64), ("more", TensorProto.BOOL), ("next_more", TensorProto.BOOL))
    )
    pictures, next_pictures, frame = (
        _unknown(name, TensorProto.UINT8) for name in ("pictures", "next_pictures", "frame")
    )
    one_step = _graph(
        "one_step",
        [*nodes, "next_more = Identity (more)"],
        [next_more, next_pictures, frame],
        inputs=[place, more, pictures],
    )
    return _model(
        entry,
        [
            "first_axis = Constant <value_ints = [0]> ()",
            "last_axis = Constant <value_ints = [-1]> ()",
            "lengths = Shape <start = 1> (STEPS)",
            "count = Squeeze (lengths)",
            helper.make_node("Loop", ["count", "", "IMAGE"], ["last_pictures", "frames"], body=one_step),
            "FRAMES = Transpose <perm = [1, 0, 2, 3, 4]> (frames)",
        ],
    )


def save(model: ModelProto, path: Path) -> None:
    """Write a model; the same model gives the same bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def _model(entry: Model, nodes: Sequence[str | NodeProto], weights: Sequence[TensorProto] = ()) -> ModelProto:
    """Make a checked model of nodes that compute a served model's outputs from its inputs."""
    inputs, outputs = ([_value(tensor) for tensor in tensors] for tensors in (entry.inputs, entry.outputs))
    graph = _graph(entry.name, nodes, outputs, weights, inputs=inputs)
    for node in graph.node:
        node.ClearField("doc_string")
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="homomorph",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _around_encoder(entry: Model, encoder: ModelProto, *, before: list[str], after: list[str]) -> ModelProto:
    """Return a model of nodes that make `pictures`, the encoder, and nodes that take its `features`."""
    nodes, weights = _embedded(encoder, "encoder", {"IMAGE": "pictures", "FEATURES": "features"})
    return _model(entry, [*before, *nodes, *after], weights)


def _graph(
    name: str,
    nodes: Sequence[str | NodeProto],
    outputs: Sequence[ValueInfoProto],
    weights: Sequence[TensorProto] = (),
    *,
    inputs: Sequence[ValueInfoProto] = (),
) -> GraphProto:
    """Make a graph of nodes, some of them in ONNX's text syntax."""
    parsed = [parse_node(node) if isinstance(node, str) else node for node in nodes]
    return helper.make_graph(parsed, name, inputs, outputs, weights)


def _if(condition: str, output: str, then_branch: GraphProto, else_branch: GraphProto) -> NodeProto:
    return helper.make_node("If", [condition], [output], then_branch=then_branch, else_branch=else_branch)


def _interpolation(deltas: Sequence[str]) -> list[str]:
    """Return nodes that stack the branches' outputs [B, C, h, w] and apply the operator."""
    return [
        "branches_axis = Constant <value_ints = [1]> ()",
        *(f"stacked_{delta} = Unsqueeze ({delta}, branches_axis)" for delta in deltas),
        f"deltas = Concat <axis = 1> ({', '.join(f'stacked_{delta}' for delta in deltas)})",
        *_INTERPOLATE,
    ]


def _embedded(part: ModelProto, prefix: str, names: Mapping[str, str]) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the nodes and weights of a model, to be put into another one.

    Args:
        part: the model; its nodes hold no graphs of their own.
        prefix: put before the names of everything inside, so that they stay unique.
        names: new names of its inputs and outputs, by their present ones.
    """
    graph = compose.add_prefix_graph(part.graph, f"{prefix}.")
    renamed = {f"{prefix}.{name}": other for name, other in names.items()}
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [renamed.get(name, name) for name in tensors]
    return list(graph.node), list(graph.initializer)


def _value(tensor: Tensor) -> ValueInfoProto:
    dims = ["B", *(dim.letter if isinstance(dim, Axis) else dim for dim in tensor.dims)]
    return helper.make_tensor_value_info(tensor.name, helper.np_dtype_to_tensor_dtype(tensor.dtype), dims)


def _unknown(name: str, type: TensorProto.DataType = TensorProto.FLOAT) -> ValueInfoProto:
    """Return a tensor of unknown shape."""
    return helper.make_tensor_value_info(name, type, None)


def _dynamic_axes(tensor: Tensor) -> dict[int, str]:
    return {place: dim.letter for place, dim in enumerate(tensor.dims, start=1) if isinstance(dim, Axis)}
