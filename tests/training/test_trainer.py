"""The training loop on a few tiny steps: what it writes, resumes and refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from homomorph.data.labels import UNKNOWN, LabelledPictures
from homomorph.errors import CheckpointError, DataError, TrainingError
from homomorph.runs import state
from homomorph.runs.label_features import load_label_features
from homomorph.runs.run import load_model, resolve_run
from homomorph.training.draws import draw_strengths, draw_times
from homomorph.training.loop import Progress
from homomorph.training.recipe import PUBLISHED, Preset, Recipe
from homomorph.training.step import TrainingStep
from homomorph.training.trainer import train


def _train(
    data: LabelledPictures, out: Path, preset: Preset, *, resume: bool = False, **other: object
) -> list[Progress]:
    options: dict[str, object] = {"recipe": Recipe(), "steps": 6, "checkpoint_every": 2, "workers": 0}
    return list(train(data, out, preset=preset, resume=resume, **(options | other)))  # type: ignore[arg-type]


def test_a_run_holds_a_model_its_configuration_and_pictures(
    data: LabelledPictures, tiny: Preset, tmp_path: Path
) -> None:
    reports = _train(data, tmp_path / "run", tiny, recipe=Recipe(warmup=0.3, critics=0.7))
    assert [(r.phase, r.step) for r in reports] == [
        *(("phi", step) for step in range(1, 5)),
        *(("label prior", step) for step in range(1, 4)),
        *(("warm-up", step) for step in (1, 2)),
        *(("morphs", step) for step in (3, 4, 5)),
        ("critics", 6),
    ]
    model = load_model(tmp_path / "run")
    assert model.config.groups == data.groups
    assert model.config.picture_size == 32
    assert np.asarray(Image.open(tmp_path / "run" / "strips.png")).shape == (2 * 8 * 32, 9 * 32, 3)
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert load_label_features(tmp_path / "run", model.config) is not None
    assert not list((tmp_path / "run").glob("*.partial"))


def test_every_network_learns_under_both_recipes(data: LabelledPictures, tiny: Preset, tmp_path: Path) -> None:
    for name, recipe in (("even", Recipe(warmup=0.0, critics=0.0, l_picture=0.1)), ("published", PUBLISHED)):
        _train(data, tmp_path / name / "1", tiny, recipe=recipe, steps=1, checkpoint_every=1)
        _train(data, tmp_path / name / "2", tiny, recipe=recipe, steps=3, checkpoint_every=1)
        before = load_file(tmp_path / name / "1" / "training.safetensors")
        after = load_file(tmp_path / name / "2" / "training.safetensors")
        networks = ["model.encoder", "model.branches", "model.decoder", "critic", "guidance", "ema"]
        if recipe.l_picture:
            networks += ["picture_critic"]
        for network in networks:
            keys = [key for key in before if key.startswith(f"networks.{network}.")]
            assert any(not torch.equal(before[key], after[key]) for key in keys), network
        keys = [key for key in before if key.startswith(("networks.phi.", "networks.label_prior."))]
        assert all(torch.equal(before[key], after[key]) for key in keys)


def test_a_resumed_run_ends_as_an_uninterrupted_one(data: LabelledPictures, tiny: Preset, tmp_path: Path) -> None:
    _train(data, tmp_path / "whole", tiny)
    interrupted = train(data, tmp_path / "parts", preset=tiny, recipe=Recipe(), steps=6, checkpoint_every=2, workers=0)
    for report in interrupted:
        if report.phase not in ("phi", "label prior") and report.step == 5:  # past the checkpoint of step 4
            break
    interrupted.close()
    resumed = _train(data, tmp_path / "parts", tiny, resume=True)
    assert [report.step for report in resumed] == [5, 6]
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name in whole:
        assert torch.equal(whole[name], parts[name]), name


@pytest.mark.parametrize("share", [0.02, 0.2, 1.0])
def test_pictures_without_some_or_all_labels_train_too(
    data: LabelledPictures, tiny: Preset, tmp_path: Path, share: float
) -> None:
    labels = data.labels.copy()
    labels[np.random.default_rng(0).random(labels.shape) < share] = UNKNOWN
    recipe = Recipe(warmup=0.2, critics=0.5, l_picture=0.1)
    reports = _train(dataclasses.replace(data, labels=labels), tmp_path / "run", tiny, recipe=recipe)
    assert {"projection", "head", "homomorphism", "picture_critic"} <= reports[-1].terms.keys()
    learns_from_labels = [reports[-1].terms[name] > 0 for name in ("projection", "head", "homomorphism")]
    assert learns_from_labels == [share < 1] * 3


def test_resuming_something_else_is_refused(data: LabelledPictures, tiny: Preset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        _train(data, tmp_path / "run", tiny, resume=True)
    _train(data, tmp_path / "run", tiny, steps=2)
    with pytest.raises(CheckpointError, match="another recipe"):
        _train(data, tmp_path / "run", tiny, steps=2, recipe=PUBLISHED, resume=True)
    with pytest.raises(CheckpointError, match="already holds something"):
        _train(data, tmp_path / "run", tiny, steps=2)


def test_a_term_that_is_not_a_number_stops_the_run(data: LabelledPictures, tiny: Preset, tmp_path: Path) -> None:
    diverging = dataclasses.replace(tiny, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"step \d+: .*became NaN or infinite; there is no checkpoint yet"):
        _train(data, tmp_path / "run", diverging)


def test_what_went_wrong_names_the_checkpoint_that_is_left(
    data: LabelledPictures, tiny: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = TrainingStep.__call__
    monkeypatch.setattr(
        TrainingStep,
        "__call__",
        lambda self, *arguments, step, **options: (
            take(self, *arguments, step=step, **options) | ({"gan": math.nan} if step == 4 else {})
        ),
    )
    with pytest.raises(TrainingError, match=r"^step 5: gan became NaN or infinite; .* keeps the checkpoint of step 4"):
        _train(data, tmp_path / "run", tiny)


def test_weights_that_are_not_numbers_are_not_written(
    data: LabelledPictures, tiny: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = TrainingStep.__call__

    def spoil(self: TrainingStep, *arguments: Any, step: int, **options: Any) -> dict[str, float]:
        terms = take(self, *arguments, step=step, **options)
        if step == 3:
            next(self.nets.model.parameters()).data.fill_(math.nan)
        return terms

    monkeypatch.setattr(TrainingStep, "__call__", spoil)
    with pytest.raises(TrainingError, match=r"^step 4: the weights became .* keeps the checkpoint of step 2"):
        _train(data, tmp_path / "run", tiny)


def test_a_label_that_never_or_always_occurs_is_named_and_harmless(
    data: LabelledPictures, tiny: Preset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = data.labels.copy()
    labels[:, 0], labels[:, 1], labels[:, 2] = 0, 1, UNKNOWN
    _train(dataclasses.replace(data, labels=labels), tmp_path / "run", tiny, recipe=Recipe(warmup=0.2, critics=0.5))
    names = [name for names in data.groups.values() for name in names]
    assert caplog.messages == [f"nothing can be learned of labels that all pictures share: {', '.join(names[:3])}"]


def test_files_follow_the_umask(data: LabelledPictures, tiny: Preset, tmp_path: Path) -> None:
    earlier = os.umask(0o027)
    try:
        _train(data, tmp_path / "run", tiny, steps=2)
    finally:
        os.umask(earlier)
    for name in ("model.safetensors", "training.safetensors", "config.json"):
        assert (tmp_path / "run" / name).stat().st_mode & 0o777 == 0o640, name


@pytest.fixture
def broken(data: LabelledPictures, tmp_path: Path) -> LabelledPictures:
    """The set with one picture in twelve damaged."""
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    paths = [tmp_path / "bad.png" if index % 12 == 5 else path for index, path in enumerate(data.paths)]
    return dataclasses.replace(data, paths=paths)


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_pictures_are_skipped_with_one_warning_each(
    broken: LabelledPictures, tiny: Preset, tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert _train(broken, tmp_path / "run", tiny, workers=workers)[-1].step == 6
    *skipped, last = caplog.messages
    assert skipped
    assert all(message.startswith("skipped: ") and "bad.png" in message for message in skipped)
    assert last == f"{len(skipped)} of 120 pictures could not be used and were skipped"


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_pictures_stop_the_run_in_one_line(
    broken: LabelledPictures, tiny: Preset, tmp_path: Path, workers: int
) -> None:
    with pytest.raises(DataError, match=r"^2 of 120 pictures cannot be used, .* is 1; .*bad\.png.*bad\.png") as raised:
        _train(broken, tmp_path / "run", tiny, workers=workers, max_bad_pictures=1)
    assert "\n" not in str(raised.value)


def test_a_set_without_a_single_good_picture_ends(tiny: Preset, tmp_path: Path) -> None:
    paths = (tmp_path / "a.png", tmp_path / "b.png")
    nothing = LabelledPictures(paths, np.array([[0], [1]], dtype=np.uint8), {"x": ("p",)})
    with pytest.raises(DataError, match="2 of 2 pictures cannot be used"):
        _train(nothing, tmp_path / "run", tiny)


def test_strengths_are_uniform_or_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    half = draw_strengths(400, 5, generator, 0.5)
    whole = ((half == 0) | (half == 1)).all(dim=1)
    assert whole.float().mean().item() == 0.5
    assert whole[:200].float().mean().item() == 0.5
    assert 0.4 < half[whole].mean().item() < 0.6
    assert set(draw_strengths(400, 5, generator, 1.0).unique().tolist()) == {0.0, 1.0}
    uniform = draw_strengths(400, 5, generator, 0.0)
    assert not ((uniform == 0) | (uniform == 1)).any()
    assert 0 <= uniform.min().item() < 0.05
    assert 0.95 < uniform.max().item() <= 1


def test_a_run_that_cannot_be_loaded_says_why(data: LabelledPictures, tiny: Preset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run at"):
        resolve_run("nowhere")
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_model(tmp_path)
    run = tmp_path / "run"
    _train(data, run, tiny, steps=2)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"network": config["network"] | {"feature_channels": 24}}))
    with pytest.raises(CheckpointError, match="belongs to another configuration"):
        load_model(run)
    (run / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(run)


def test_steps_of_a_way_are_short_lie_everywhere_and_reach_both_ends() -> None:
    times = draw_times(200, 3, torch.Generator().manual_seed(0))
    assert times.shape == (200, 8)
    assert (times[:, 0] == 0).all()
    assert (times[:, -1] == 1).all()
    start, end = times[:, 1:-1:2], times[:, 2:-1:2]
    assert (start.diff(dim=1) >= 0).all()
    torch.testing.assert_close(end - start, torch.full_like(start, 1 / 16))
    assert (start == 0).sum() > 5
    assert (end == 1).sum() > 5
    assert torch.histc(start, 15, 0, 15 / 16).min() > 20


def test_a_training_can_start_from_another_run(data: LabelledPictures, tiny: Preset, tmp_path: Path) -> None:
    _train(data, tmp_path / "first", tiny, steps=4)
    still = dataclasses.replace(tiny, learning_rate=0.0, critic_learning_rate=0.0)
    reports = _train(data, tmp_path / "second", still, steps=2, init=tmp_path / "first")
    # What has learned already does not learn again.
    assert not {report.phase for report in reports} & {"phi", "label prior"}
    first, second = (load_file(tmp_path / name / "training.safetensors") for name in ("first", "second"))
    served = load_file(tmp_path / "first" / "model.safetensors")
    for key, value in served.items():
        assert torch.equal(second[f"networks.model.{key}"], value), key
    for key in first:
        if key.startswith(("networks.phi.", "networks.label_prior.", "networks.prototypes.", "networks.critic.")):
            assert torch.equal(second[key], first[key]), key
    other = dataclasses.replace(tiny, network=dataclasses.replace(tiny.network, feature_channels=6))
    with pytest.raises(CheckpointError, match="its networks have other feature_channels"):
        _train(data, tmp_path / "third", other, init=tmp_path / "first")
    assert not (tmp_path / "third").exists()


def test_a_training_that_was_killed_before_its_first_checkpoint_can_begin_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "tensorboard").mkdir(parents=True)
    (out / "tensorboard" / "events").touch()
    state.begin(out)
    assert not list(out.iterdir())
    (out / "mine").touch()
    with pytest.raises(CheckpointError, match="already holds something"):
        state.begin(out)
