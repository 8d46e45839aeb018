"""CycleGANs behind the real server: what comes over gRPC and out of the command, against eager PyTorch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from homomorph.models.translator import Translator
from homomorph.runs.cyclegan import load_translator
from homomorph_client import AsyncMorphClient, DirectionError, MorphClient, PictureError, RequestError
from homomorph_export.exporter import export_cyclegans
from homomorph_export.serving.server import TritonServer

pytestmark = pytest.mark.server

CHAIN = ["blond", "smiling", "not_smiling", "smiling"]


@pytest.fixture(scope="module")
def url(cyclegan_runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of `translate`, and of one direction alone."""
    repository = tmp_path_factory.mktemp("translation") / "triton_repo"
    export_cyclegans(cyclegan_runs, repository, onnx=False, threads=1)
    with TritonServer(repository, models=("translate", "translate_smiling")) as server:
        yield server.grpc_url


@pytest.fixture(scope="module")
def translator(cyclegan_runs: tuple[Path, Path]) -> Translator:
    return load_translator(cyclegan_runs)


def infer(url: str, model: str, arrays: dict[str, npt.NDArray[Any]], output: str) -> npt.NDArray[np.uint8]:
    """Send arrays as they are, without the client's checks."""
    tensors = []
    for name, array in arrays.items():
        tensors.append(InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        tensors[-1].set_data_from_numpy(array)
    with InferenceServerClient(url) as triton:
        frames: npt.NDArray[np.uint8] = triton.infer(model, tensors, client_timeout=60).as_numpy(output)
    return frames


def assert_steps(
    translator: Translator, source: npt.NDArray[np.uint8], steps: list[str], frames: npt.NDArray[np.uint8]
) -> None:
    """Hold each frame against what the run makes of the one before."""
    assert frames.shape == (len(steps), *source.shape)
    for before, step, frame in zip([source, *frames], steps, frames, strict=False):
        (expected,) = translator.chained(before, [step])
        assert np.abs(frame.astype(int) - expected.astype(int)).max() <= 1
        assert np.abs(expected.astype(int) - before.astype(int)).max() > 30


def test_a_chain_is_what_eager_pytorch_computes(
    url: str, translator: Translator, pictures: npt.NDArray[np.uint8]
) -> None:
    with MorphClient(url) as client:
        assert client.served_translation().directions == ("smiling", "not_smiling", "blond")
        frames = client.translate(pictures[0], CHAIN)
        alone = client.translate(pictures[0], "blond")
    assert_steps(translator, pictures[0], CHAIN, frames)
    assert np.abs(alone[0].astype(int) - frames[0]).max() <= 1

    async def translated() -> npt.NDArray[np.uint8]:
        async with AsyncMorphClient(url) as client:
            return await client.translate(pictures[0], CHAIN)

    assert np.array_equal(asyncio.run(translated()), frames)


def test_one_direction_is_a_model_too(url: str, translator: Translator, pictures: npt.NDArray[np.uint8]) -> None:
    frame = infer(url, "translate_smiling", {"IMAGE": pictures[:1]}, "FRAME")
    assert_steps(translator, pictures[0], ["smiling"], frame)


def test_a_batch_changes_no_picture(url: str, pictures: npt.NDArray[np.uint8]) -> None:
    given = np.concatenate([pictures, pictures[:1, ::-1]])
    steps = np.array([[0, 2], [2, 1], [1, 0]])
    for model, output, arrays in (
        ("translate", "FRAMES", {"IMAGE": given, "STEPS": steps}),
        ("translate_smiling", "FRAME", {"IMAGE": given}),
    ):
        together = infer(url, model, arrays, output)
        for row in range(3):
            alone = infer(url, model, {name: array[row : row + 1] for name, array in arrays.items()}, output)
            difference = np.abs(together[row].astype(int) - alone[0].astype(int))
            assert difference.mean() < 0.02
            # What rounds the other way in the first step may grow in the second.
            assert difference.max() <= 1 if model == "translate_smiling" else difference[0].max() <= 1


def test_requests_at_once_are_batched_and_keep_apart(
    url: str, translator: Translator, pictures: npt.NDArray[np.uint8]
) -> None:
    requests = [(picture, steps) for picture in pictures for steps in (["smiling", "blond"], ["blond", "smiling"])] * 4
    with MorphClient(url) as client, ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(lambda request: client.translate(*request), requests))
    for (picture, steps), frames in zip(requests, answers, strict=True):
        assert_steps(translator, picture, steps, frames)
    with InferenceServerClient(url) as triton:
        (statistics,) = triton.get_inference_statistics("translate", as_json=True)["model_stats"]
    assert int(statistics["execution_count"]) < int(statistics["inference_count"]), "no two requests were batched"


