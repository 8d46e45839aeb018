"""The processes of one training, and each one's device and precision, by Lightning Fabric.

torchrun --nproc-per-node 2 --no-python homomorph train data/avatars --out runs/avatars64
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from homomorph.errors import ConfigError

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""Our names -> Fabric's. With `bf16`, layers compute in bfloat16; weights, sums and losses stay float32."""


class Processes:
    """This process among those that train together.

    All hold the same networks. Each takes its share of every batch, and gradients are averaged over all before a
    network is updated, so the networks stay the same in all of them.
    """

    def __init__(self, accelerator: str = "cpu", precision: str = "fp32") -> None:
        """Join the other processes, if `torchrun` has started several.

        Args:
            accelerator: `cpu`, `gpu`, or `auto` for a GPU where there is one.
            precision: `fp32` or `bf16`.

        Raises:
            ConfigError: `gpu` is asked for, and there are fewer GPUs than processes.
        """
        # torchrun says how many processes it has started on this machine, and in all.
        here, self.count = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        if accelerator == "gpu" and (found := torch.cuda.device_count()) < here:
            raise ConfigError(f"--accelerator gpu needs {here} GPU here, torch finds {found}: take cpu or auto")
        self._fabric = Fabric(
            accelerator=accelerator,
            devices=here,
            num_nodes=self.count // here,
            strategy="ddp" if self.count > 1 else "auto",
            precision=PRECISIONS[precision],  # type: ignore[arg-type]
        )
        self._fabric.launch()
        self.rank = self._fabric.global_rank
        self.device = self._fabric.device
        self.precision = precision

    @property
    def first(self) -> bool:
        """Whether this is the process that reports and writes."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[None]:
        """Compute the enclosed operations in this training's precision."""
        return self._fabric.autocast()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all processes; one that is missing counts as 0."""
        if self.count == 1:
            return
        given = list(parameters)
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in given])
        means = self._mean(flat).split([p.numel() for p in given])
        for parameter, mean in zip(given, means, strict=True):
            parameter.grad = mean.view_as(parameter).contiguous(
                memory_format=torch.channels_last if parameter.dim() == 4 else torch.contiguous_format
            )

    def average(self, values: dict[str, float]) -> dict[str, float]:
        """Average reported values over all processes, which report the same names."""
        if self.count == 1:
            return values
        means = self._mean(torch.tensor(list(values.values()), device=self.device)).tolist()
        return dict(zip(values, means, strict=True))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.count == 1 else bool(self._mean(torch.tensor(float(flag), device=self.device)) > 0)

    def wait(self) -> None:
        """Wait until all processes are here."""
        self._fabric.barrier()

    def _mean(self, values: Tensor) -> Tensor:
        mean = self._fabric.all_reduce(values, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean
