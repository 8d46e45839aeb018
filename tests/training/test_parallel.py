"""Several processes that train one model, and layers that compute in bfloat16."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from homomorph.data.batches import PairedBatches
from homomorph.data.labels import LabelledPictures
from homomorph.errors import ConfigError
from homomorph.runs.state import STATE_FILE
from homomorph.training.parallel import Processes
from homomorph.training.recipe import Preset, Recipe
from homomorph.training.trainer import train

_STEPS = 24
_SCRIPT = """
import json
from pathlib import Path
from homomorph.models.config import CompactConfig
from homomorph.data.labels import read_labelled
from homomorph.training.parallel import Processes
from homomorph.training.recipe import Jitter, Preset, Recipe
from homomorph.training.trainer import train

processes = Processes()
reports = list(train(
    read_labelled(Path({data!r})), Path({out!r}), preset={preset!r}, recipe={recipe!r}, steps={steps}, workers=0,
    processes=processes,
))
if processes.first:
    Path({out!r}, "terms.json").write_text(json.dumps([report.terms for report in reports]))
Path({out!r}, f"rank{{processes.rank}}").touch()
"""


def _train_in_two(out: Path, folder: Path, preset: Preset, recipe: Recipe) -> list[dict[str, float]]:
    script = out.with_suffix(".py")
    script.write_text(
        _SCRIPT.format(data=str(folder), out=str(out), preset=preset, recipe=recipe, steps=_STEPS), encoding="utf-8"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in out.glob("rank*")) == ["rank0", "rank1"]
    terms: list[dict[str, float]] = json.loads((out / "terms.json").read_text(encoding="utf-8"))
    return terms


def test_two_processes_reach_the_loss_of_one(
    avatars_folder: Path, data: LabelledPictures, tiny: Preset, tmp_path: Path
) -> None:
    preset = dataclasses.replace(tiny, batch_size=16)
    recipe = Recipe(feature_noise=0.0, warmup=0.5, critics=0.8)
    reports = train(data, tmp_path / "one", preset=preset, recipe=recipe, steps=_STEPS, workers=0)
    one = [report.terms for report in reports]
    two = _train_in_two(tmp_path / "two", avatars_folder, preset, recipe)
    # Phi's first batch, and the first step's means over pictures: the same pictures, with the same weights.
    assert two[0]["phi"] == pytest.approx(one[0]["phi"], rel=1e-5)
    prior, first = preset.phi_steps, preset.phi_steps + preset.prior_steps
    assert two[prior]["label_prior"] == pytest.approx(one[prior]["label_prior"], rel=1e-4)
    for name in ("pixel", "phi3"):
        assert two[first][name] == pytest.approx(one[first][name], rel=1e-3), name
        assert two[-1][name] == pytest.approx(one[-1][name], rel=0.1), name
        assert two[-1][name] < 0.9 * two[first][name]
    assert two[-1].keys() == one[-1].keys()


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_shards_hold_the_pictures_of_one_batch(data: LabelledPictures, tiny: Preset, shards: int) -> None:
    def batches(shard: int, shards: int) -> PairedBatches:
        return PairedBatches(
            data, batch_size=16, picture_size=32, jitter=tiny.jitter, seed=5, shard=shard, shards=shards
        )

    whole = batches(0, 1)[7]
    parts = [batches(shard, shards)[7] for shard in range(shards)]
    count = 16 // shards
    for part in parts:
        assert part.pictures.shape[0] == part.source.shape[0] == count
        assert part.source.max() < count
    # First partners, then second ones, as in the whole batch.
    halves = [torch.cat([part.pictures.split(count // 2)[side] for part in parts]) for side in (0, 1)]
    assert torch.equal(torch.cat(halves), whole.pictures)


def test_a_batch_that_cannot_be_divided_is_refused(data: LabelledPictures, tiny: Preset) -> None:
    with pytest.raises(ConfigError, match="batches of 16 pictures cannot be divided into pairs for 3 processes"):
        PairedBatches(data, batch_size=16, picture_size=32, jitter=tiny.jitter, seed=5, shards=3)


def test_a_batch_that_cannot_be_paired_leaves_no_run(data: LabelledPictures, tiny: Preset, tmp_path: Path) -> None:
    odd = dataclasses.replace(tiny, batch_size=5)
    with pytest.raises(ConfigError, match="batches of 5 pictures cannot be divided into pairs for 1 processes"):
        list(train(data, tmp_path / "run", preset=odd, recipe=Recipe(), steps=2, workers=0))
    assert not (tmp_path / "run").exists()


def test_layers_compute_in_bfloat16_and_weights_stay_float32(
    data: LabelledPictures, tiny: Preset, tmp_path: Path
) -> None:
    seen: set[torch.dtype] = set()
    terms = {}
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, _, output: seen.add(output.dtype) if isinstance(module, torch.nn.Conv2d) else None
    )
    try:
        for precision in ("fp32", "bf16"):
            seen.clear()
            reports = train(
                data,
                tmp_path / precision,
                preset=tiny,
                recipe=Recipe(warmup=0.3, critics=0.6),
                steps=6,
                workers=0,
                processes=Processes("cpu", precision),
            )
            terms[precision] = [report.terms for report in reports][-6:]
            assert (torch.bfloat16 in seen) == (precision == "bf16")
    finally:
        hook.remove()
    for name, value in terms["fp32"][0].items():
        assert terms["bf16"][0][name] == pytest.approx(value, rel=0.1, abs=0.02), name
    state = load_file(tmp_path / "bf16" / STATE_FILE)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}
    assert all(value.isfinite().all() for value in state.values())
