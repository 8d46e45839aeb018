"""The operator `homomorph::interpolate` against its definition."""

from __future__ import annotations

import itertools

import pytest
import torch

from homomorph_export.ops.interpolate import interpolate, load

# (B, K, S, C, h, w): typical, single, more than a tile of 512 with a rest, no step, no branch, no sample.
SHAPES = [
    (2, 7, 9, 16, 8, 8),
    (1, 1, 1, 3, 1, 1),
    (3, 2, 5, 11, 13, 7),
    (2, 3, 0, 4, 2, 2),
    (2, 0, 3, 4, 2, 2),
    (0, 3, 3, 4, 2, 2),
]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}
"""Largest error allowed at values around 1 to 8: a few units in the last place of each format."""


def sample_inputs(shape=(2, 3, 5, 4, 3, 2), dtype=torch.float64, channels_last=False, requires_grad=False):
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
    return tuple(tensor.to(dtype).requires_grad_(requires_grad) for tensor in (source, deltas, strengths))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_definition(shape, dtype, channels_last):
    inputs = sample_inputs(shape, dtype, channels_last)
    expected = interpolate(*(tensor.double() for tensor in inputs), impl="reference")
    result = interpolate(*inputs, impl="native")
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), expected, atol=TOLERANCE[dtype], rtol=0)


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


def test_a_strength_of_zero_leaves_its_delta_unread():
    source, deltas, strengths = sample_inputs(dtype=torch.float32)
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


def test_refuses_integers():
    inputs = [torch.ones(tensor.shape, dtype=torch.int32) for tensor in sample_inputs()]
    with pytest.raises(RuntimeError, match="dtype must be float32"):
        interpolate(*inputs, impl="native")


def test_first_and_second_derivatives():
    inputs = sample_inputs(shape=(2, 2, 3, 2, 2, 1), requires_grad=True)
    assert torch.autograd.gradcheck(load(), inputs)
    assert torch.autograd.gradgradcheck(load(), inputs)


@pytest.mark.parametrize("channels_last", [False, True])
def test_torch_finds_schema_fake_and_autograd_consistent(channels_last):
    torch.library.opcheck(load(), sample_inputs(channels_last=channels_last, requires_grad=True))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_traces_by_name():
    inputs = sample_inputs(dtype=torch.float32)
    traced = torch.jit.trace(lambda *tensors: interpolate(*tensors, impl="native"), inputs, check_trace=False)
    assert "homomorph::interpolate" in str(traced.graph)
    other = sample_inputs((1, 3, 2, 4, 5, 5), torch.float32)
    torch.testing.assert_close(traced(*other), interpolate(*other, impl="reference"))


def test_automatic_choice_computes_the_same():
    inputs = sample_inputs(dtype=torch.float32)
    torch.testing.assert_close(interpolate(*inputs), interpolate(*inputs, impl="reference"))
