"""Pictures to frames in one process: every picture is encoded once, and the frames are decoded on all cores.

`model.py` beside this file runs `model.pt` through it. The networks are called one after the other, without a copy
between them, and the pictures or frames of one call are divided among threads that compute one share each: that takes
less time than all threads at work on the same share, because none waits for the others after each layer.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


class Morpher:
    """Calls the networks of one joint model; not for several threads at once."""

    def __init__(
        self,
        module: Any,
        *,
        threads: int,
        cache_bytes: int = 0,
        count: Callable[[int, int], None] = lambda known, encoded: None,
    ) -> None:
        """Prepare.

        Args:
            module: what `model.pt` holds, with the methods `encode`, `interpolate` and `decode`.
            threads: how many compute.
            cache_bytes: how much the features of pictures may take that are kept for later calls; 0 for none.
            count: called with how many pictures of a call were known already, and how many were encoded.
        """
        self.module = module
        self.threads = threads
        self.known = KnownFeatures(cache_bytes) if cache_bytes else None
        self.count = count
        self.pool = ThreadPoolExecutor(threads)

    def __call__(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        """Return uint8 frames [B, S, H, W, 3], of uint8 [B, H, W, 3] twice and strengths [B, S, K]."""
        features = self.encoded(torch.cat([source, target]))
        mixed = self.module.interpolate(features[: len(source)], features[len(source) :], strengths)
        frames = self.spread(self.module.decode, mixed.flatten(0, 1).unsqueeze(1))
        return frames.view(*mixed.shape[:2], *frames.shape[2:])

    def encoded(self, pictures: Tensor) -> Tensor:
        """Return features [N, C, h, w] of uint8 pictures [N, H, W, 3]."""
        if self.known is None:
            return self.spread(self.module.encode, pictures)
        keys = [key_of(picture) for picture in pictures]
        found: dict[bytes, Tensor] = {}
        missing: dict[bytes, Tensor] = {}
        for key, picture in zip(keys, pictures, strict=True):
            if (features := self.known.get(key)) is None:
                missing[key] = picture
            else:
                found[key] = features
        if missing:
            encoded = self.spread(self.module.encode, torch.stack(list(missing.values())))
            for key, features in zip(missing, encoded, strict=True):
                # A copy, or one picture's features would keep those of the whole batch in memory.
                found[key] = self.known.put(key, features.clone())
        self.count(len(keys) - len(missing), len(missing))
        return torch.stack([found[key] for key in keys])

    def spread(self, network: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Return what a network makes of rows, each thread of its share of them."""
        shares = min(self.threads, len(rows))
        if shares == 1:
            return network(rows)
        each = self.threads // shares

        def compute(share: Tensor) -> Tensor:
            torch.set_num_threads(each)  # of this thread alone, and so is the mode
            with torch.inference_mode():
                return network(share)

        return torch.cat(list(self.pool.map(compute, rows.tensor_split(shares))))


class KnownFeatures:
    """Features of the pictures that were used last, by their keys, as many as there is room for."""

    def __init__(self, most_bytes: int) -> None:
        """Say how much room there is."""
        self.most_bytes = most_bytes
        self.bytes = 0
        self.features: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, key: bytes) -> Tensor | None:
        """Return a picture's features, which counts as a use of them, or None if they are not known."""
        if key in self.features:
            self.features.move_to_end(key)
        return self.features.get(key)

    def put(self, key: bytes, features: Tensor) -> Tensor:
        """Keep a picture's features, instead of those that were not used for longest, and return them."""
        self.features[key] = features
        self.bytes += features.nbytes
        while self.bytes > self.most_bytes:
            _, oldest = self.features.popitem(last=False)
            self.bytes -= oldest.nbytes
        return features


def key_of(picture: Tensor) -> bytes:
    """Return what two pictures [H, W, 3] have in common only if all their pixels are the same."""
    pixels = picture.numpy()
    return hashlib.blake2b(pixels.data, digest_size=32, salt=repr(pixels.shape[:2]).encode()).digest()
