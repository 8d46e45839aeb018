"""A decorated function behind pytriton, which serves it with the same Triton over gRPC."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from homomorph_bench.serving.exported import ExportedMorph
from homomorph_export.contract import MAX_BATCH_SIZE
from homomorph_export.serving.ports import choose_ports


def main() -> None:
    """Serve until SIGTERM."""
    repository, port, device = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger("pytriton").setLevel(logging.WARNING)
    morph = ExportedMorph(Path(repository), device)

    @batch  # type: ignore[untyped-decorator]
    def infer(
        SOURCE: npt.NDArray[np.uint8], TARGET: npt.NDArray[np.uint8], STRENGTHS: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[np.uint8]]:
        frames = morph(*(torch.from_numpy(array) for array in (SOURCE, TARGET, STRENGTHS)))
        return {"FRAMES": frames.numpy()}

    others = choose_ports("127.0.0.1", {"http": None, "metrics": None})
    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=int(port),
        http_address="127.0.0.1",
        http_port=others["http"],
        metrics_address="127.0.0.1",
        metrics_port=others["metrics"],
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="morph",
            infer_func=infer,
            inputs=[
                Tensor(name="SOURCE", dtype=np.uint8, shape=(-1, -1, 3)),
                Tensor(name="TARGET", dtype=np.uint8, shape=(-1, -1, 3)),
                Tensor(name="STRENGTHS", dtype=np.float32, shape=(-1, -1)),
            ],
            outputs=[Tensor(name="FRAMES", dtype=np.uint8, shape=(-1, -1, -1, 3))],
            config=ModelConfig(max_batch_size=MAX_BATCH_SIZE, batcher=DynamicBatcher()),
        )
        triton.serve()


if __name__ == "__main__":
    main()
