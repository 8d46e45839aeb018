"""What labels alone say of a picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from homomorph.models.label_prior import MIN_VARIANCE, LabelPrior
from homomorph.training.losses import label_prior_loss

_STILL = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])


def test_it_learns_what_labels_determine_and_how_much_they_leave_open() -> None:
    # The label paints the left half white or black; the right half is noise.
    torch.manual_seed(0)
    prior = LabelPrior(1, 16, width=16)
    optimizer = torch.optim.Adam(prior.parameters(), 3e-3)
    for _ in range(300):
        labels = torch.randint(2, (16, 1)).float()
        pictures = torch.randn(16, 3, 16, 16)
        pictures[..., :8] = (2 * labels - 1).view(-1, 1, 1, 1)
        loss = label_prior_loss(*prior(labels, _STILL.expand(16, 2, 3)), pictures, torch.ones(16) == 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        mean, variance = prior(torch.tensor([[0.0], [1.0]]), _STILL.expand(2, 2, 3))
    assert mean[0, ..., :7].mean() < -0.6
    assert mean[1, ..., :7].mean() > 0.6
    assert mean[..., 9:].abs().mean() < 0.3
    assert variance[..., :7].mean() < 0.2
    assert variance[..., 9:].mean() > 0.5
    assert (variance > MIN_VARIANCE).all()


def test_it_follows_the_placement() -> None:
    prior = LabelPrior(2, 16, width=8)
    labels = torch.tensor([[1.0, 0.0]])
    with torch.no_grad():
        mean, _ = prior(labels, _STILL)
        shifted, _ = prior(labels, torch.tensor([[[1.0, 0, 2 * 3 / 16], [0, 1, 0]]]))  # reads 3 pixels to the right
    torch.testing.assert_close(shifted[..., :-3], mean[..., 3:])


def test_places_are_exact_where_layers_compute_in_bfloat16() -> None:
    prior = LabelPrior(2, 64, width=8)
    labels, turned = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.98, 0.17, 0.1], [-0.17, 0.98, -0.05]]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mean, _ = prior(labels, _STILL)
        moved, _ = prior(labels, turned)
    grid = F.affine_grid(turned, [1, 3, 64, 64], align_corners=False)
    expected = F.grid_sample(mean, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=0)
