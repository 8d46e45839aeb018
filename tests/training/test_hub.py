"""Runs go to the Hugging Face Hub and come back; the Hub is a folder here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

import homomorph
from homomorph.errors import CheckpointError
from homomorph.models.config import CompactConfig, ModelConfig
from homomorph.models.morph import MorphModel
from homomorph.runs.hub import push_to_hub
from homomorph.runs.record import METRICS_FILE, TrainingRecord, write_record
from homomorph.runs.run import MODEL_FILE, resolve_run, save_model
from homomorph_client.files import sha256


class FolderHub:
    """The part of the Hub's client that is called, on a folder."""

    root: Path

    def __init__(self, **_: Any) -> None:
        pass

    def create_repo(self, repo_id: str, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> str:
        shutil.copytree(folder_path, self.root / repo_id)
        return f"commit of {repo_id}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the repositories."""
    monkeypatch.setattr("huggingface_hub.HfApi", FolderHub)
    FolderHub.root = tmp_path / "hub"
    return FolderHub.root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small run with its records, and a file that does not belong on the Hub."""
    network = CompactConfig(
        feature_channels=16, widths=(8, 12, 16), encoder_blocks=(0, 0, 0), decoder_blocks=(0, 0, 0), branch_width=8
    )
    folder = tmp_path / "run"
    torch.manual_seed(0)
    save_model(folder, MorphModel(ModelConfig({"hair": ("blond",), "glasses": ("glasses",)}, 32, network)))
    write_record(folder, TrainingRecord(pictures=64000, hours=1.5, machine="a CPU, 2 threads"))
    figures = {"transfer": {"hair": 0.9, "glasses": 1.0}, "ghost": {"0.5": None}, "cost": {"frame_ms": 3}}
    meta = {"pairs": 512, "weights": {"run": sha256(folder / MODEL_FILE)}}
    (folder / METRICS_FILE).write_text(json.dumps({"homomorph": figures, "meta": meta}))
    (folder / "state.safetensors").write_bytes(b"of the optimizer")
    return folder


def test_a_run_comes_back_as_it_was(hub: Path, run: Path) -> None:
    assert push_to_hub(run, "owner/faces") == "commit of owner/faces"
    pushed = hub / "owner" / "faces"
    assert {file.name for file in pushed.iterdir()} == {
        "README.md", "config.json", "metrics.json", "model.safetensors", "training.json",
    }  # fmt: skip
    ours, theirs = homomorph.load(run), homomorph.from_pretrained(pushed)
    pictures = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8).numpy()
    assert (ours.morph(*pictures) == theirs.morph(*pictures)).all()


def test_the_card_has_the_figures_of_these_weights(hub: Path, run: Path) -> None:
    push_to_hub(run, "owner/faces")
    card = ModelCard.load(hub / "owner" / "faces" / "README.md")
    assert [(found.metric_type, found.metric_value) for found in card.data.eval_results] == [("transfer", 0.95)]
    assert "| transfer | 0.950 |" in card.content
    assert "64,000 pictures in 1.5 hours on a CPU, 2 threads" in card.content
    assert 'homomorph.from_pretrained("owner/faces")' in card.content
    (run / METRICS_FILE).write_text(json.dumps({"homomorph": {}, "meta": {"weights": {"run": "others"}}}))
    with pytest.raises(CheckpointError, match="figures of other weights"):
        push_to_hub(run, "owner/faces")


def test_shipped_runs_of_either_method_have_a_card(hub: Path) -> None:
    for name, said in (
        ("avatars64", "- `glasses`: round_glasses, square_glasses"),
        ("smiling64", "smiling,not_smiling"),
    ):
        push_to_hub(name, f"owner/{name}")
        assert said in (hub / "owner" / name / "README.md").read_text()
    assert sha256(hub / "owner" / "avatars64" / MODEL_FILE) == sha256(resolve_run("avatars64") / MODEL_FILE)


def test_a_name_that_is_nothing_is_one_line() -> None:
    with pytest.raises(CheckpointError, match="no folder, and cannot be loaded from the Hub"):
        homomorph.from_pretrained("no/such/repository")
    with pytest.raises(CheckpointError, match="no run at"):
        push_to_hub("absent", "owner/absent")
