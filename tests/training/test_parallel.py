"""Several processes that train one model, and layers that compute in bfloat16."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from homomorph.data.batches import PairedBatches
from homomorph.data.labels import LabelledPictures
from homomorph.errors import ConfigError
from homomorph.progress import Progress
from homomorph.runs.record import read_record
from homomorph.runs.state import STATE_FILE
from homomorph.training import loop
from homomorph.training.default.recipe import DefaultRecipe
from homomorph.training.methods import make_method
from homomorph.training.parallel import Processes
from homomorph.training.published.recipe import PublishedRecipe
from homomorph.training.settings import MorphPreset

_STEPS = 24
_SCRIPT = """
import json
from pathlib import Path
from homomorph.data.labels import read_labelled
from homomorph.training import loop
from homomorph.training.methods import make_method
from homomorph.training.parallel import Processes
from homomorph.training.settings import read_preset

data, processes = read_labelled(Path({data!r})), Processes()
for out in map(Path, {outs!r}):
    reports = []
    method = make_method(data, read_preset(str(out.with_suffix(".yaml"))), processes=processes)
    loop.train(method, out, steps={steps}, workers=0, processes=processes, report=reports.append)
    if processes.first:
        (out / "terms.json").write_text(json.dumps([report.figures for report in reports]))
    (out / f"rank{{processes.rank}}").touch()
"""


@dataclass(frozen=True)
class Case:
    """A training in two processes, and what it is compared by."""

    recipe: DefaultRecipe | PublishedRecipe
    learning_rate: float
    falling: str
    """The term that falls."""
    tolerance: float
    """Largest relative difference of the first value of that term."""

    def preset(self, tiny: MorphPreset) -> MorphPreset:
        recipe, rate = self.recipe, self.learning_rate
        return dataclasses.replace(tiny, batch_size=16, steps=_STEPS, recipe=recipe, learning_rate=rate)


CASES = {
    # In each process, pictures stand in for those of its own part alone.
    "default": Case(DefaultRecipe(decoder_from=0.8), 2e-2, "reconstruction", 0.05),
    "published": Case(PublishedRecipe(phi_steps=4), 5e-3, "pixel", 1e-3),
}


@pytest.fixture(scope="module")
def in_two(avatars_folder: Path, tiny: MorphPreset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train each case in two processes, which are started once: they import torch for longer than they train."""
    folder = tmp_path_factory.mktemp("in_two")
    for name, case in CASES.items():
        settings = json.dumps(dataclasses.asdict(case.preset(tiny)))  # which is YAML too
        (folder / f"{name}.yaml").write_text(settings, encoding="utf-8")
    script, outs = folder / "train.py", [str(folder / name) for name in CASES]
    script.write_text(_SCRIPT.format(data=str(avatars_folder), outs=outs, steps=_STEPS), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_reach_the_loss_of_one(
    in_two: Path, data: LabelledPictures, tiny: MorphPreset, tmp_path: Path, name: str
) -> None:
    falling, tolerance = CASES[name].falling, CASES[name].tolerance
    reports: list[Progress] = []
    method = make_method(data, CASES[name].preset(tiny))
    loop.train(method, tmp_path / "one", steps=_STEPS, workers=0, report=reports.append)
    one = [dict(report.figures) for report in reports]
    assert sorted(path.name for path in (in_two / name).glob("rank*")) == ["rank0", "rank1"]
    two: list[dict[str, float]] = json.loads((in_two / name / "terms.json").read_text(encoding="utf-8"))
    # The first steps: the same pictures, with the same weights.
    first = next(index for index, terms in enumerate(one) if falling in terms)
    assert two[first][falling] == pytest.approx(one[first][falling], rel=tolerance)
    assert two[-1][falling] == pytest.approx(one[-1][falling], rel=0.1)
    assert two[-1][falling] < 0.9 * two[first][falling]
    assert two[-1].keys() == one[-1].keys()
    record = read_record(in_two / name)
    assert record is not None
    assert record.machine.endswith(", 2 threads"), "torchrun gives each process one"


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_shards_hold_the_pictures_of_one_batch(data: LabelledPictures, tiny: MorphPreset, shards: int) -> None:
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


def test_a_batch_that_cannot_be_divided_is_refused(data: LabelledPictures, tiny: MorphPreset) -> None:
    with pytest.raises(ConfigError, match="batches of 16 pictures cannot be divided into pairs for 3 processes"):
        PairedBatches(data, batch_size=16, picture_size=32, jitter=tiny.jitter, seed=5, shards=3)


def test_a_batch_that_cannot_be_paired_is_refused_before_a_run_is_begun(
    data: LabelledPictures, tiny: MorphPreset
) -> None:
    with pytest.raises(ConfigError, match="batches of 5 pictures cannot be divided into pairs for 1 processes"):
        make_method(data, dataclasses.replace(tiny, batch_size=5))


def test_layers_compute_in_bfloat16_and_weights_stay_float32(
    data: LabelledPictures, tiny: MorphPreset, tmp_path: Path
) -> None:
    seen: set[torch.dtype] = set()
    terms = {}
    preset = dataclasses.replace(tiny, recipe=DefaultRecipe(decoder_from=0.5))
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, _, output: seen.add(output.dtype) if isinstance(module, torch.nn.Conv2d) else None
    )
    try:
        for precision in ("fp32", "bf16"):
            seen.clear()
            reports: list[Progress] = []
            processes = Processes("cpu", precision)
            method = make_method(data, preset, processes=processes)
            loop.train(method, tmp_path / precision, steps=6, workers=0, processes=processes, report=reports.append)
            terms[precision] = [report.figures for report in reports]
            assert (torch.bfloat16 in seen) == (precision == "bf16")
    finally:
        hook.remove()
    assert terms["bf16"][0]["reconstruction"] == pytest.approx(terms["fp32"][0]["reconstruction"], rel=0.1)
    state = load_file(tmp_path / "bf16" / STATE_FILE)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}
    assert all(value.isfinite().all() for value in state.values())
