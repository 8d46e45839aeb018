"""Networks that exist only during training."""

from __future__ import annotations

import torch

from homomorph.models.critics import FeatureCritic, Guidance, PartReader, PictureCritic, Prototypes, recoloured


def test_prototypes_follow_the_order_of_groups_and_labels() -> None:
    # Group names that are not in alphabetical order: columns 0-1 belong to skin, 2-4 to beard, 5 to hair.
    prototypes = Prototypes({"skin": "ab", "beard": "cde", "hair": "f"}, feature_channels=4, feature_size=2)
    for group, maps in enumerate(prototypes.maps):
        torch.nn.init.constant_(maps, 10.0**group)
    for column, group in enumerate([0, 0, 1, 1, 1, 2]):
        expected = torch.zeros(1, 3, 4, 2, 2)
        expected[:, group] = 10.0**group
        torch.testing.assert_close(prototypes(torch.eye(6)[column : column + 1]), expected)
        torch.testing.assert_close(prototypes(-torch.eye(6)[column : column + 1]), -expected)


def test_scores_and_logits_have_one_row_per_picture() -> None:
    score, logits = FeatureCritic(8, 5)(torch.randn(3, 8, 8, 8))
    assert score.shape == (3,)
    assert logits.shape == (3, 5)
    assert Guidance(8, 12)(torch.randn(3, 8, 8, 8), torch.Size([4, 4])).shape == (3, 12, 4, 4)


def test_the_picture_critic_judges_labels_only_where_asked() -> None:
    torch.manual_seed(0)
    critic = PictureCritic(5).eval()
    pictures, labels = torch.randn(2, 3, 32, 32), torch.ones(2, 5)
    conditional = torch.tensor([1.0, 0.0])
    right, wrong = critic(pictures, labels, conditional), critic(pictures, 1 - labels, conditional)
    assert right.shape == (2, 4, 4)
    assert (right[0] - wrong[0]).abs().min() > 1e-5
    torch.testing.assert_close(right[1], wrong[1])


def test_recoloured_pictures_keep_their_shapes_and_greys() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.zeros(64, 3, 2, 2)
    pictures[:, :, 0] = 0.5  # grey above
    pictures[:, 0, 1] = 0.5  # red below
    changed = recoloured(pictures, generator)
    assert changed.shape == pictures.shape
    grey, red = changed[:, :, 0, 0], changed[:, :, 1, 0]
    torch.testing.assert_close(grey, grey.mean(dim=1, keepdim=True).expand(64, 3))
    torch.testing.assert_close(changed[..., 0], changed[..., 1])  # a region of one colour stays one
    assert set(red.argmax(dim=1).tolist()) == {0, 1, 2}  # any hue
    assert (changed.flatten(1).std(dim=0) > 0.05).all()  # each picture its own


def test_a_part_is_read_wherever_it_is_and_however_large() -> None:
    reader = PartReader({"mouth": ["smiling", "open"], "skin": ["pale"]}, 8)
    parts = [torch.randn(3, 8, 4, 4), torch.randn(3, 8, 4, 4)]
    read = reader(parts)
    assert read.shape == (3, 3)
    torch.testing.assert_close(reader([part.roll((1, 2), dims=(2, 3)) for part in parts]), read)
    torch.testing.assert_close(reader([0.01 * part for part in parts]), read, rtol=1e-3, atol=1e-3)
    # A group's labels come from its own part.
    other = reader([parts[0], torch.randn(3, 8, 4, 4)])
    assert torch.equal(other[:, :2], read[:, :2])
    assert not torch.equal(other[:, 2], read[:, 2])
