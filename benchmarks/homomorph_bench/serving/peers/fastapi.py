"""FastAPI as people write it by hand: one process, the model called in the endpoint, no batching."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response

from homomorph_bench.serving.exported import ExportedMorph
from homomorph_bench.serving.peers import wire


def main() -> None:
    """Serve until SIGTERM."""
    repository, port, device = sys.argv[1:]
    morph = ExportedMorph(Path(repository), device)
    app = FastAPI()

    async def endpoint(request: Request) -> Response:
        # In the event loop: the model has all cores for one request at a time. A pool of threads would let requests
        # contend for them.
        frames = morph(*wire.decode(await request.body()))
        return Response(frames.numpy().tobytes(), media_type="application/octet-stream")

    app.post("/predict")(endpoint)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
