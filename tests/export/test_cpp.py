"""The program in export/cpp: its frames are Python's, bit for bit, and what it refuses it says in one line."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from homomorph_cli.works import slider_strengths
from homomorph_client.pictures import load_picture
from homomorph_client.served_model import ServedModel
from homomorph_export import torchscript
from homomorph_export.errors import OperatorError
from homomorph_export.manifest import Manifest
from homomorph_export.ops import library
from homomorph_export.ops.build import LIBRARY_FILE, find_compiler, find_tool


def served(manifest: Manifest) -> ServedModel:
    """What a client reads of the exported model."""
    return ServedModel("morph", manifest.groups, {}, manifest.picture_size, max_steps=256, max_strength=2)


SOURCES = Path(__file__).parents[2] / "export" / "cpp"

# The first test to come also waits for the build: half a minute on a core of its own, and minutes on a busy machine.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cpp")
    try:
        cmake, ninja, compiler = find_tool("cmake"), find_tool("ninja"), find_compiler()
    except OperatorError as error:
        pytest.skip(str(error))
    variables = {"CMAKE_MAKE_PROGRAM": ninja, "TORCH_FOLDER": Path(torch.__file__).parent}
    definitions = [f"-D{name}={value}" for name, value in variables.items()]
    configuration = subprocess.run(
        [cmake, "-G", "Ninja", "-S", SOURCES, "-B", folder, *definitions],
        env={**os.environ, "CXX": shlex.join(compiler)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "Could NOT find PNG" in configuration.stderr:
        pytest.skip("libpng's headers are missing (Debian and Ubuntu: `apt install libpng-dev`)")
    assert configuration.returncode == 0, configuration.stderr
    build = subprocess.run([cmake, "--build", folder], capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stdout
    return folder / "homomorph-morph"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The order of sums, and with it their last bit, can depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise(seed: int, height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "a.png", tmp_path / "b.png"
    for seed, path in enumerate(paths):
        noise(seed, 32, 32).save(path)
    return paths


def call(program: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *words], capture_output=True, text=True, check=False)


def frames_of(program: Path, repository: Path, pictures: tuple[Path, Path], *options: str) -> npt.NDArray[np.uint8]:
    """Run the program, and return what it wrote as [S, H, W, 3]."""
    out = pictures[0].parent / "out" / "frames"
    result = call(program, repository, *pictures, out, "--threads", "1", *options)
    assert result.returncode == 0, result.stderr
    noted = "note: the model was trained at 32x32 pixels" in result.stderr
    assert noted == (Image.open(pictures[0]).size != (32, 32))
    assert list(out.parent.iterdir()) == [out], "something temporary was left"
    paths = sorted(out.iterdir())
    assert [path.name for path in paths] == [f"frame-{index:03d}.png" for index in range(len(paths))]
    frames = [Image.open(path) for path in paths]
    assert {frame.mode for frame in frames} == {"RGB"}
    return np.stack([np.asarray(frame) for frame in frames])


def python_frames(
    repository: Path, pictures: tuple[Path, Path], strengths: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Return what the same files compute in Python."""
    library.load_library(repository / "interpolator" / "1" / LIBRARY_FILE)
    encoder_pair, interpolator, decoder = (
        torchscript.load_torchscript(repository / name / "1" / "model.pt")
        for name in ("encoder_pair", "interpolator", "decoder")
    )
    source, target = (torch.from_numpy(load_picture(path))[None] for path in pictures)
    with torch.inference_mode():
        features = interpolator(*encoder_pair(source, target), torch.from_numpy(strengths)[None])
        frames: npt.NDArray[np.uint8] = decoder(features)[0].numpy()
        return frames


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("size", "ends", "options"),
    [
        ((32, 32), {}, ["--steps", "7"]),
        ((40, 24), {}, []),
        ((32, 32), {"glasses": 1.7, "hair": 0.3}, ["--set", "glasses=1.7", "--set=hair=.3", "--steps", "3"]),
    ],
)
def test_frames_are_pythons(
    program: Path,
    exported: tuple[Path, Manifest],
    tmp_path: Path,
    size: tuple[int, int],
    ends: dict[str, float],
    options: list[str],
):
    repository, manifest = exported
    pictures = tmp_path / "a.png", tmp_path / "b.png"
    for seed, path in enumerate(pictures):
        noise(seed, *size).save(path)
    frames = frames_of(program, repository, pictures, *options)
    expected = python_frames(repository, pictures, slider_strengths(served(manifest), ends, len(frames)))
    np.testing.assert_array_equal(frames, expected)
    assert (frames[0] != frames[-1]).any()


def with_alpha(mode: str) -> Image.Image:
    picture = noise(2, 32, 32).convert(mode)
    picture.putalpha(noise(3, 32, 32).convert("L"))
    return picture


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("a", "b", "options"),
    [
        (noise(0, 32, 32).quantize(37), noise(1, 32, 32).quantize(200), {"transparency": 5}),
        (noise(0, 32, 32).convert("L"), noise(1, 32, 32).convert("1"), {}),
        (with_alpha("RGB"), with_alpha("L"), {}),
        (
            Image.fromarray(np.random.default_rng(0).integers(0, 65536, (32, 32), np.uint16)),
            Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32)),
            {},
        ),
    ],
    ids=["palette", "grey", "alpha", "16bit"],
)
def test_any_png_is_read_as_the_client_reads_it(
    program: Path,
    exported: tuple[Path, Manifest],
    tmp_path: Path,
    a: Image.Image,
    b: Image.Image,
    options: dict[str, int],
):
    repository, manifest = exported
    pictures = tmp_path / "a.png", tmp_path / "b.png"
    a.save(pictures[0])
    b.save(pictures[1], **options)
    frames = frames_of(program, repository, pictures, "--steps", "2")
    expected = python_frames(repository, pictures, slider_strengths(served(manifest), {}, 2))
    np.testing.assert_array_equal(frames, expected)


