"""FastAPI in its simplest form: one process, the model called in the endpoint, no batching."""

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
        # Called in the event loop, so that one request at a time has all cores. In a pool of threads, requests would
        # contend for the cores.
        frames = morph(*wire.decode(await request.body()))
        return Response(frames.numpy().tobytes(), media_type="application/octet-stream")

    app.post("/predict")(endpoint)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
