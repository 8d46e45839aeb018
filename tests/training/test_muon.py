"""The optimizer of E and D."""

from __future__ import annotations

import torch
from torch import nn

from homomorph.training.muon import Muon, _orthogonal


def test_singular_values_come_near_1() -> None:
    torch.manual_seed(0)
    for rows, columns in ((32, 32), (16, 144), (144, 16)):
        # Singular values from 1 to 1/50.
        left, _, right = torch.linalg.svd(torch.randn(rows, columns), full_matrices=False)
        matrix = left @ torch.diag(torch.logspace(0, -1.7, min(rows, columns))) @ right
        values = torch.linalg.svdvals(_orthogonal(matrix))
        assert values.min() > 0.4
        assert values.max() < 1.3


def test_a_step_moves_hidden_weights_in_all_directions_alike_and_others_as_adam_does() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 32, 3, padding=1), nn.Conv2d(32, 12, 1))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = Muon(network.parameters())
    optimizer.param_groups[0]["lr"] = 0.01
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    changes = [(new - old).detach() for new, old in zip(network.parameters(), before, strict=True)]
    hidden = torch.linalg.svdvals(changes[2].flatten(1)) / 0.01
    assert hidden.min() > 0.4
    assert hidden.max() < 1.3
    for change in (changes[0], changes[1], changes[3], changes[4], changes[5]):
        # Adam's first step is its rate in the direction of the gradient's sign.
        torch.testing.assert_close(change.abs(), torch.full_like(change, 0.003), rtol=0.01, atol=0)


def test_it_learns_where_inputs_differ_much_in_size() -> None:
    torch.manual_seed(0)
    scales = torch.logspace(0, -2, 32)
    inputs = torch.randn(256, 32) * scales
    targets = inputs @ torch.diag(1 / scales)

    def error(make: type[torch.optim.Optimizer]) -> float:
        torch.manual_seed(1)
        layer = nn.Linear(32, 32)
        optimizer = make(layer.parameters())
        for step in range(200):
            optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 200)
            loss = (layer(inputs) - targets).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    assert error(Muon) < 0.5 * error(torch.optim.SGD)


def test_adam_takes_over_after_some_updates_and_a_saved_state_says_when() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(32, 32))

    def update(optimizer: Muon) -> torch.Tensor:
        before = weight.detach().clone()
        optimizer.param_groups[0]["lr"] = 0.01
        weight.grad = torch.randn_like(weight)
        optimizer.step()
        return weight.detach() - before

    optimizer = Muon([weight], updates=2)
    for _ in range(2):
        assert torch.linalg.svdvals(update(optimizer)).min() > 0.003
    later = Muon([weight], updates=2)
    later.load_state_dict(optimizer.state_dict())
    for one in (optimizer, later):
        # Adam's first step: its whole rate, in the direction of the gradient's sign.
        torch.testing.assert_close(update(one).abs(), torch.full_like(weight, 0.01), rtol=0.01, atol=0)
