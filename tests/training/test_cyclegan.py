"""CycleGAN's terms, its pool, its batches of two domains, and its training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from homomorph.data.augmented import Jitter
from homomorph.data.domains import DomainBatches
from homomorph.data.labels import UNKNOWN, LabelledPictures
from homomorph.errors import CheckpointError, ConfigError, DataError, TrainingError
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.progress import Progress
from homomorph.runs.cyclegan import load_cyclegan
from homomorph.runs.record import TRAINING_FILE, machine, read_record, write_record
from homomorph.training import loop
from homomorph.training.cyclegan import losses
from homomorph.training.cyclegan.image_pool import ImagePool, PoolDraws, draw_exchange
from homomorph.training.cyclegan.method import CycleGANMethod
from homomorph.training.cyclegan.recipe import CycleGANPreset
from homomorph.training.methods import make_method
from homomorph.training.settings import read_preset

ATTRIBUTE = "round_glasses"
TINY = CycleGANPreset(
    ATTRIBUTE,
    generator="resnet_6blocks",
    filters=2,
    discriminator_filters=2,
    picture_size=32,
    batch_size=2,
    steps=4,
    pool=3,
)
TERMS = ("adversarial", "cycle", "identity", "discriminator")


def _train(data: LabelledPictures, out: Path, preset: CycleGANPreset = TINY, **other: Any) -> list[dict[str, float]]:
    reports: list[Progress] = []
    options: dict[str, Any] = {"steps": preset.steps, "checkpoint_every": 2, "workers": 0} | other
    loop.train(make_method(data, preset), out, report=reports.append, **options)
    return [{name: report.figures[name] for name in TERMS} for report in reports]


def test_terms_are_their_equations() -> None:
    scores = torch.tensor([0.0, 2.0])
    assert losses.adversarial_loss(scores, real=True) == 1
    assert losses.adversarial_loss(scores, real=False) == 2
    assert losses.discriminator_loss(torch.tensor([3.0]), scores) == (4 + 2) / 2
    picture = torch.tensor([1.0, -1.0])
    assert losses.cycle_loss(torch.zeros(2), picture) == losses.identity_loss(torch.zeros(2), picture) == 1


def test_a_pool_fills_then_exchanges_half() -> None:
    pool = ImagePool(4, 2)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.arange(200.0).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    first = pool.exchange(pictures[:4], draw_exchange(4, generator))
    assert torch.equal(first, pictures[:4])
    returned = torch.cat([pool.exchange(picture[None], draw_exchange(1, generator)) for picture in pictures[4:]])
    kept = sorted(pool.pictures[:, 0, 0, 0].tolist())
    fresh = (returned == pictures[4:]).all(dim=(1, 2, 3)).float().mean()
    assert 0.35 < fresh < 0.65
    # Every picture goes out at most once or is still kept, and none is made up.
    seen = [*returned[:, 0, 0, 0].tolist(), *kept]
    assert sorted(seen)[:4] == [0, 1, 2, 3]
    assert len(set(seen)) == len(seen) == 200
    assert not returned.requires_grad
    always = PoolDraws(torch.ones(3, dtype=torch.bool), torch.full((3,), 0.999))
    assert torch.equal(ImagePool(0, 2).exchange(pictures[:3], always), pictures[:3])


def test_domains_are_divided_by_the_label(data: LabelledPictures) -> None:
    still = Jitter(probability=0)
    batches = DomainBatches(data, ATTRIBUTE, batch_size=4, picture_size=32, jitter=still, seed=3)
    column = [name for names in data.groups.values() for name in names].index(ATTRIBUTE)
    by_content = {
        np.asarray(Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.LANCZOS)).tobytes(): label
        for path, label in zip(data.paths, data.labels[:, column], strict=True)
    }
    batch = batches[5]
    assert batch.without.shape == batch.having.shape == (4, 3, 32, 32)
    for pictures, label in ((batch.without, 0), (batch.having, 1)):
        found = [by_content.get(picture.permute(1, 2, 0).numpy().tobytes()) for picture in pictures]
        assert found == [label] * 4
    assert torch.equal(batches[5].having, batch.having)
    assert not torch.equal(batches[6].having, batch.having)


def test_labels_that_do_not_divide_are_refused(data: LabelledPictures) -> None:
    options: dict[str, Any] = {"batch_size": 1, "picture_size": 32, "jitter": Jitter(), "seed": 0}
    with pytest.raises(DataError, match="no attribute 'wings', but "):
        DomainBatches(data, "wings", **options)
    labels = data.labels.copy()
    column = [name for names in data.groups.values() for name in names].index(ATTRIBUTE)
    labels[labels[:, column] == 1, column] = UNKNOWN
    with pytest.raises(DataError, match=f"no picture has the attribute {ATTRIBUTE}"):
        DomainBatches(dataclasses.replace(data, labels=labels), ATTRIBUTE, **options)


def test_training_writes_a_run_and_reports_its_terms(data: LabelledPictures, tmp_path: Path) -> None:
    reports = _train(data, tmp_path / "run")
    assert len(reports) == 4
    assert reports[0].keys() == {"adversarial", "cycle", "identity", "discriminator"}
    model = load_cyclegan(tmp_path / "run")
    assert model.config.directions == (ATTRIBUTE, f"not_{ATTRIBUTE}")
    with Image.open(tmp_path / "run" / "strips.png") as strips:
        assert strips.size == (6 * 32, 6 * 32)
    with pytest.raises(CheckpointError, match="already holds something"):
        _train(data, tmp_path / "run")


@pytest.mark.parametrize("stop_after", [2, 3])
def test_a_resumed_run_is_the_uninterrupted_one(data: LabelledPictures, tmp_path: Path, stop_after: int) -> None:
    preset = dataclasses.replace(TINY, pool=1, steps=5)  # full after one picture: its content decides what is exchanged
    expected = _train(data, tmp_path / "whole", preset)

    class _Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.done == stop_after:  # what came after the last checkpoint is lost
            raise _Killed

    with pytest.raises(_Killed):
        loop.train(make_method(data, preset), tmp_path / "parts", steps=5, checkpoint_every=2, workers=0, report=kill)
    earlier = read_record(tmp_path / "parts")
    assert earlier is not None
    assert earlier.pictures == 2 * 4
    write_record(tmp_path / "parts", dataclasses.replace(earlier, hours=1.5, machine="slow"))
    resumed = _train(data, tmp_path / "parts", preset, resume=True)
    assert resumed == expected[2:]
    record = read_record(tmp_path / "parts")
    assert record is not None
    assert (record.pictures, record.machine) == (5 * 4, machine(torch.device("cpu")))
    assert 1.5 <= record.hours < 1.6, "what came before the interruption counts too"
    for file in ("model.safetensors", "training.safetensors"):
        whole, parts = load_file(tmp_path / "whole" / file), load_file(tmp_path / "parts" / file)
        assert all(torch.equal(whole[key], parts[key]) for key in whole.keys() | parts.keys())


def test_each_network_learns_from_its_own_terms_only(data: LabelledPictures) -> None:
    method = make_method(data, TINY)
    assert isinstance(method, CycleGANMethod)
    batch = method.prepare(method.batches[0])
    draws = method.draw(batch, 0, torch.Generator().manual_seed(0))
    output = method.forward(batch, draws)
    networks = method.networks
    (judged,) = method.critic_terms(batch, draws, output, 0).values()
    judged.backward()
    assert all(parameter.grad is None for parameter in method.model.parameters())
    assert all(parameter.grad is not None for parameter in networks.get_submodule("discriminators").parameters())
    networks.zero_grad(set_to_none=True)
    for name, value in method.terms(batch, draws, output).items():
        networks.zero_grad(set_to_none=True)
        value.backward(retain_graph=True)
        reached = any(p.grad is not None and p.grad.abs().max() > 0 for p in method.model.parameters())
        assert reached, name


def test_a_small_training_learns_the_cycle(data: LabelledPictures, tmp_path: Path) -> None:
    preset = dataclasses.replace(TINY, steps=60, filters=6, learning_rate=2e-3, jitter=Jitter(probability=0))
    reports = _train(data, tmp_path / "run", preset, checkpoint_every=60)
    first, last = (sum(report["cycle"] for report in part) / 10 for part in (reports[:10], reports[-10:]))
    assert last < 0.7 * first


def test_what_is_not_finite_ends_the_run(data: LabelledPictures, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"became NaN or infinite"):
        _train(data, tmp_path / "run", dataclasses.replace(TINY, learning_rate=1e30, steps=6))


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    (tmp_path / TRAINING_FILE).write_text('{"pictures": 1}')
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_record(tmp_path)


def test_presets_name_networks_that_there_are() -> None:
    for name in ("cyclegan64", "cyclegan256"):
        preset = read_preset(name)
        assert isinstance(preset, CycleGANPreset)
        assert CycleGANConfig(("a", "not_a"), preset.generator, preset.filters, preset.picture_size).stride >= 4
    with pytest.raises(ConfigError, match="l_cycle must not be negative"):
        CycleGANPreset(l_cycle=-1)


def test_a_preset_without_an_attribute_is_refused(data: LabelledPictures) -> None:
    with pytest.raises(ConfigError, match="a CycleGAN needs an attribute"):
        make_method(data, dataclasses.replace(TINY, attribute=None))