def test_times_and_help_are_printed(program: Path, repository: Path, pictures: tuple[Path, Path], tmp_path: Path):
    result = call(program, repository, *pictures, f"{tmp_path / 'out'}/", "--repeat", "3")
    assert result.stdout.startswith("9 frames of 32x32 pixels: ")
    assert len(list((tmp_path / "out").iterdir())) == 9
    result = call(program, "--help")
    assert result.returncode == 0
    assert all(option in result.stdout for option in ("--steps", "--set", "--threads", "--repeat", "GROUP=V"))


def test_program_needs_no_python_and_no_cuda(program: Path):
    content = program.read_bytes()
    assert b"libtorch_cpu.so" in content
    assert b"libtorch_python" not in content
    assert b"libtorch_cuda" not in content


def assert_refused(result: subprocess.CompletedProcess[str], message: str) -> None:
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "beard=1"], "there is no group 'beard': the model has hair, glasses, residual"),
        (["--set", "hair=2.5"], "the strength of hair must be from 0 to 2, not 2.5"),
        (["--set", "hair=nan"], "must be from 0 to 2"),
        (["--set", "hair"], "--set 'hair' must be GROUP=V"),
        (["--set", "hair=much"], "'much' is not a number"),
        (["--set", "hair=1", "--set", "hair=0"], "names 'hair' twice"),
        (["--steps", "1"], "steps must be from 2 to 256, not 1"),
        (["--steps", "4x"], "--steps: '4x' is not a number"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--steps"], "--steps is no option, or lacks its value"),
        (["--speed"], "--speed is no option, or lacks its value"),
        (["another"], "give REPOSITORY, A.png, B.png and OUT"),
    ],
)
def test_bad_options_are_refused(
    program: Path,
    repository: Path,
    pictures: tuple[Path, Path],
    tmp_path: Path,
    options: list[str],
    message: str,
):
    assert_refused(call(program, repository, *pictures, tmp_path / "out", *options), message)
    assert not (tmp_path / "out").exists()


def test_pictures_that_do_not_fit_are_refused(
    program: Path, repository: Path, pictures: tuple[Path, Path], tmp_path: Path
):
    good, other = pictures

    def refused(path: Path, message: str) -> None:
        assert_refused(call(program, repository, path, other, tmp_path / "out"), message)
        assert not (tmp_path / "out").exists()

    refused(tmp_path / "none.png", "none.png cannot be read as PNG: ")
    noise(0, 32, 32).save(tmp_path / "a.jpg")
    refused(tmp_path / "a.jpg", "a.jpg cannot be read as PNG: ")
    (tmp_path / "half.png").write_bytes(good.read_bytes()[:1500])
    refused(tmp_path / "half.png", "half.png is truncated or damaged: ")
    Image.new("1", (10000, 7000)).save(tmp_path / "huge.png")
    refused(tmp_path / "huge.png", "huge.png has more than 64 million pixels")
    noise(0, 32, 40).save(tmp_path / "wide.png")
    refused(tmp_path / "wide.png", "the pictures are of 40x32 and 32x32 pixels: scale or crop them to the same size")
    noise(0, 36, 36).save(other)
    noise(0, 36, 36).save(good)
    refused(good, "both sides are multiples of 8 up to 2048 (the model was trained at 32x32)")


def test_a_place_that_is_taken_is_refused(program: Path, repository: Path, pictures: tuple[Path, Path], tmp_path: Path):
    for out in (tmp_path, pictures[0]):
        assert_refused(call(program, repository, *pictures, out), "is there already: give a new or an empty folder")
    assert_refused(call(program, repository, *pictures, pictures[0] / "out"), "a.png is not a folder that can be")


def test_a_repository_that_is_none_or_damaged_is_refused(
    program: Path, repository: Path, pictures: tuple[Path, Path], tmp_path: Path
):
    out = tmp_path / "out"
    assert_refused(call(program, tmp_path, *pictures, out), "give a folder that `homomorph export` wrote")
    damaged = tmp_path / "repository"
    shutil.copytree(repository, damaged)
    model = damaged / "decoder" / "1" / "model.pt"
    model.write_bytes(model.read_bytes()[:5000])
    assert_refused(call(program, damaged, *pictures, out), f"{model} cannot be loaded: ")
    (damaged / "interpolator" / "1" / LIBRARY_FILE).unlink()
    assert_refused(call(program, damaged, *pictures, out), "the operator's library cannot be loaded: ")
    config = damaged / "morph" / "config.pbtxt"
    config.write_text(config.read_text().replace('"stride"', '"pace"'))
    assert_refused(call(program, damaged, *pictures, out), "has no usable parameter stride: export the model again")
    assert not out.exists()
