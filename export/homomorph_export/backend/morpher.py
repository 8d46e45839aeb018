"""Pictures to frames in one process: every picture is encoded once, and the frames are decoded on all cores.

`model.py` beside this file runs `model.pt` through it. The networks are called one after the other, without a copy
between them, and the pictures or frames of one call are divided among threads that compute one share each: that takes
less time than all threads at work on the same share, because none waits for the others after each layer.

A model's processes take turns with all cores: two that decode at once would both take twice as long.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SMALL = 1 << 14
"""Up to so many numbers of one picture, or of its features, threads wait for each other longer than they compute."""


class Turn:
    """Held by the one of a model's processes that computes; whoever ends, however, holds it no longer."""

    def __init__(self, file: Path | None) -> None:
        """Say which file stands for it: any that all the processes can read, and that nobody else locks.

        None is for whoever shares no cores: its turn is always.
        """
        self.file = None if file is None else os.open(file, os.O_RDONLY)

    def take(self, *, wait: bool = True) -> bool:
        """Wait for it, or take it only if nobody holds it; return whether it is held now. It may be held already."""
        if self.file is None:
            return True
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: better together than not at all
            self.file = None
        return True

    def give(self) -> None:
        """Let another process have it; harmless if that was done before."""
        if self.file is not None:
            fcntl.flock(self.file, fcntl.LOCK_UN)


class Morpher:
    """Calls the networks of one joint model; not for several threads at once."""

    def __init__(
        self,
        module: Any,
        *,
        threads: int,
        turn: Turn,
        cache_bytes: int = 0,
        count: Callable[[int, int], None] = lambda known, encoded: None,
    ) -> None:
        """Prepare.

        Args:
            module: what `model.pt` holds, with the methods `encode`, `interpolate` and `decode`.
            threads: how many compute.
            turn: what to hold while decoding.
            cache_bytes: how much the features of pictures may take that are kept for later calls; 0 for none.
            count: called with how many pictures of a call were known already, and how many were encoded.
        """
        self.module = module
        self.threads = threads
        self.turn = turn
        self.known = KnownFeatures(cache_bytes) if cache_bytes else None
        self.count = count
        self.pool = ThreadPoolExecutor(self.threads)

    def __call__(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        """Return uint8 frames [B, S, H, W, 3], of uint8 [B, H, W, 3] twice and strengths [B, S, K]."""
        # Who has to wait for its turn encodes meanwhile, which is little work and one thread's.
        threads = self.threads if self.turn.take(wait=False) else 1
        try:
            features = self.encoded(torch.cat([source, target]), threads)
            torch.set_num_threads(threads if features[0].numel() > SMALL else 1)
            mixed = self.module.interpolate(features[: len(source)], features[len(source) :], strengths)
            self.turn.take()
            frames = self.spread(self.module.decode, mixed.flatten(0, 1).unsqueeze(1), self.threads, self.turn.give)
        finally:
            self.turn.give()
        return frames.view(*mixed.shape[:2], *frames.shape[2:])

    def encoded(self, pictures: Tensor, threads: int) -> Tensor:
        """Return features [N, C, h, w] of uint8 pictures [N, H, W, 3]."""
        if self.known is None:
            return self.spread(self.module.encode, pictures, threads)
        keys = [key_of(picture) for picture in pictures.cpu()]
        found: dict[bytes, Tensor] = {}
        missing: dict[bytes, Tensor] = {}
        for key, picture in zip(keys, pictures, strict=True):
            if (features := self.known.get(key)) is None:
                missing[key] = picture
            else:
                found[key] = features
        if missing:
            encoded = self.spread(self.module.encode, torch.stack(list(missing.values())), threads)
            for key, features in zip(missing, encoded, strict=True):
                # A copy, or one picture's features would keep those of the whole batch in memory.
                found[key] = self.known.put(key, features.clone())
        self.count(len(keys) - len(missing), len(missing))
        return torch.stack([found[key] for key in keys])

    def spread(
        self,
        network: Callable[[Tensor], Tensor],
        rows: Tensor,
        threads: int,
        on_idle: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Return what a network makes of rows, each thread of its share of them.

        `on_idle` is called when the first thread has done its share, if there are several.
        """
        shares = min(threads, len(rows))
        each = threads // shares if rows[0].numel() > SMALL else 1

        def compute(share: Tensor) -> Tensor:
            torch.set_num_threads(each)  # of this thread alone, and so is the mode
            with torch.inference_mode():
                return network(share)

        if shares == 1:
            return compute(rows)
        computing = [self.pool.submit(compute, share) for share in rows.tensor_split(shares)]
        wait(computing, return_when=FIRST_COMPLETED)
        on_idle()
        return torch.cat([share.result() for share in computing])


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
