"""The asyncio client: `MorphClient`'s calls to await, with the same settings, pictures, strengths and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt
from tritonclient.grpc.service_pb2 import ModelConfigRequest, ModelInferRequest, ModelReadyRequest

from homomorph_client.base import BaseClient, Served
from homomorph_client.codec import (
    blend_request,
    decode,
    decode_part,
    edit_request,
    morph_request,
    translate_request,
)
from homomorph_client.errors import RequestError, RestartedServerError
from homomorph_client.full_size import full_size_edit, full_size_morph
from homomorph_client.labels import Labels
from homomorph_client.methods import blending_model, places_in_square, square_model
from homomorph_client.names import EDIT, HOMOMORPH, LATENT, MORPH_STREAM, TRANSLATE, Blend, Method
from homomorph_client.pictures import Picture
from homomorph_client.regions import Regions
from homomorph_client.served_model import ServedModel
from homomorph_client.strengths import Strengths, grid_strengths
from homomorph_client.translation import ServedTranslation


class AsyncMorphClient(BaseClient):
    """Request morphs from a Triton server within an event loop.

    Example::

        async with AsyncMorphClient("127.0.0.1:8001") as client:
            films = await asyncio.gather(*(client.morph(a, b) for a, b in pairs))
            async for frame in client.stream(a, b, steps=64):
                show(frame)
    """

    _grpc = grpc.aio
    _loop: asyncio.AbstractEventLoop | None = None
    """The event loop that the connection belongs to."""

    def _connect(self) -> None:
        """Check the settings of the connection; the first call opens it, in the event loop of that call."""
        self._connection.target()
        if self._connection.tls is not None:
            self._connection.tls.credentials()

    def _call_options(self, timeout_s: float | None) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        if self._loop is None and not self._closed:
            self._loop = loop
            super()._connect()
        elif self._loop is not loop and not self._closed:
            raise RequestError(
                "this client belongs to another event loop: make an AsyncMorphClient within each asyncio.run(...)"
            )
        return super()._call_options(timeout_s)

    async def ready(self, *, timeout_s: float | None = None) -> bool:
        """Return whether a server is there and has loaded the model; `timeout_s` is the client's unless given."""
        options = self._call_options(timeout_s)
        try:
            return bool((await self._stub.ModelReady(ModelReadyRequest(name=self._model_name), **options)).ready)
        except grpc.RpcError:
            return False

    async def served_model(self, name: str | None = None, *, timeout_s: float | None = None) -> ServedModel:
        """Return what `MorphClient.served_model` returns; errors are those too."""
        return await self._served(name or self._model_name, ServedModel, timeout_s)

    async def morph(
        self,
        source: Picture,
        target: Picture,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        method: Method = HOMOMORPH,
        urgent: bool = False,
        timeout_s: float | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Morph one picture into another: arguments, result and errors are those of `MorphClient.morph`."""
        model = await self.served_model(blending_model(method), timeout_s=timeout_s)
        # In a thread, because reading and resizing pictures would block the event loop.
        request = await asyncio.to_thread(
            morph_request, model, source, target, steps=steps, strengths=strengths, urgent=urgent
        )
        return await self._infer(request, timeout_s)

    async def edit(
        self,
        source: Picture,
        labels: Labels,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        urgent: bool = False,
        timeout_s: float | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Change a picture towards labels: arguments, result and errors are those of `MorphClient.edit`."""
        model = await self.served_model(EDIT, timeout_s=timeout_s)
        request = await asyncio.to_thread(
            edit_request, model, source, labels, steps=steps, strengths=strengths, urgent=urgent
        )
        return await self._infer(request, timeout_s)

    async def morph_full_size(
        self,
        source: Picture,
        target: Picture,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        size: int | None = None,
        urgent: bool = False,
        timeout_s: float | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Morph at the pictures' own size: arguments, result and errors are those of `MorphClient.morph_full_size`."""
        model = await self.served_model(timeout_s=timeout_s)
        wanted = await asyncio.to_thread(
            full_size_morph, model, source, target, steps=steps, strengths=strengths, size=size
        )
        frames = await self.morph(*wanted.pictures, strengths=wanted.strengths, urgent=urgent, timeout_s=timeout_s)
        return await asyncio.to_thread(wanted.finish, frames)

    async def edit_full_size(
        self,
        source: Picture,
        labels: Labels,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        size: int | None = None,
        urgent: bool = False,
        timeout_s: float | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Edit at the picture's own size: arguments, result and errors are those of `MorphClient.edit_full_size`."""
        model = await self.served_model(EDIT, timeout_s=timeout_s)
        wanted = await asyncio.to_thread(
            full_size_edit, model, source, labels, steps=steps, strengths=strengths, size=size
        )
        picture = wanted.pictures[0]
        frames = await self.edit(picture, labels, strengths=wanted.strengths, urgent=urgent, timeout_s=timeout_s)
        return await asyncio.to_thread(wanted.finish, frames)

    async def translate(
        self,
        picture: Picture,
        steps: str | Sequence[str],
        *,
        urgent: bool = False,
        timeout_s: float | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Change a picture in several directions: arguments, result and errors are those of `MorphClient.translate`."""
        model = await self.served_translation(timeout_s=timeout_s)
        request = await asyncio.to_thread(translate_request, model, picture, steps, urgent=urgent)
        return await self._infer(request, timeout_s)

    async def served_translation(self, *, timeout_s: float | None = None) -> ServedTranslation:
        """Return what `MorphClient.served_translation` returns; errors are those too."""
        return await self._served(TRANSLATE, ServedTranslation, timeout_s)

    async def stream(
        self,
        source: Picture,
        target: Picture,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        urgent: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncIterator[npt.NDArray[np.uint8]]:
        """Yield each frame of a morph as soon as it is there: arguments and errors are those of `MorphClient.stream`.

        The request is sent when the first frame is requested. To stop early, close the iterator
        (`contextlib.aclosing`); the server then stops too.
        """
        model = await self.served_model(MORPH_STREAM, timeout_s=timeout_s)
        request = await asyncio.to_thread(
            morph_request, model, source, target, steps=steps, strengths=strengths, urgent=urgent
        )
        attempts, answered = self._stream_attempts(timeout_s), False
        call = self._stub.ModelStreamInfer(iter([request]), **attempts.options())
        try:
            while True:
                try:
                    async for message in call:
                        answered = True
                        for frame in decode_part(message, self._connection.name):
                            yield frame
                    return
                except grpc.RpcError as error:
                    pause_s = attempts.pause_s(error, answered=answered)
                    if pause_s is None:
                        raise self._typed(error, attempts.timeout_s) from error
                await asyncio.sleep(pause_s)
                call = self._stub.ModelStreamInfer(iter([request]), **attempts.options())
        finally:
            call.cancel()  # no effect after the last frame

    async def grid(
        self,
        source: Picture,
        target: Picture,
        *,
        rows: str,
        columns: str,
        size: int = 5,
        urgent: bool = False,
        timeout_s: float | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Vary two groups against each other: arguments, result and errors are those of `MorphClient.grid`."""
        model = await self.served_model(timeout_s=timeout_s)
        strengths = grid_strengths(model, rows=rows, columns=columns, size=size)
        frames = await self.morph(source, target, strengths=strengths, urgent=urgent, timeout_s=timeout_s)
        return frames.reshape(size, size, *frames.shape[1:])

    async def square(
        self,
        corners: Sequence[Picture],
        *,
        method: Blend = LATENT,
        size: int = 5,
        urgent: bool = False,
        timeout_s: float | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Fill a square between four pictures: arguments, result and errors are those of `MorphClient.square`."""
        model = await self.served_model(square_model(method, corners), timeout_s=timeout_s)
        request = await asyncio.to_thread(blend_request, model, corners, places_in_square(model, size), urgent=urgent)
        frames = await self._infer(request, timeout_s)
        return frames.reshape(size, size, *frames.shape[1:])

    async def close(self) -> None:
        """Close the connection and give shared memory back; the client cannot be used afterwards."""
        self._closed = True
        if self._loop is asyncio.get_running_loop():
            await self._channel.close()
        if self._regions:
            await asyncio.to_thread(self._regions.close)

    async def __aenter__(self) -> AsyncMorphClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _served(self, name: str, kind: type[Served], timeout_s: float | None) -> Served:
        known: Served | None = self._known.get((name, kind))
        if known is not None:
            return known
        response = await self._call("ModelConfig", ModelConfigRequest(name=name), timeout_s)
        return self._remember(name, kind, response)

    async def _call(self, method: str, request: Any, timeout_s: float | None) -> Any:
        options = self._call_options(timeout_s)
        try:
            return await getattr(self._stub, method)(request, **options)
        except grpc.RpcError as error:
            raise self._typed(error, options["timeout"]) from error

    async def _infer(self, request: ModelInferRequest, timeout_s: float | None) -> npt.NDArray[np.uint8]:
        """Send a request and return its frames."""
        self._let_expire(request, timeout_s)
        if self._regions is None:
            return decode(await self._call("ModelInfer", request, timeout_s))
        try:
            return await self._infer_shared(self._regions, request, timeout_s)
        except RestartedServerError:
            return await self._infer_shared(self._regions, request, timeout_s)

    async def _infer_shared(
        self, regions: Regions, request: ModelInferRequest, timeout_s: float | None
    ) -> npt.NDArray[np.uint8]:
        with await asyncio.to_thread(regions.lend, request) as lease:  # in a thread, because it may call the server
            return lease.frames(await self._call("ModelInfer", lease.request, timeout_s))
