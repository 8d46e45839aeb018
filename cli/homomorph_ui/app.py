"""The page's web application: static files, and four calls that answer with pictures.

    GET  model         the sliders, the labels and the size of the pictures
    POST pictures      a picture's file -> the picture, cropped and scaled down
    POST frames        pictures and strengths -> frames as raw pixels, with the time that each part took
    POST files/{kind}  the same -> one file: png, gif or mp4

It keeps nothing between calls: the page sends its pictures with each of them. So nothing is lost when the application
or the model's server is started again.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from homomorph_client.errors import (
    AccessError,
    DeadlineError,
    HomomorphError,
    OverloadedError,
    PictureError,
    RequestError,
    ServerUnavailableError,
)
from homomorph_client.morpher import Morpher
from homomorph_client.names import EDIT
from homomorph_client.output import write_output
from homomorph_client.pictures import fit_picture, load_picture
from homomorph_client.strengths import even_ramp

MAX_BODY_BYTES = 64 * 2**20
"""Largest body of a request: a picture's file, or two pictures as the model takes them."""
_PICTURE_SIZE = 256
"""Largest height and width in pixels of the page's pictures, unless the model's are larger: a slider's frame with the
pictures' details comes in time."""
_COMPUTED_TOGETHER = 4
"""Calls that read pictures or compute at the same time; more wait."""
_MEDIA_TYPES = {"png": "image/png", "gif": "image/gif", "mp4": "video/mp4"}
_LOCAL_NAMES = ("127.0.0.1", "localhost")
_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Sent with every answer. The page may load nothing from other hosts, and other pages may not embed it."""
_TEMPORARY = (ServerUnavailableError, OverloadedError, DeadlineError, AccessError)

Result = TypeVar("Result")


class _FrameRequest(BaseModel):
    """A request for frames: the pictures, the labels and the strengths."""

    model_config = ConfigDict(extra="forbid")

    source: Base64Bytes
    """A picture's file."""
    target: Base64Bytes | None = None
    """The picture to morph towards; None where `labels` say what to change."""
    labels: dict[str, list[str]] | None = None
    """The wanted labels of each group that changes."""
    strengths: dict[str, float]
    """The strength of each group, at the last frame."""
    steps: Annotated[int, Field(ge=1)] = 1
    """1: a single frame with these strengths, which overtakes requests that wait; more: a morph that starts at 0 and
    ends with them."""
    details: bool = False
    """Whether the frames have the pictures' own size and details."""

    def frames(self, morpher: Morpher) -> npt.NDArray[np.uint8]:
        """Compute the frames.

        Returns:
            uint8 [steps, H, W, 3], RGB.

        Raises:
            HomomorphError: as `MorphClient.morph` and `edit`.
        """
        ramp = even_ramp(morpher.served_model(), self.steps) if self.steps > 1 else np.ones(1, np.float32)
        strengths = {group: value * ramp for group, value in self.strengths.items()}
        urgent = self.steps == 1
        if self.labels is not None:
            edit = morpher.edit_full_size if self.details else morpher.edit
            return edit(self.source, self.labels, strengths=strengths, urgent=urgent)
        if self.target is None:
            raise PictureError("choose a second picture to morph towards, or labels")
        morph = morpher.morph_full_size if self.details else morpher.morph
        return morph(self.source, self.target, strengths=strengths, urgent=urgent)


