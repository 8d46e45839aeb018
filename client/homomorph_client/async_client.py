"""The asyncio client: `MorphClient`'s calls to await, with the same pictures, strengths and errors."""

from __future__ import annotations

from types import TracebackType

import numpy as np
import numpy.typing as npt
from tritonclient.grpc.aio import InferenceServerClient
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
from homomorph_client.labels import EDIT_MODEL, Labels, chosen_edit
from homomorph_client.pictures import Picture
from homomorph_client.served_model import ServedModel
from homomorph_client.strengths import Strengths, chosen_strengths


class AsyncMorphClient:
    """Asks a Triton server for morphs from within an event loop.

    async with AsyncMorphClient("127.0.0.1:8001") as client:
        films = await asyncio.gather(*(client.morph(a, b) for a, b in pairs))
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        picture_size: int | None = None,
        model_name: str = "morph",
    ) -> None:
        """Prepare a connection; arguments and errors are those of `MorphClient`."""
        check_url(url)
        check_timeout(timeout_s)
        self.url = url
        self.timeout_s = timeout_s
        self._picture_size = picture_size
        self._model_name = model_name
        self._models: dict[str, ServedModel] = {}
        self._triton = InferenceServerClient(url, channel_args=CHANNEL_OPTIONS)

    async def ready(self) -> bool:
        """Return whether the server is there and has loaded the model."""
        try:
            return bool(await self._triton.is_model_ready(self._model_name, client_timeout=self.timeout_s))
        except InferenceServerException:
            return False

    async def served_model(self, name: str | None = None) -> ServedModel:
        """Return the groups, labels and picture size of a model (`model_name` by default); the server is asked once.

        Raises:
            ServerUnavailableError: there is no server.
            DeadlineError: the server took longer than the timeout.
            RequestError: the server does not serve the model.
        """
        name = name or self._model_name
        if name not in self._models:
            try:
                answer = await self._triton.get_model_config(name, as_json=True, client_timeout=self.timeout_s)
            except InferenceServerException as error:
                raise typed_error(error, url=self.url, timeout_s=self.timeout_s) from error
            self._models[name] = ServedModel.from_config(answer["config"], picture_size=self._picture_size)
        return self._models[name]

    async def morph(
        self, source: Picture, target: Picture, *, steps: int | None = None, strengths: Strengths | None = None
    ) -> npt.NDArray[np.uint8]:
        """Morph one picture into another: arguments, result and errors are those of `MorphClient.morph`."""
        model = await self.served_model()
        chosen = chosen_strengths(model.groups, steps=steps, strengths=strengths)
        inputs = encode({"SOURCE": source, "TARGET": target}, {"STRENGTHS": chosen}, size=model.picture_size)
        try:
            return decode(await self._triton.infer(self._model_name, inputs, client_timeout=self.timeout_s))
        except InferenceServerException as error:
            raise typed_error(error, url=self.url, timeout_s=self.timeout_s) from error

    async def edit(
        self, source: Picture, labels: Labels, *, steps: int | None = None, strengths: Strengths | None = None
    ) -> npt.NDArray[np.uint8]:
        """Change a picture towards labels: arguments, result and errors are those of `MorphClient.edit`."""
        model = await self.served_model(EDIT_MODEL)
        wanted, chosen = chosen_edit(model.groups, model.labels, labels, steps=steps, strengths=strengths)
        inputs = encode({"SOURCE": source}, {"LABELS": wanted, "STRENGTHS": chosen}, size=model.picture_size)
        try:
            return decode(await self._triton.infer(EDIT_MODEL, inputs, client_timeout=self.timeout_s))
        except InferenceServerException as error:
            raise typed_error(error, url=self.url, timeout_s=self.timeout_s) from error

    async def close(self) -> None:
        """Close the connection; the client cannot be used afterwards."""
        await self._triton.close()

    async def __aenter__(self) -> AsyncMorphClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
