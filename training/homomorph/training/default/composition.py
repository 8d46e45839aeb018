"""Which groups, labels and pictures make up the composed frames of a batch.

B pictures, P pairs, G groups, L labels, K = G + 1 branches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from homomorph.data.batches import ALL_GROUPS
from homomorph.training.default.draws import KEPT, WHOLE, Draws
from homomorph.training.morph_method import NormalisedBatch


class Composition:
    """Chooses the pictures that stand in for others, and says which labels the frames shall show."""

    def __init__(self, members: Tensor, *, judged: bool) -> None:
        """Keep the settings of a training.

        Args:
            members: which label belongs to which group, 0/1, [L, G].
            judged: whether a critic judges whole frames. Without one only b says what is right, and all groups move.
        """
        self._members = members
        self._judged = judged

    def agree(self, batch: NormalisedBatch) -> Tensor:
        """Whether all labels of a group are known and the same in two pictures, bool [B, B, G]; each is its own."""
        labels, known = batch.labels, batch.known
        same = (labels.unsqueeze(1) == labels) * known.unsqueeze(1) * known
        agree = ((1 - same) @ self._members) == 0
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        return agree | itself.unsqueeze(2)

    def same_augmentation(self, batch: NormalisedBatch) -> Tensor:
        """1 for pairs whose pictures the augmentation has moved alike, else 0, [P]."""
        difference = batch.placement[batch.source] - batch.placement[batch.target]
        return (difference.abs().amax(dim=(1, 2)) < 1e-4).float()

    def moving_branches(self, batch: NormalisedBatch) -> Tensor:
        """1 for the branches that move when a pair's own group does, or all that labels name; [P, K]."""
        own = nn.functional.one_hot(batch.group.clamp(min=0), self._members.shape[1] + 1).float()
        named = torch.ones_like(own)
        named[:, -1] = 0
        return torch.where((batch.group == ALL_GROUPS).unsqueeze(1), named, own)

    def moving_groups(self, batch: NormalisedBatch) -> Tensor:
        """1 for the groups that move in a pair's whole frame, all of them where only b says what is right; [P, G]."""
        moving = self.moving_branches(batch)[:, :-1]
        return moving if self._judged else torch.ones_like(moving)

    def at_full_strength(self, batch: NormalisedBatch, draws: Draws) -> Tensor:
        """Whether each pair's whole frame is at the whole strength of what moves, bool [P]."""
        if not self._judged:
            return torch.ones_like(batch.group, dtype=torch.bool)
        return (draws.strengths == 1) & (batch.group != ALL_GROUPS)

    def comparable_with_b(self, batch: NormalisedBatch, draws: Draws) -> Tensor:
        """1 for pairs whose whole frame has all labels of b, all known, at the places where b has them; else 0, [P]."""
        agree = self.agree(batch)[batch.source, batch.target].float()
        labels_of_b = torch.maximum(agree, self.moving_groups(batch)).amin(dim=1)
        known = batch.known[batch.target].amin(dim=1)
        return self.at_full_strength(batch, draws) * self.same_augmentation(batch) * labels_of_b * known

    def stand_ins_for_kept(self, batch: NormalisedBatch, agree: Tensor, draws: Draws) -> Tensor:
        """Return, for each a and group, a picture that agrees with it, itself or another; [P, G]."""
        others = self._stand_ins(agree, draws.scores[KEPT], batch.source)
        return torch.where(draws.swapped[batch.source], others, batch.source.unsqueeze(1))

    def stand_ins_for_whole(self, batch: NormalisedBatch, agree: Tensor, draws: Draws) -> Tensor:
        """Return, for each pair and group, a picture that agrees with b where the group moves, else with a; [P, G]."""
        stay, move = (self._stand_ins(agree, draws.scores[WHOLE], side) for side in (batch.source, batch.target))
        return torch.where(self.moving_groups(batch) > 0, move, stay)

    def _stand_ins(self, agree: Tensor, scores: Tensor, pictures: Tensor) -> Tensor:
        """Draw, for each of P pictures and each group, another picture that agrees with it there; indices [P, G].

        A picture stands in for itself where no other one agrees with it.
        """
        drawn: Tensor = scores[pictures].masked_fill(~agree[pictures].transpose(1, 2), -1).argmax(dim=2)
        return drawn

    def frame_labels(self, batch: NormalisedBatch, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return the labels that each pair's whole frame shall show, and what each label counts.

        Labels that move count two thirds together, the others a third; unknown ones count nothing. [P, L] each.
        """
        taken = self.moving_groups(batch) @ self._members.T
        labels_a, labels_b = batch.labels[batch.source], batch.labels[batch.target]
        known_a, known_b = batch.known[batch.source], batch.known[batch.target]
        shares = sum(
            share * part / part.sum(dim=1, keepdim=True).clamp(min=1) for share, part in ((1, taken), (0.5, 1 - taken))
        )
        # The labels of a frame on the way are unknown: they weigh 0.
        known = (known_a + taken * (known_b - known_a)) * self.at_full_strength(batch, draws).unsqueeze(1)
        return labels_a + taken * (labels_b - labels_a), known * shares
