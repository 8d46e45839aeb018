"""Damaged runs: one line in bounded time, whatever the file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from homomorph.errors import CheckpointError
from homomorph.models.config import CompactConfig, ModelConfig
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.models.morph import MorphModel
from homomorph.runs.cyclegan import is_cyclegan, load_cyclegan
from homomorph.runs.run import load_model, save_model

NETWORK = CompactConfig(
    feature_channels=8, widths=(4, 4, 4), encoder_blocks=(0, 0, 0), decoder_blocks=(0, 0, 0), branch_width=4
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(tmp_path / "run", MorphModel(ModelConfig({"hair": ("blond",)}, 16, NETWORK)))
    return tmp_path / "run"


def changed(run: Path, **values: Any) -> str:
    config = json.loads((run / "config.json").read_text())
    network = config["network"] | {key: value for key, value in values.items() if key in config["network"]}
    others = {key: value for key, value in values.items() if key not in config["network"]}
    return json.dumps(config | {"network": network} | others)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[]",
        '"text"',
        "7",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"method": ["homomorph"]}',
        "\udcff",
        '{"a": "' + "x" * 2**21 + '"}',
    ],
    ids=range(10),
)
def test_a_configuration_that_is_none(run: Path, content: str) -> None:
    (run / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    assert not is_cyclegan(run)
    for load in (load_model, load_cyclegan):
        with pytest.raises(CheckpointError) as caught:
            load(run)
        assert len(str(caught.value)) < 500


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "values",
    [
        {"feature_channels": 10**9},
        {"feature_channels": 65_536},
        {"feature_channels": 2.5},
        {"feature_channels": "8"},
        {"feature_channels": None},
        {"widths": [10**9] * 3},
        {"widths": []},
        {"widths": 7},
        {"encoder_blocks": [10**9, 0, 0]},
        {"branch_kernel": 10**6 + 1},
        {"branch_kernel": -3},
        {"groups": {f"g{n}": [f"a{n}"] for n in range(5000)}},
        {"groups": []},
        {"groups": {"hair": "blond"}},
        {"groups": {"hair": [{}]}},
        {"picture_size": "16"},
        {"picture_size": 17},
        {"picture_size": 10**30},
        {"picture_mean": [0.5]},
        {"picture_std": [0, 0, 0]},
        {"network": None},
        {"network": []},
    ],
    ids=str,
)
def test_a_configuration_of_other_networks(run: Path, values: dict[str, Any]) -> None:
    (run / "config.json").write_text(changed(run, **values))
    with pytest.raises(CheckpointError) as caught:
        load_model(run)
    assert len(str(caught.value)) < 1000


def test_a_cyclegan_of_a_billion_filters(tmp_path: Path) -> None:
    save_model(tmp_path, CycleGAN(CycleGANConfig(("a",), "resnet_6blocks", 2, 32)))
    for values in ({"filters": 10**9}, {"filters": 65_536}, {"generator": "resnet_9999blocks"}, {"filters": 2.5}):
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | values))
        with pytest.raises(CheckpointError):
            load_cyclegan(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(config))


def test_one_changed_bit_is_noticed(run: Path) -> None:
    weights = bytearray((run / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (run / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match="is damaged: it is not what was written, by its checksum"):
        load_model(run)


def test_what_is_not_finite_is_noticed_without_a_checksum(run: Path) -> None:
    state = load_file(run / "model.safetensors")
    name = next(iter(state))
    state[name].view(-1)[0] = torch.nan
    save_file(state, run / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{name} holds NaN or infinity"):
        load_model(run)


def test_a_cut_file_is_damaged(run: Path) -> None:
    weights = (run / "model.safetensors").read_bytes()
    for cut in (0, 4, 100, len(weights) - 1):
        (run / "model.safetensors").write_bytes(weights[:cut])
        with pytest.raises(CheckpointError, match="is damaged"):
            load_model(run)
