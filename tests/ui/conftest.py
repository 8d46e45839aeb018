"""The page on a free port, with a model that computes in no time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from starlette.applications import Starlette

from homomorph_client.errors import ServerUnavailableError
from homomorph_client.labels import Labels, chosen_edit
from homomorph_client.morpher import Morpher
from homomorph_client.names import HOMOMORPH, LATENT, Blend, Method
from homomorph_client.pictures import Picture, fit_picture, load_picture
from homomorph_client.served_model import ServedModel
from homomorph_client.strengths import Strengths, chosen_strengths
from homomorph_ui.app import page_app
from homomorph_ui.serve import listen, page_server

DOCS = Path(__file__).parents[2] / "docs"


class Blender(Morpher):
    """Blends pixels. Each group has a colour channel; an edit makes its channel white."""

    def __init__(self) -> None:
        labels = {"red": ("light", "bright"), "green": ("lime",)}
        self._described = ServedModel("morph", ("red", "green", "residual"), labels, 64, 64, 2.0)
        self.is_down = False
        self.calls = 0

    def served_model(self, name: str | None = None) -> ServedModel:
        if self.is_down:
            raise ServerUnavailableError("no server answers at 127.0.0.1:1")
        return self._described

    def morph(
        self,
        source: Picture,
        target: Picture,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        method: Method = HOMOMORPH,
        urgent: bool = False,
    ) -> npt.NDArray[np.uint8]:
        self.calls += 1
        chosen = chosen_strengths(self.served_model(), steps=steps, strengths=strengths)
        a, b = (fit_picture(picture, self.picture_size).astype(np.float32) for picture in (source, target))
        return _to_pictures(a + chosen[:, None, None] * (b - a))

    def edit(
        self,
        source: Picture,
        labels: Labels,
        *,
        steps: int | None = None,
        strengths: Strengths | None = None,
        urgent: bool = False,
    ) -> npt.NDArray[np.uint8]:
        self.calls += 1
        _, chosen = chosen_edit(self.served_model(), labels, steps=steps, strengths=strengths)
        a = fit_picture(source, self.picture_size).astype(np.float32)
        return _to_pictures(a + chosen[:, None, None] * (255 - a))

    def square(self, corners: Sequence[Picture], *, method: Blend = LATENT, size: int = 5) -> npt.NDArray[np.uint8]:
        raise NotImplementedError


def _to_pictures(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return values.clip(0, 255).round().astype(np.uint8)


@contextlib.contextmanager
def served(app: Starlette, port: int = 0) -> Iterator[int]:
    """Serve an application in a thread, and yield its port."""
    server = page_server(app)
    with listen(port) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def served_page() -> Callable[..., contextlib.AbstractContextManager[int]]:
    """`served`, for tests that start and stop the page themselves."""
    return served


@pytest.fixture
def blender() -> Blender:
    return Blender()


@pytest.fixture
def page(blender: Blender) -> Iterator[str]:
    """host:port of a page that opens with two pictures."""
    pictures = [load_picture(DOCS / f"{name}.png") for name in ("source", "target")]
    with served(page_app(blender, "a blender", pictures)) as port:
        yield f"127.0.0.1:{port}"