class _Page:
    """Answers the page's calls."""

    def __init__(self, morpher: Morpher, where: str, pictures: Sequence[npt.NDArray[np.uint8]]) -> None:
        self._morpher = morpher
        self._where = where
        self._pictures = pictures
        self._limiter = anyio.CapacityLimiter(_COMPUTED_TOGETHER)

    async def model(self, request: Request) -> Response:
        """Describe the model, and give the pictures that the page opens with."""
        return JSONResponse(await self._in_thread(self._description))

    async def picture(self, request: Request) -> Response:
        """Read a picture's file, and return the picture for the page."""
        content = await _body(request)
        return JSONResponse({"picture": await self._in_thread(lambda: self._fitted(content))})

    async def frames(self, request: Request) -> Response:
        """Compute frames and return their pixels, row by row, RGB."""
        start = time.perf_counter()
        wanted = _parsed(await _body(request))
        received = time.perf_counter()
        frames = await self._in_thread(lambda: wanted.frames(self._morpher))
        times_ms = {"receive": received - start, "model": time.perf_counter() - received}
        return Response(
            frames.tobytes(),
            media_type="application/octet-stream",
            headers={
                "x-frames": ",".join(map(str, frames.shape[:3])),
                "server-timing": ", ".join(f"{name};dur={1000 * spent:.2f}" for name, spent in times_ms.items()),
            },
        )

    async def file(self, request: Request) -> Response:
        """Compute frames and return them as a file."""
        kind = request.path_params["kind"]
        if kind not in _MEDIA_TYPES:
            raise RequestError(f"a morph cannot be written as {kind!r}: choose {', '.join(_MEDIA_TYPES)}")
        wanted = _parsed(await _body(request))
        content = await self._in_thread(lambda: _as_file(wanted.frames(self._morpher), kind))
        return Response(content, media_type=_MEDIA_TYPES[kind])

    def _description(self) -> dict[str, Any]:
        served = self._morpher.served_model()
        return {
            "where": self._where,
            "groups": served.groups,
            "labels": served.labels if self._can_edit() else {},
            "picture_size": served.picture_size,
            "max_strength": served.max_strength,
            "max_steps": served.max_steps,
            "max_bytes": MAX_BODY_BYTES,
            "kinds": [kind for kind in _MEDIA_TYPES if kind != "mp4" or importlib.util.find_spec("av")],
            "pictures": [self._fitted(picture) for picture in self._pictures],
        }

    def _can_edit(self) -> bool:
        try:
            self._morpher.served_model(EDIT)
        except RequestError:
            return False
        return True

    def _fitted(self, picture: bytes | npt.NDArray[np.uint8]) -> str:
        """Return a square picture, as large as the page needs it, as a PNG in base64."""
        loaded = load_picture(picture)
        size = max(self._morpher.picture_size, min(_PICTURE_SIZE, *loaded.shape[:2]))
        content = io.BytesIO()
        Image.fromarray(fit_picture(loaded, size)).save(content, "PNG")
        return base64.b64encode(content.getvalue()).decode()

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


async def _only_this_page(request: Request, answer: RequestResponseEndpoint) -> Response:
    """Refuse requests that other web pages send to this address through their visitors' browsers.

    A page of another site has another origin, which the browser states. Where a foreign host name leads to this machine
    (DNS rebinding), the browser states that name as the host.
    """
    if _is_own(request.headers):
        response = await answer(request)
    else:
        response = JSONResponse({"error": "this page answers only itself: open it at 127.0.0.1 or localhost"}, 403)
    response.headers.update(_HEADERS)
    return response


def _is_own(headers: Headers) -> bool:
    host, origin = headers.get("host", ""), headers.get("origin")
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name in _LOCAL_NAMES and origin in (None, f"http://{host}")


def page_app(morpher: Morpher, where: str, pictures: Sequence[npt.NDArray[np.uint8]] = ()) -> Starlette:
    """Return the page as an ASGI application.

    Args:
        morpher: what computes the frames.
        where: description of the morpher for the page, such as "Triton at 127.0.0.1:8001".
        pictures: up to two pictures that the page opens with, uint8 [H, W, 3].
    """
    page = _Page(morpher, where, pictures)
    return Starlette(
        routes=[
            Route("/model", page.model),
            Route("/pictures", page.picture, methods=["POST"]),
            Route("/frames", page.frames, methods=["POST"]),
            Route("/files/{kind}", page.file, methods=["POST"]),
            Mount("/", StaticFiles(directory=Path(__file__).parent / "page", html=True)),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=_only_this_page)],
        exception_handlers={HomomorphError: _error},
    )


async def _error(request: Request, error: Exception) -> Response:
    message = " ".join(str(error).split())
    return JSONResponse({"error": message}, 503 if isinstance(error, _TEMPORARY) else 400)


async def _body(request: Request) -> bytes:
    """Read a request's body.

    Raises:
        PictureError: it is too large.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise PictureError(f"the picture's file has more than {MAX_BODY_BYTES >> 20} MiB: scale it down first")
    return bytes(content)


def _parsed(content: bytes) -> _FrameRequest:
    """Read a request for frames.

    Raises:
        RequestError: it is not one.
    """
    try:
        return _FrameRequest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the request"
        raise RequestError(f"the request of the page cannot be read: {place}: {first['msg']}") from error


def _as_file(frames: npt.NDArray[np.uint8], kind: str) -> bytes:
    """Write frames as a .png strip, a .gif or an .mp4, and return the file's content.

    Raises:
        OutputError: PyAV is needed and missing, or the frames do not suit the format.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"frames.{kind}"
        write_output(path, frames)
        return path.read_bytes()
