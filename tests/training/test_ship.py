"""Shipped runs are stored in half precision, and draw the same pictures."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from homomorph.errors import CheckpointError
from homomorph.models.morph import MorphModel
from homomorph.runs import ship as shipping
from homomorph.runs.cyclegan import load_cyclegan
from homomorph.runs.label_features import load_label_features
from homomorph.runs.run import MODEL_FILE, load_model, resolve_run, save_model
from homomorph.runs.ship import LARGEST_MEAN_DIFFERENCE, ship


@pytest.mark.parametrize("name", ["avatars64", "smiling64"])
def test_half_precision_draws_the_same_pictures(name: str, tmp_path: Path) -> None:
    run = resolve_run(name)
    difference = ship(run, tmp_path / name)
    assert difference <= LARGEST_MEAN_DIFFERENCE
    stored = load_file(tmp_path / name / MODEL_FILE)
    assert {value.dtype for value in stored.values() if value.is_floating_point()} == {torch.float16}
    load = load_model if name == "avatars64" else load_cyclegan
    network = load(tmp_path / name)
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    for key, value in load(run).state_dict().items():
        torch.testing.assert_close(network.state_dict()[key], value, rtol=1e-3, atol=1e-5)
    assert network.config == load(run).config
    if isinstance(network, MorphModel):
        stored_features = load_label_features(tmp_path / name, network.config)
        assert stored_features is not None
        assert stored_features.base.dtype == torch.float32


def test_a_run_that_would_change_is_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "save_model", lambda folder, model, dtype: save_model(folder, _moved(model)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(CheckpointError, match=r"change by \d+\.\d+ grey levels on average, more than 0.1"):
        ship(resolve_run("smiling64"), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def _moved(model: torch.nn.Module) -> torch.nn.Module:
    moved = copy.deepcopy(model)
    for parameter in moved.parameters():
        parameter.data += 0.01
    return moved
