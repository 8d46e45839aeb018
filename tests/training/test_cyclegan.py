"""CycleGAN's terms, its pool, its batches of two domains, and its training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from homomorph.data.augmented import Jitter
from homomorph.data.domains import DomainBatches
from homomorph.data.labels import UNKNOWN, LabelledPictures
from homomorph.errors import CheckpointError, ConfigError, DataError, TrainingError
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.runs.cyclegan import load_cyclegan
from homomorph.runs.record import TRAINING_FILE, TrainingRecord, machine, read_record, write_record
from homomorph.training import cyclegan_losses as losses
from homomorph.training.cyclegan_recipe import CYCLEGAN_PRESETS, CycleGANPreset
from homomorph.training.cyclegan_trainer import CycleNetworks, CycleStep, train_cyclegan
from homomorph.training.image_pool import ImagePool
from homomorph.training.parallel import Processes

TINY = CycleGANPreset(
    generator="resnet_6blocks", filters=2, discriminator_filters=2, picture_size=32, batch_size=2, steps=4, pool=3
)
ATTRIBUTE = "round_glasses"


def _train(data: LabelledPictures, out: Path, preset: CycleGANPreset = TINY, **other: Any) -> list[dict[str, float]]:
    options: dict[str, Any] = {"steps": preset.steps, "checkpoint_every": 2, "workers": 0}
    return [report.terms for report in train_cyclegan(data, ATTRIBUTE, out, preset=preset, **(options | other))]


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
    first = pool.exchange(pictures[:4], generator)
    assert torch.equal(first, pictures[:4])
    returned = torch.cat([pool.exchange(picture[None], generator) for picture in pictures[4:]])
    kept = sorted(pool.pictures[:, 0, 0, 0].tolist())
    fresh = (returned == pictures[4:]).all(dim=(1, 2, 3)).float().mean()
    assert 0.35 < fresh < 0.65
    # Every picture goes out at most once or is still kept, and none is made up.
    seen = [*returned[:, 0, 0, 0].tolist(), *kept]
    assert sorted(seen)[:4] == [0, 1, 2, 3]
    assert len(set(seen)) == len(seen) == 200
    assert not returned.requires_grad
    assert torch.equal(ImagePool(0, 2).exchange(pictures[:3], generator), pictures[:3])


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
    preset = dataclasses.replace(TINY, pool=1)  # full after one picture: what is exchanged depends on its content
    expected = _train(data, tmp_path / "whole", preset, steps=5)
    reports = train_cyclegan(data, ATTRIBUTE, tmp_path / "parts", preset=preset, steps=5, checkpoint_every=2, workers=0)
    for _ in range(stop_after):
        next(reports)
    reports.close()  # as a kill would: what came after the last checkpoint is lost
    interrupted = TrainingRecord(pictures=2 * 4, hours=1.5, machine="slow")
    assert read_record(tmp_path / "parts") == dataclasses.replace(interrupted, hours=ANY, machine=ANY)
    write_record(tmp_path / "parts", interrupted)
    resumed = _train(data, tmp_path / "parts", preset, steps=5, resume=True)
    assert resumed == expected[2:]
    record = read_record(tmp_path / "parts")
    assert record is not None
    assert (record.pictures, record.machine) == (5 * 4, machine(torch.device("cpu")))
    assert 1.5 <= record.hours < 1.6, "what came before the interruption counts too"
    for file in ("model.safetensors", "training.safetensors"):
        whole, parts = load_file(tmp_path / "whole" / file), load_file(tmp_path / "parts" / file)
        assert all(torch.equal(whole[key], parts[key]) for key in whole.keys() | parts.keys())


def test_each_network_learns_from_its_own_terms_only(data: LabelledPictures) -> None:
    config = CycleGANConfig((ATTRIBUTE, f"not_{ATTRIBUTE}"), TINY.generator, TINY.filters, TINY.picture_size)

    def moved(**weights: float) -> dict[str, bool]:
        preset = dataclasses.replace(TINY, **weights)
        torch.manual_seed(0)
        nets = CycleNetworks(config, preset)
        before = {name: value.clone() for name, value in nets.state_dict().items()}
        optimizers = {
            "generators": torch.optim.Adam(nets.model.parameters(), 1e-3),
            "discriminators": torch.optim.Adam(nets.discriminators.parameters(), 1e-3),
        }
        gradients: dict[str, list[Tensor | None]] = {}
        """At each update, those of the generators, then those of the discriminators."""

        def spy(name: str, step: Callable[[], Any]) -> Callable[[], Any]:
            def spied() -> Any:
                parameters = (*nets.model.parameters(), *nets.discriminators.parameters())
                gradients[name] = [None if p.grad is None else p.grad.clone() for p in parameters]
                return step()

            return spied

        for name, optimizer in optimizers.items():
            optimizer.step = spy(name, optimizer.step)  # type: ignore[method-assign]
        CycleStep(nets, optimizers, preset, seed=0, processes=Processes())(
            torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1, 0
        )
        count = len(list(nets.model.parameters()))
        assert all(gradient is None for gradient in gradients["generators"][count:]), "reached the discriminators"
        before_and_after = zip(gradients["generators"][:count], gradients["discriminators"][:count], strict=True)
        assert all(a is None or torch.equal(a, b) for a, b in before_and_after), "reached the generators"  # type: ignore[arg-type]
        after = nets.state_dict()
        return {
            part: any(not torch.equal(after[name], before[name]) for name in before if name.startswith(part))
            for part in ("model.generators", "discriminators", "ema")
        }

    assert moved() == {"model.generators": True, "discriminators": True, "ema": False}
    assert moved(l_cycle=0, l_identity=0)["model.generators"]


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
    for preset in CYCLEGAN_PRESETS.values():
        assert CycleGANConfig(("a", "not_a"), preset.generator, preset.filters, preset.picture_size).stride >= 4
    with pytest.raises(ConfigError, match="l_cycle must not be negative"):
        CycleGANPreset(l_cycle=-1)
