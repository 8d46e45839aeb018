"""Morphs computed in this process, without a server; `homomorph.load` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from homomorph.errors import CheckpointError, ConfigError
from homomorph.models.blending import blend
from homomorph.models.label_features import LabelFeatures
from homomorph.models.morph import MAX_STRENGTH, MorphModel, interpolate
from homomorph.models.pixels import from_normalised, normalise
from homomorph.runs.cyclegan import is_cyclegan
from homomorph.runs.label_features import load_label_features
from homomorph.runs.run import load_model, resolve_run
from homomorph_client.errors import LabelError
from homomorph_client.frames import Frames
from homomorph_client.labels import Labels, chosen_edit
from homomorph_client.methods import blending_model, places_between, places_in_square, square_model
from homomorph_client.morpher import Morpher
from homomorph_client.names import EDIT, HOMOMORPH, LATENT, MORPH, Blend, Method
from homomorph_client.pictures import Picture, fit_picture
from homomorph_client.served_model import ServedModel, working_size
from homomorph_client.strengths import Strengths, chosen_strengths

_MAX_STEPS = 4096
"""Frames of one call: their pictures are all in memory at once."""
_DECODED_TOGETHER = 16
"""Frames of one batch of D, so that a long morph needs no more memory than a short one."""


class LocalMorpher(Morpher):
    """Morphs by a model in this process, with the methods of `MorphClient`.

    Example::

        model = homomorph.load("avatars64")
        frames = model.morph("a.png", "b.png", steps=9)

    Any number of threads may use it.
    """

    def __init__(
        self,
        model: MorphModel,
        label_features: LabelFeatures | None = None,
        *,
        picture_size: int | None = None,
        device: str = "cpu",
    ) -> None:
        """Take networks that are loaded.

        Args:
            model: E, T_i and D.
            label_features: what labels look like, for `edit`; without it that is refused.
            picture_size: height and width in pixels to work at; None is what the model was trained at.
            device: where to compute, as torch names it.

        Raises:
            ConfigError: torch has no such device here.
            PictureError: `picture_size` is no multiple of the model's stride.
        """
        config = model.config
        size = working_size(config.network.stride, config.picture_size, picture_size)
        try:
            self._device = torch.device(device)
            torch.empty(0, device=self._device)
        except (RuntimeError, AssertionError) as error:  # torch raises the second if it was built without CUDA
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"device {device!r} cannot be used, `cpu` always can: {reason}") from error
        self._model = model.eval().requires_grad_(False).to(self._device).to(memory_format=torch.channels_last)
        self._label_features = None if label_features is None else label_features.to(self._device)
        labels = {group: tuple(names) for group, names in config.groups.items()}
        self._last_encoded: tuple[Tensor, Tensor] | None = None
        self._described = ServedModel(MORPH, tuple(config.branches), labels, size, _MAX_STEPS, MAX_STRENGTH)

    def served_model(self, name: str | None = None) -> ServedModel:
        """Return what `MorphClient.served_model` returns: the sliders, sizes and limits of a model by its name."""
        if name is None or name in (MORPH, EDIT):
            return self._described
        return ServedModel(name, ("all",), {}, self.picture_size, _MAX_STEPS, MAX_STRENGTH)

    def morph(
        self,
        source: Picture,
        target: Picture,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        method: Method = HOMOMORPH,
        urgent: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """Morph one picture into another; arguments and errors are those of `MorphClient.morph`.

        `urgent` has no effect: no request waits here.

        Returns:
            uint8 [S, H, W, 3], RGB.
        """
        model = self.served_model(blending_model(method))
        chosen = chosen_strengths(model, steps=steps, strengths=strengths)
        pictures = self._fitted([source, target])
        if method != HOMOMORPH:
            return self._blended(method, pictures, places_between(chosen))
        with torch.inference_mode():
            features = self._encoded(pictures)
            return self._decoded(features[:1], features[1:], chosen)

    def edit(
        self,
        source: Picture,
        labels: Labels,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        urgent: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """Change a picture towards labels; arguments and errors are those of `MorphClient.edit`.

        `urgent` has no effect: no request waits here.

        Returns:
            uint8 [S, H, W, 3], RGB.

        Raises:
            LabelError: as there, or the run does not know what labels look like, as an imported one.
        """
        if self._label_features is None:
            raise LabelError("this run has no label_features.safetensors, which `edit` needs: morph towards a picture")
        wanted, chosen = chosen_edit(self._described, labels, steps=steps, strengths=strengths)
        pictures = self._fitted([source])
        with torch.inference_mode():
            features = self._encoded(pictures)
            size = (features.shape[2], features.shape[3])
            target = self._label_features(torch.from_numpy(wanted)[None].to(self._device), size)
            return self._decoded(features, target, chosen)

    def square(self, corners: Sequence[Picture], *, method: Blend = LATENT, size: int = 5) -> npt.NDArray[np.uint8]:
        """Fill a square between four pictures; arguments and errors are those of `MorphClient.square`.

        Returns:
            uint8 [N, N, H, W, 3], RGB.
        """
        places = places_in_square(self.served_model(square_model(method, corners)), size)
        frames = self._blended(method, self._fitted(corners), places)
        return frames.reshape(size, size, *frames.shape[1:])

    def _fitted(self, pictures: Sequence[Picture]) -> Tensor:
        """Return pictures of the model's size, uint8 [N, H, W, 3], on the device."""
        fitted = np.stack([fit_picture(picture, self.picture_size) for picture in pictures])
        return torch.from_numpy(fitted).to(self._device)

    def _encoded(self, pictures: Tensor) -> Tensor:
        """Encode pictures [N, H, W, 3]. Those of the last call are not encoded again, as while a slider moves."""
        last = self._last_encoded
        if last is not None and torch.equal(last[0], pictures):
            return last[1]
        features: Tensor = self._model.encoder(normalise(pictures.permute(0, 3, 1, 2), self._model.config.network))
        self._last_encoded = pictures, features
        return features

    def _decoded(self, source: Tensor, target: Tensor, strengths: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Interpolate between features [1, C, h, w] by strengths [S, K] and decode; unused branches cost nothing."""
        network = self._model.config.network
        used = [column for column in range(strengths.shape[1]) if strengths[:, column].any()]
        branches = list(self._model.branches.values())
        difference = target - source
        deltas = torch.stack([branches[column](difference) for column in used], dim=1) if used else None
        frames = []
        for part in np.array_split(strengths, range(_DECODED_TOGETHER, len(strengths), _DECODED_TOGETHER)):
            if deltas is None:
                features = source.expand(len(part), -1, -1, -1)
            else:
                chosen = torch.from_numpy(np.ascontiguousarray(part[None, :, used])).to(self._device)
                features = interpolate(source, deltas, chosen)[0]
            decoded = self._model.decoder(features.contiguous(memory_format=torch.channels_last))
            frames.append(from_normalised(decoded, network).permute(0, 2, 3, 1).cpu())
        return torch.cat(frames).contiguous().numpy().view(Frames)

    def _blended(self, method: str, pictures: Tensor, places: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        frames = blend(self._model, method, pictures[None], torch.from_numpy(places)[None].to(self._device))
        return frames[0].cpu().contiguous().numpy().view(Frames)


def load_morpher(run: str | Path, *, picture_size: int | None = None, device: str = "cpu") -> LocalMorpher:
    """Load a run; arguments and errors are those of `homomorph.load`."""
    folder = resolve_run(run)
    if is_cyclegan(folder):
        raise CheckpointError(f"{run} is a CycleGAN's run, which does not morph: `homomorph translate --run {run}`")
    model = load_model(folder)
    return LocalMorpher(model, load_label_features(folder, model.config), picture_size=picture_size, device=device)
