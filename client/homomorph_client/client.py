"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from types import TracebackType
from typing import Any

import grpc
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
from homomorph_client.errors import HomomorphError, RestartedServerError
from homomorph_client.labels import Labels
from homomorph_client.methods import blending_model, places_in_square, square_model
from homomorph_client.morpher import Morpher
from homomorph_client.names import EDIT, HOMOMORPH, LATENT, MORPH_STREAM, TRANSLATE, Blend, Method
from homomorph_client.pictures import Picture
from homomorph_client.regions import Regions
from homomorph_client.served_model import ServedModel
from homomorph_client.stream_attempts import StreamAttempts
from homomorph_client.strengths import Strengths, grid_strengths
from homomorph_client.translation import ServedTranslation


class MorphClient(BaseClient, Morpher):
    """Request morphs from a Triton server.

    One client serves any number of threads, over one connection::

        with MorphClient("127.0.0.1:8001") as client:
            frames = client.morph("a.png", "b.png", steps=9)
            smiles = client.morph("a.png", "b.png", strengths={"mouth": [0, 0.5, 1]})
    """

    _grpc = grpc

    def ready(self, *, timeout_s: float | None = None) -> bool:
        """Return whether a server is there and has loaded the model; `timeout_s` is the client's unless given."""
        options = self._call_options(timeout_s)
        try:
            return bool(self._stub.ModelReady(ModelReadyRequest(name=self._model_name), **options).ready)
        except grpc.RpcError:
            return False

    def served_model(self, name: str | None = None, *, timeout_s: float | None = None) -> ServedModel:
        """Return the groups, labels and picture size of a model (`model_name` by default); the server is asked once.

        Raises:
            ServerUnavailableError: there is no server.
            DeadlineError: the server took longer than the timeout.
            RequestError: the server does not serve the model.
        """
        return self._served(name or self._model_name, ServedModel, timeout_s)

    def morph(
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
        """Morph one picture into another.

        Args:
            source: path, PIL image or array; its centre is cropped and resized to `picture_size`.
            target: likewise.
            steps: number S of frames in which all groups go evenly from 0 to 1; 9 unless strengths are given.
            strengths: instead of steps, an array [S, K] with columns in the order of `groups`, or a mapping from
                group to S numbers (or to one number for all frames), where groups that are not named stay 0.
                0 is as in the source, 1 as in the target, 2 is the limit.
            method: `homomorph`, or a simpler method for comparison: `pixel`, `latent`, `slerp`. Each of these has one
                slider, `all`, and a served model of its own, which must be loaded (`homomorph serve --model`).
            urgent: whether the request overtakes requests that wait in the server, for interactive use.
            timeout_s: timeout of the call in seconds; None: the client's own timeout.

        Returns:
            uint8 [S, H, W, 3], RGB, values in [0, 255].

        Raises:
            PictureError: a picture cannot be used.
            StrengthError: steps or strengths cannot be used.
            MethodError: there is no such method.
            ServerUnavailableError: no server answers.
            OverloadedError: too many requests wait in the server.
            AccessError: the server requires other headers.
            DeadlineError: the server took longer than the timeout.
            RequestError: the server refused.
        """
        model = self.served_model(blending_model(method), timeout_s=timeout_s)
        request = morph_request(model, source, target, steps=steps, strengths=strengths, urgent=urgent)
        return self._infer(request, timeout_s)

    def edit(
        self,
        source: Picture,
        labels: Labels,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        urgent: bool = False,
        timeout_s: float | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Change a picture towards labels, without a second picture to take the look from.

        Example::

            client.edit("a.png", {"hair_colour": "blond_hair", "facial_hair": ["beard"]})

        Args:
            source: path, PIL image or array; its centre is cropped and resized to `picture_size`.
            labels: the wanted labels of each group that changes: one label, several, or none (an empty list).
            steps: number S of frames in which these groups go evenly from 0 to 1; 9 unless strengths are given.
            strengths: instead of steps, as for `morph`; groups that `labels` does not name stay 0.
            urgent: as for `morph`.
            timeout_s: as for `morph`.

        Returns:
            uint8 [S, H, W, 3], RGB, values in [0, 255].

        Raises:
            LabelError: a group or label is unknown, or strengths move a group that `labels` does not name.
            HomomorphError: as `morph`.
        """
        model = self.served_model(EDIT, timeout_s=timeout_s)
        request = edit_request(model, source, labels, steps=steps, strengths=strengths, urgent=urgent)
        return self._infer(request, timeout_s)

    def translate(
        self,
        picture: Picture,
        steps: str | Sequence[str],
        *,
        urgent: bool = False,
        timeout_s: float | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Change a picture in one direction of a CycleGAN, or in several one after the other, in one request.

        Example::

            client.translate("a.png", ["not_smiling", "blond_hair"])

        Args:
            picture: path, PIL image or array; its centre is cropped and resized to the size that the generators were
                trained at, or to the client's `picture_size`.
            steps: name of a direction, or of S of them; the same one may come again.
            urgent: as for `morph`.
            timeout_s: as for `morph`.

        Returns:
            uint8 [S, H, W, 3], RGB, values in [0, 255]: the picture after each step.

        Raises:
            DirectionError: a direction is unknown, or there are none or too many.
            HomomorphError: as `morph`.
        """
        model = self.served_translation(timeout_s=timeout_s)
        request = translate_request(model, picture, steps, urgent=urgent)
        return self._infer(request, timeout_s)

    def served_translation(self, *, timeout_s: float | None = None) -> ServedTranslation:
        """Return the directions and the picture size of `translate`; the server is asked once.

        Raises:
            HomomorphError: as `served_model`.
        """
        return self._served(TRANSLATE, ServedTranslation, timeout_s)

    def stream(
        self,
        source: Picture,
        target: Picture,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        urgent: bool = False,
        timeout_s: float | None = None,
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Morph one picture into another and yield each frame as soon as the server has decoded it.

        The request is sent at once. To stop early, close the iterator (`contextlib.closing`) or delete it; the server
        then stops too.

        Args:
            source: as for `morph`.
            target: as for `morph`.
            steps: as for `morph`.
            strengths: as for `morph`.
            urgent: as for `morph`.
            timeout_s: seconds until the last frame; None is the client's own timeout.

        Yields:
            uint8 [H, W, 3], RGB, values in [0, 255]; S of them.

        Raises:
            HomomorphError: as `morph`.
        """
        model = self.served_model(MORPH_STREAM, timeout_s=timeout_s)
        request = morph_request(model, source, target, steps=steps, strengths=strengths, urgent=urgent)
        attempts = self._stream_attempts(timeout_s)
        return self._frames(request, attempts, self._send(request, attempts))

    def submit(
        self,
        source: Picture,
        target: Picture,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        method: Method = HOMOMORPH,
        urgent: bool = False,
        timeout_s: float | None = None,
    ) -> Future[npt.NDArray[np.uint8]]:
        """Send the same request as `morph` and return at once; the future holds the result or the error.

        Cancelling the future cancels the request; the server finishes the step that it is at.

        Raises:
            HomomorphError: as `morph`, for errors that are found before the request is sent.
        """
        model = self.served_model(blending_model(method), timeout_s=timeout_s)
        request = morph_request(model, source, target, steps=steps, strengths=strengths, urgent=urgent)
        options = self._call_options(timeout_s)
        self._let_expire(request, timeout_s)
        lease = self._regions.lend(request) if self._regions else None
        call = self._stub.ModelInfer.future(lease.request if lease else request, **options)
        future: Future[npt.NDArray[np.uint8]] = Future()

        def frames(call: Any) -> npt.NDArray[np.uint8]:
            if call.code() is not grpc.StatusCode.OK:
                raise self._typed(call, options["timeout"])
            return lease.frames(call.result()) if lease else decode(call.result())

        def answered(call: Any) -> None:
            wanted = future.set_running_or_notify_cancel()
            try:
                with lease or nullcontext():
                    result = frames(call)
            except HomomorphError as error:
                if wanted:
                    future.set_exception(error)
            else:
                if wanted:
                    future.set_result(result)

        future.add_done_callback(lambda future: future.cancelled() and call.cancel())
        call.add_done_callback(answered)
        return future

    def grid(
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
        """Vary two groups against each other, in one request.

        Args:
            source: picture at the top left, as for `morph`.
            target: picture that the two groups are taken from.
            rows: group whose strength goes from 0 in the first row to 1 in the last.
            columns: group whose strength goes from 0 in the first column to 1 in the last.
            size: number N of rows and of columns, from 2 to 16.
            urgent: as for `morph`.
            timeout_s: as for `morph`.

        Returns:
            uint8 [N, N, H, W, 3], RGB, values in [0, 255].

        Raises:
            HomomorphError: as `morph`.
        """
        model = self.served_model(timeout_s=timeout_s)
        strengths = grid_strengths(model, rows=rows, columns=columns, size=size)
        frames = self.morph(source, target, strengths=strengths, urgent=urgent, timeout_s=timeout_s)
        return frames.reshape(size, size, *frames.shape[1:])

    def square(
        self,
        corners: Sequence[Picture],
        *,
        method: Blend = LATENT,
        size: int = 5,
        urgent: bool = False,
        timeout_s: float | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Fill a square between four pictures, one in each corner, in one request.

        Args:
            corners: the four of them, as for `morph`: upper left, upper right, lower left, lower right.
            method: `pixel`, `latent` or `slerp`; its served model must be loaded (`homomorph serve --model`).
            size: number N of rows and of columns, from 2 to 16.
            urgent: as for `morph`.
            timeout_s: as for `morph`.

        Returns:
            uint8 [N, N, H, W, 3], RGB, values in [0, 255].

        Raises:
            MethodError: the method blends no pictures, these are not four, or the square has too many cells.
            HomomorphError: as `morph`.
        """
        model = self.served_model(square_model(method, corners), timeout_s=timeout_s)
        request = blend_request(model, corners, places_in_square(model, size), urgent=urgent)
        frames = self._infer(request, timeout_s)
        return frames.reshape(size, size, *frames.shape[1:])

    def close(self) -> None:
        """Close the connection and give shared memory back; the client cannot be used afterwards."""
        self._closed = True
        self._channel.close()
        if self._regions:
            self._regions.close()

    def __enter__(self) -> MorphClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _served(self, name: str, kind: type[Served], timeout_s: float | None) -> Served:
        known: Served | None = self._known.get((name, kind))
        if known is not None:
            return known
        response = self._call(self._stub.ModelConfig, ModelConfigRequest(name=name), timeout_s)
        return self._remember(name, kind, response)

    def _call(self, method: Callable[..., Any], request: Any, timeout_s: float | None) -> Any:
        options = self._call_options(timeout_s)
        try:
            return method(request, **options)
        except grpc.RpcError as error:
            raise self._typed(error, options["timeout"]) from error

    def _infer(self, request: ModelInferRequest, timeout_s: float | None) -> npt.NDArray[np.uint8]:
        """Send a request and return its frames."""
        self._let_expire(request, timeout_s)
        if self._regions is None:
            return decode(self._call(self._stub.ModelInfer, request, timeout_s))
        try:
            return self._infer_shared(self._regions, request, timeout_s)
        except RestartedServerError:
            return self._infer_shared(self._regions, request, timeout_s)

    def _infer_shared(
        self, regions: Regions, request: ModelInferRequest, timeout_s: float | None
    ) -> npt.NDArray[np.uint8]:
        with regions.lend(request) as lease:
            return lease.frames(self._call(self._stub.ModelInfer, lease.request, timeout_s))

    def _send(self, request: ModelInferRequest, attempts: StreamAttempts) -> Any:
        return self._stub.ModelStreamInfer(iter([request]), **attempts.options())

    def _frames(
        self, request: ModelInferRequest, attempts: StreamAttempts, call: Any
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the frames of a stream whose first attempt has been sent."""
        answered = False
        try:
            while True:
                try:
                    for message in call:
                        answered = True
                        yield from decode_part(message, self._connection.name)
                    return
                except grpc.RpcError as error:
                    pause_s = attempts.pause_s(error, answered=answered)
                    if pause_s is None:
                        raise self._typed(error, attempts.timeout_s) from error
                time.sleep(pause_s)
                call = self._send(request, attempts)
        finally:
            call.cancel()  # no effect after the last frame
