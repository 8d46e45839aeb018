"""The operator `homomorph::interpolate` against its definition."""

from __future__ import annotations

import itertools

import pytest
import torch

from homomorph_export.errors import OperatorError
from homomorph_export.ops.interpolate import interpolate, load_operator

# (B, K, S, C, h, w): typical, single, more than a tile of 512 with a rest, many steps, many branches, both, no step, no
# branch, no sample.
SHAPES = [
    (2, 7, 9, 16, 8, 8),
    (1, 1, 1, 3, 1, 1),
    (3, 2, 5, 11, 13, 7),
    (1, 2, 256, 5, 4, 4),
    (1, 256, 2, 5, 4, 4),
    (1, 256, 256, 3, 3, 1),
    (2, 3, 0, 4, 2, 2),
    (2, 0, 3, 4, 2, 2),
    (0, 3, 3, 4, 2, 2),
]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-4, torch.bfloat16: 4e-3}
"""Largest error allowed of a value and, absolutely, below 1: half a unit in the last place of the 16 bit formats."""

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]


def sample_inputs(
    shape=(2, 3, 5, 4, 3, 2), dtype=torch.float64, channels_last=False, requires_grad=False, device="cpu"
):
    """Return source, deltas and strengths, some of the strengths 0."""
    batch, branches, steps, channels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)
    deltas = torch.randn(batch * branches, channels, height, width, generator=generator, dtype=torch.float64)
    strengths = torch.rand(batch, steps, branches, generator=generator, dtype=torch.float64) * 2
    strengths[torch.rand(strengths.shape, generator=generator) < 0.3] = 0
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    source = source.contiguous(memory_format=memory_format)
    deltas = deltas.contiguous(memory_format=memory_format).view(batch, branches, channels, height, width)
    return tuple(tensor.to(device, dtype).requires_grad_(requires_grad) for tensor in (source, deltas, strengths))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_definition(shape, dtype, channels_last, device):
    inputs = sample_inputs(shape, dtype, channels_last, device=device)
    expected = interpolate(*(tensor.double() for tensor in inputs), impl="reference")
    result = interpolate(*inputs, impl="native")
    assert result.dtype == dtype
    # Sums of hundreds of branches round in 32 bits, of any type.
    rounding = 1 + shape[1] / 16
    tolerance = TOLERANCE[dtype] * (rounding if dtype == torch.float32 else 1.01)
    torch.testing.assert_close(result.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_numbers_are_rounded_as_torch_rounds_them(dtype, device):
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).to(device)
    source, delta = patterns.view(1, 64, 32, 32), patterns.flip(0).roll(12345).view(1, 1, 64, 32, 32)
    zero, one = torch.zeros(1, 1, 1, dtype=dtype, device=device), torch.ones(1, 1, 1, dtype=dtype, device=device)
    torch.testing.assert_close(
        interpolate(source, delta, zero, impl="native")[:, 0], source, rtol=0, atol=0, equal_nan=True
    )
    expected = (source.float() + delta[:, 0].float()).to(dtype)
    result = interpolate(source, delta, one, impl="native")[:, 0]
    torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_memory_need_not_be_aligned(dtype, device):
    inputs = sample_inputs((1, 3, 9, 8, 8, 8), dtype, device=device)
    expected = interpolate(*inputs, impl="native")
    shifted = [torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape) for tensor in inputs]
    assert shifted[0].data_ptr() % 16
    torch.testing.assert_close(interpolate(*shifted, impl="native"), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_results_beyond_the_cache_are_right(dtype):
    """They are written around the caches."""
    inputs = sample_inputs((1, 2, 64, 256, 64, 64), torch.float32)
    inputs = [tensor.to(dtype) for tensor in inputs]
    result = interpolate(*inputs, impl="native")
    for step in (0, 31, 63):
        one_step = (inputs[0], inputs[1], inputs[2][:, step : step + 1].clone())
        torch.testing.assert_close(result[:, step : step + 1], interpolate(*one_step, impl="native"), rtol=0, atol=0)


def test_layouts_may_differ_and_the_result_follows_the_source():
    shape = (2, 3, 5, 16, 8, 6)
    layouts = [sample_inputs(shape, torch.float32, channels_last) for channels_last in (False, True)]
    expected = interpolate(*layouts[0], impl="reference")
    for (source, _, _), (_, deltas, strengths) in itertools.product(layouts, repeat=2):
        result = interpolate(source, deltas, strengths, impl="native")
        torch.testing.assert_close(result, expected)
        assert result[:, 0].stride()[1:] == source.stride()[1:]


def test_views_with_gaps_are_read_right():
    source, deltas, strengths = sample_inputs((4, 3, 5, 8, 6, 6), torch.float32)
    views = source[::2, :, 1:5], deltas[::2, :, :, 1:5], strengths[::2]
    torch.testing.assert_close(interpolate(*views, impl="native"), interpolate(*views, impl="reference"))


@pytest.mark.parametrize("device", DEVICES)
def test_a_strength_of_zero_leaves_its_delta_unread(device):
    source, deltas, strengths = sample_inputs(dtype=torch.float32, device=device)
    deltas = torch.where((strengths != 0).any(dim=1)[:, :, None, None, None], deltas, torch.nan)
    deltas[:, 1] = torch.nan
    strengths[:, :, 1] = 0
    strengths[:, 2, 0], deltas[0, 0, 0, 0, 0] = 0, torch.inf
    result = interpolate(source, deltas, strengths, impl="native")
    assert not result.isnan().any()
    assert result[0, 2].isfinite().all(), "a step must not see what only other steps use"


def test_one_sample_does_not_depend_on_its_batch():
    source, deltas, strengths = sample_inputs((3, 7, 9, 16, 8, 8), torch.float32)
    batch = interpolate(source, deltas, strengths, impl="native")
    alone = interpolate(source[1:2], deltas[1:2], strengths[1:2], impl="native")
    assert torch.equal(batch[1:2], alone)


def test_threads_do_not_change_the_result():
    inputs = sample_inputs((2, 7, 17, 64, 16, 16), torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = interpolate(*inputs, impl="native")
        torch.set_num_threads(2)
        assert torch.equal(interpolate(*inputs, impl="native"), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("replaced", "value", "message"),
    [
        (0, torch.zeros(4, 3, 2), "source must be"),
        (1, torch.zeros(1, 3, 4, 3, 2), "batch sizes"),
        (1, torch.zeros(2, 3, 4, 2, 3), "C, h and w"),
        (2, torch.zeros(2, 5, 4), "one delta for each column"),
        (2, torch.zeros(2, 5, 3).half(), "same dtype"),
    ],
)
def test_refuses_what_does_not_fit(replaced, value, message):
    inputs = list(sample_inputs(dtype=torch.float32))
    inputs[replaced] = value
    with pytest.raises(RuntimeError, match=message):
        interpolate(*inputs, impl="native")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("elsewhere", [0, 1, 2])
def test_refuses_tensors_on_different_devices(elsewhere):
    inputs = list(sample_inputs(dtype=torch.float32, device="cuda"))
    inputs[elsewhere] = inputs[elsewhere].cpu()
    with pytest.raises(RuntimeError, match=r"same device; got source .* on the CPU"):
        load_operator()(*inputs)


def test_a_device_without_kernel_is_refused(monkeypatch):
    inputs = sample_inputs(dtype=torch.float32)
    monkeypatch.setattr("homomorph_export.ops.library.has_kernel", lambda device_type: False)
    torch.testing.assert_close(interpolate(*inputs), interpolate(*inputs, impl="reference"))
    with pytest.raises(OperatorError, match="no kernel for cpu"):
        interpolate(*inputs, impl="native")


def test_refuses_integers():
    inputs = [torch.ones(tensor.shape, dtype=torch.int32) for tensor in sample_inputs()]
    with pytest.raises(RuntimeError, match="dtype must be float32"):
        interpolate(*inputs, impl="native")


@pytest.mark.parametrize("device", DEVICES)
def test_first_and_second_derivatives(device):
    inputs = sample_inputs(shape=(2, 2, 3, 2, 2, 1), requires_grad=True, device=device)
    assert torch.autograd.gradcheck(load_operator(), inputs)
    assert torch.autograd.gradgradcheck(load_operator(), inputs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_torch_finds_schema_fake_and_autograd_consistent(channels_last, device):
    torch.library.opcheck(
        load_operator(), sample_inputs(channels_last=channels_last, requires_grad=True, device=device)
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_traces_by_name():
    inputs = sample_inputs(dtype=torch.float32)
    traced = torch.jit.trace(lambda *tensors: interpolate(*tensors, impl="native"), inputs, check_trace=False)
    assert "homomorph::interpolate" in str(traced.graph)
    other = sample_inputs((1, 3, 2, 4, 5, 5), torch.float32)
    torch.testing.assert_close(traced(*other), interpolate(*other, impl="reference"))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_scripts_by_name():
    load_operator()
    scripted = torch.jit.script(call_operator)
    assert "homomorph::interpolate" in str(scripted.graph)
    inputs = sample_inputs(dtype=torch.float32)
    torch.testing.assert_close(scripted(*inputs), interpolate(*inputs, impl="reference"))


def call_operator(source: torch.Tensor, deltas: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
    return torch.ops.homomorph.interpolate(source, deltas, strengths)


class Interpolate(torch.nn.Module):
    def forward(self, source, deltas, strengths):
        return interpolate(source, deltas, strengths, impl="native")


def test_exports_by_name_for_every_batch_size_and_number_of_steps():
    load_operator()
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("steps")
    exported = torch.export.export(
        Interpolate(),
        sample_inputs(dtype=torch.float32),
        dynamic_shapes=({0: batch}, {0: batch}, {0: batch, 1: steps}),
    )
    assert "homomorph.interpolate" in str(exported.graph)
    other = sample_inputs((3, 3, 7, 4, 3, 2), torch.float32)
    torch.testing.assert_close(exported.module()(*other), interpolate(*other, impl="reference"))


def test_automatic_choice_computes_the_same():
    inputs = sample_inputs(dtype=torch.float32)
    torch.testing.assert_close(interpolate(*inputs), interpolate(*inputs, impl="reference"))