def test_other_sizes(url: str, translator: Translator, pictures: npt.NDArray[np.uint8]) -> None:
    with MorphClient(url, picture_size=128) as client:
        assert client.translate(pictures[0], "blond").shape == (1, 128, 128, 3)
    with MorphClient(url, picture_size=96) as client, pytest.raises(PictureError, match="multiple of 64, not 96"):
        client.translate(pictures[0], "blond")
    # A direction of its own keeps its own, smaller stride.
    picture = pictures[:1, :36, :48].copy()
    frame = infer(url, "translate_smiling", {"IMAGE": picture}, "FRAME")
    assert_steps(translator, picture[0], ["smiling"], frame)


def test_what_cannot_be_asked_for_is_refused(url: str, pictures: npt.NDArray[np.uint8]) -> None:
    with MorphClient(url) as client:
        with pytest.raises(DirectionError, match="no direction 'old': the model has smiling, not_smiling, blond"):
            client.translate(pictures[0], ["blond", "old"])
        with pytest.raises(RequestError, match="'morph'"):
            client.morph(*pictures)
    image = pictures[:1]
    for arrays, message in (
        ({"IMAGE": image, "STEPS": np.array([[3]])}, "STEPS: every value must be a number from 0 to 2, not 3"),
        ({"IMAGE": image, "STEPS": np.array([[-1]])}, "from 0 to 2, not -1"),
        ({"IMAGE": image, "STEPS": np.zeros((1, 33), np.int64)}, "STEPS: S must be from 1 to 32, not 33"),
        ({"IMAGE": image[:, :36], "STEPS": np.array([[0]])}, "IMAGE: H must be a multiple of 64 from 64 to 2048"),
        (
            {"IMAGE": np.zeros((1, 2048, 2048, 3), np.uint8), "STEPS": np.zeros((1, 5), np.int64)},
            "STEPS: too many frames for their size: 5 of 2048x2048 pixels",
        ),
    ):
        with pytest.raises(InferenceServerException, match=message):
            infer(url, "translate", arrays, "FRAMES")
    assert infer(url, "translate", {"IMAGE": image, "STEPS": np.array([[1]])}, "FRAMES").shape == (1, 1, 64, 64, 3)


def test_the_command_asks_the_server_or_computes_itself(
    homomorph: Callable[..., Any],
    url: str,
    cyclegan_runs: tuple[Path, Path],
    pictures: npt.NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    Image.fromarray(pictures[0]).save(tmp_path / "a.png")
    served, folder, local = tmp_path / "served.png", tmp_path / "frames", tmp_path / "local.png"
    words = ["translate", tmp_path / "a.png", "--steps", "blond, smiling"]
    outcome = homomorph(*words, "--out", served, "--out", folder, "--url", url)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"{served}\n{folder}\n2 frames of 64x64 pixels in ")
    runs = [word for run in cyclegan_runs for word in ("--run", run)]
    outcome = homomorph(*words, "--out", local, *runs)
    assert (outcome.code, outcome.err) == (0, "")
    found, expected = (np.asarray(Image.open(path)).astype(int) for path in (served, local))
    assert found.shape == expected.shape == (64, 2 * 64, 3)
    assert np.abs(found - expected).mean() < 0.02
    frames = [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]
    assert np.array_equal(np.concatenate(frames, axis=1), found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "blond", "--out", "x.jpg"], ".jpg cannot be written"),
        (["--steps", "", "--out", "x.png"], "a step has no name"),
        (["--steps", "blond,,smiling", "--out", "x.png"], "a step has no name"),
        (["--out", "x.png"], "Missing option '--steps'"),
        (["--steps", "old", "--out", "x.png", "--run", "RUN"], "there is no direction 'old': the model has blond"),
        (["--steps", "blond", "--out", "x.png", "--run", "nowhere"], "no run at nowhere: give a folder"),
        (["--steps", "blond", "--out", "x.png", "--run", "avatars64"], "avatars64 is no CycleGAN's run"),
        (["--steps", "blond", "--out", "x.png", "--url", "127.0.0.1:9"], "no server answers gRPC at 127.0.0.1:9"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_commands_are_one_line(
    homomorph: Callable[..., Any],
    cyclegan_runs: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    Image.new("RGB", (64, 64), "white").save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    outcome = homomorph("translate", "a.png", *[cyclegan_runs[1] if word == "RUN" else word for word in words])
    assert (outcome.code, outcome.err.count("\n"), outcome.out) == (2, 1, "")
    assert message in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
