"""The blocking client."""

from __future__ import annotations

from concurrent.futures import Future
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferResult
from tritonclient.utils import InferenceServerException

from homomorph_client.codec import decode, encode
from homomorph_client.connection import (
    CHANNEL_OPTIONS,
    DEFAULT_TIMEOUT_S,
    DEFAULT_URL,
    check_timeout,
    check_url,
    typed_error,
)
from homomorph_client.errors import HomomorphError
from homomorph_client.labels import EDIT_MODEL, Labels, chosen_edit
from homomorph_client.pictures import Picture
from homomorph_client.served_model import ServedModel
from homomorph_client.strengths import Strengths, chosen_strengths, grid_strengths


class MorphClient:
    """Asks a Triton server for morphs.

    One client serves any number of threads. Nothing is sent before the first call.

        with MorphClient("127.0.0.1:8001") as client:
            frames = client.morph("a.png", "b.png", steps=9)
            smiles = client.morph("a.png", "b.png", strengths={"expression": [0, 0.5, 1]})
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        picture_size: int | None = None,
        model_name: str = "morph",
    ) -> None:
        """Prepare a connection.

        Args:
            url: host:port of the server's gRPC.
            timeout_s: seconds that each call may take.
            picture_size: height and width in pixels to morph at, a multiple of the model's stride; None is what
                the model was trained at.
            model_name: the served model.

        Raises:
            ServerUnavailableError: `url` is not host:port.
            DeadlineError: `timeout_s` is not positive.
        """
        check_url(url)
        check_timeout(timeout_s)
        self.url = url
        self.timeout_s = timeout_s
        self._picture_size = picture_size
        self._model_name = model_name
        self._models: dict[str, ServedModel] = {}
        self._triton = InferenceServerClient(url, channel_args=CHANNEL_OPTIONS)

    def ready(self) -> bool:
        """Return whether the server is there and has loaded the model."""
        try:
            return bool(self._triton.is_model_ready(self._model_name, client_timeout=self.timeout_s))
        except InferenceServerException:
            return False

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the sliders in the order of the strengths' columns; `residual` comes last."""
        return self._served_model().groups

    @property
    def picture_size(self) -> int:
        """Height and width in pixels of the frames."""
        return self._served_model().picture_size

    def morph(
        self, source: Picture, target: Picture, *, steps: int | None = None, strengths: Strengths | None = None
    ) -> npt.NDArray[np.uint8]:
        """Morph one picture into another.

        Args:
            source: path, PIL image or array; its centre is cropped and resized to `picture_size`.
            target: likewise.
            steps: number S of frames in which all groups go evenly from 0 to 1; 9 unless strengths are given.
            strengths: instead of steps, an array [S, K] with columns in the order of `groups`, or a mapping from
                group to S numbers (or to one number for all frames), where groups that are not named stay 0.
                0 is as in the source, 1 as in the target, 2 is the limit.

        Returns:
            uint8 [S, H, W, 3], RGB, values in [0, 255].

        Raises:
            PictureError: a picture cannot be used.
            StrengthError: steps or strengths cannot be used.
            ServerUnavailableError: there is no server.
            DeadlineError: the server took longer than the timeout.
            RequestError: the server refused.
        """
        request = self._request(source, target, chosen_strengths(self.groups, steps=steps, strengths=strengths))
        try:
            return decode(self._triton.infer(**request))
        except InferenceServerException as error:
            raise self._typed(error) from error

    def edit(
        self, source: Picture, labels: Labels, *, steps: int | None = None, strengths: Strengths | None = None
    ) -> npt.NDArray[np.uint8]:
        """Change a picture towards labels, without a second picture to take the look from.

            client.edit("a.png", {"hair_colour": "blond_hair", "expression": ["smiling", "happy_eyes"]})

        Args:
            source: path, PIL image or array; its centre is cropped and resized to `picture_size`.
            labels: for each group that changes, what it shall show: one label, several, or none of its labels
                (an empty list).
            steps: number S of frames in which these groups go evenly from 0 to 1; 9 unless strengths are given.
            strengths: instead of steps, as for `morph`; groups that `labels` does not name stay 0.

        Returns:
            uint8 [S, H, W, 3], RGB, values in [0, 255].

        Raises:
            LabelError: a group or label is unknown, or strengths move a group that `labels` does not name.
            HomomorphError: as `morph`.
        """
        model = self._served_model(EDIT_MODEL)
        wanted, chosen = chosen_edit(model.groups, model.labels, labels, steps=steps, strengths=strengths)
        inputs = encode({"SOURCE": source}, {"LABELS": wanted, "STRENGTHS": chosen}, size=model.picture_size)
        try:
            return decode(self._triton.infer(EDIT_MODEL, inputs, client_timeout=self.timeout_s))
        except InferenceServerException as error:
            raise self._typed(error) from error

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """Of each group that has labels, their names."""
        return self._served_model().labels

    def submit(
        self, source: Picture, target: Picture, *, steps: int | None = None, strengths: Strengths | None = None
    ) -> Future[npt.NDArray[np.uint8]]:
        """Send what `morph` would send and return at once; the future holds its result or error.

        Raises:
            HomomorphError: as `morph`, where it can be told before the server answers.
        """
        request = self._request(source, target, chosen_strengths(self.groups, steps=steps, strengths=strengths))
        future: Future[npt.NDArray[np.uint8]] = Future()
        future.set_running_or_notify_cancel()  # it is on its way: cancelling it would promise too much

        def answered(result: InferResult | None, error: InferenceServerException | None) -> None:
            if error is not None:
                future.set_exception(self._typed(error))
                return
            try:
                future.set_result(decode(result))
            except HomomorphError as refused:
                future.set_exception(refused)

        self._triton.async_infer(callback=answered, **request)
        return future

    def grid(
        self, source: Picture, target: Picture, *, rows: str, columns: str, size: int = 5
    ) -> npt.NDArray[np.uint8]:
        """Vary two groups against each other, in one request.

        Args:
            source: picture at the top left, as for `morph`.
            target: picture that the two groups are taken from.
            rows: group whose strength goes from 0 in the first row to 1 in the last.
            columns: group whose strength goes from 0 in the first column to 1 in the last.
            size: number N of rows and of columns, from 2 to 16.

        Returns:
            uint8 [N, N, H, W, 3], RGB, values in [0, 255].

        Raises:
            HomomorphError: as `morph`.
        """
        strengths = grid_strengths(self.groups, rows=rows, columns=columns, size=size)
        frames = self.morph(source, target, strengths=strengths)
        return frames.reshape(size, size, *frames.shape[1:])

    def close(self) -> None:
        """Close the connection; the client cannot be used afterwards."""
        self._triton.close()

    def __enter__(self) -> MorphClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _served_model(self, name: str | None = None) -> ServedModel:
        name = name or self._model_name
        if name not in self._models:
            try:
                answer = self._triton.get_model_config(name, as_json=True, client_timeout=self.timeout_s)
            except InferenceServerException as error:
                raise self._typed(error) from error
            self._models[name] = ServedModel.from_config(answer["config"], picture_size=self._picture_size)
        return self._models[name]

    def _request(self, source: Picture, target: Picture, strengths: npt.NDArray[np.float32]) -> dict[str, Any]:
        return {
            "model_name": self._model_name,
            "inputs": encode({"SOURCE": source, "TARGET": target}, {"STRENGTHS": strengths}, size=self.picture_size),
            "client_timeout": self.timeout_s,
        }

    def _typed(self, error: InferenceServerException) -> HomomorphError:
        return typed_error(error, url=self.url, timeout_s=self.timeout_s)
