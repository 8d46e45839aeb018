"""LitServe: an HTTP process, and one worker process that batches."""

# No `from __future__ import annotations` here: LitServe reads the endpoint's types at run time.

import sys
from pathlib import Path
from typing import Annotated

import litserve
import torch
from fastapi import Body, Response
from torch import Tensor

from homomorph_bench.serving.exported import ExportedMorph
from homomorph_bench.serving.peers import wire
from homomorph_export.contract import MAX_BATCH_SIZE

_BATCH_TIMEOUT_S = 0.001
"""How long a batch waits for more requests; Triton's batches do not wait."""


class MorphApi(litserve.LitAPI):  # type: ignore[misc]
    """One worker's model."""

    def __init__(self, repository: Path, device: str) -> None:
        """Prepare batches as large as Triton's."""
        super().__init__(max_batch_size=MAX_BATCH_SIZE, batch_timeout=_BATCH_TIMEOUT_S)
        self._repository, self._device = repository, device

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self._morph = ExportedMorph(self._repository, self._device)

    def decode_request(
        self, request: Annotated[bytes, Body(media_type="application/octet-stream")]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return one request's tensors."""
        return wire.decode(request)

    def batch(self, inputs: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, ...]:
        """Join requests."""
        return tuple(torch.cat(parts) for parts in zip(*inputs, strict=True))

    def predict(self, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return all frames."""
        return self._morph(*inputs)

    def unbatch(self, output: Tensor) -> list[Tensor]:
        """Divide the frames among the requests."""
        return list(output)

    def encode_response(self, output: Tensor) -> Response:
        """Return one request's frames."""
        return Response(output.numpy().tobytes(), media_type="application/octet-stream")


def main() -> None:
    """Serve until SIGTERM."""
    repository, port, device = sys.argv[1:]
    # "cpu" gives one worker; otherwise LitServe starts one per GPU. The model itself runs on `device`.
    server = litserve.LitServer(MorphApi(Path(repository), device), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(port), log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
