"""The training loop on a few tiny steps: what it writes, resumes and refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from homomorph.data.labels import UNKNOWN, LabelledPictures
from homomorph.errors import CheckpointError, DataError, TrainingError
from homomorph.progress import Progress
from homomorph.runs import state
from homomorph.runs.label_features import load_label_features
from homomorph.runs.record import read_record
from homomorph.runs.run import load_model, resolve_run
from homomorph.training import loop
from homomorph.training.cyclegan.recipe import CycleGANPreset
from homomorph.training.default.method import DefaultMethod
from homomorph.training.default.recipe import DefaultRecipe
from homomorph.training.methods import make_method
from homomorph.training.morph_method import MorphMethod
from homomorph.training.published.recipe import PublishedRecipe
from homomorph.training.settings import MorphPreset

PUBLISHED = PublishedRecipe(phi_steps=2)
JUDGED = DefaultRecipe(arrive=1, real=0.2, labels=0.2, keep=0.5, critic_from=0.3, decoder_from=1)
DECODER_ALONE = DefaultRecipe(arrive=1, decoder_from=0.5, blended=("hair_colour",))


def _train(
    data: LabelledPictures,
    out: Path,
    preset: MorphPreset | CycleGANPreset,
    *,
    init: Path | None = None,
    max_bad_pictures: int | None = None,
    **options: Any,
) -> list[Progress]:
    reports: list[Progress] = []
    method = make_method(data, preset, max_bad_pictures=max_bad_pictures)
    if init:
        assert isinstance(method, MorphMethod)
        method.start_from(init)
    defaults: dict[str, Any] = {"steps": preset.steps, "checkpoint_every": 2, "workers": 0}
    loop.train(method, out, report=reports.append, **(defaults | options))
    return reports


def test_a_run_holds_a_model_its_configuration_and_pictures(
    data: LabelledPictures, tiny: MorphPreset, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    held_out: list[nn.Module] = []

    def figures(model: nn.Module) -> dict[str, float]:
        held_out.append(model)
        return {"transfer": 0.5}

    reports = _train(
        data, out, dataclasses.replace(tiny, recipe=DECODER_ALONE), data_hash="abc", held_out_figures=figures
    )
    assert [(report.stage, report.done, report.total) for report in reports] == [
        *(("morphs", step, 6) for step in range(1, 4)),
        *(("decoder", step, 6) for step in range(4, 7)),
    ]
    assert {"reconstruction", "front", "sweep", "pictures/s"} <= reports[-1].figures.keys()
    model = load_model(out)
    assert model.config.groups == data.groups
    assert model.config.picture_size == 32
    rows, columns = 3 * 10, 9
    assert np.asarray(Image.open(out / "strips.png")).shape == (20 + rows * 32, 96 + columns * 32, 3)
    assert list((out / "tensorboard").iterdir())
    assert load_label_features(out, model.config) is not None
    assert not list(out.glob("*.partial"))
    assert len(held_out) == 3
    record = read_record(out)
    assert record is not None
    assert (record.pictures, record.data, record.settings["steps"]) == (6 * 8, "abc", 6)
    assert record.settings["recipe"]["decoder_from"] == 0.5
    assert record.versions.keys() == {"homomorph", "python", "torch"}


@pytest.mark.parametrize("recipe", [JUDGED, DECODER_ALONE, PUBLISHED], ids=["critic", "decoder", "published"])
def test_every_network_learns(
    data: LabelledPictures, tiny: MorphPreset, tmp_path: Path, recipe: DefaultRecipe | PublishedRecipe
) -> None:
    preset = dataclasses.replace(tiny, recipe=recipe)
    _train(data, tmp_path / "run", preset, checkpoint_every=6)
    before = make_method(data, preset).networks.state_dict()
    after = load_file(tmp_path / "run" / "training.safetensors")
    names = {name.split(".")[0] for name in before} | {f"model.{part}" for part in ("encoder", "branches", "decoder")}
    for network in names:
        keys = [name for name in before if name.startswith(f"{network}.")]
        assert any(not torch.equal(before[name], after[f"networks.{name}"]) for name in keys), network


def test_phi_stays_as_it_is_once_it_has_learned(data: LabelledPictures, tiny: MorphPreset, tmp_path: Path) -> None:
    preset = dataclasses.replace(tiny, recipe=PUBLISHED)
    for steps in (2, 4):
        _train(data, tmp_path / str(steps), preset, steps=steps, checkpoint_every=steps)
    before, after = (load_file(tmp_path / name / "training.safetensors") for name in ("2", "4"))
    for name in before:
        if name.startswith("networks.phi."):
            assert torch.equal(before[name], after[name]), name
        if name.startswith("networks.model.encoder."):
            assert not torch.equal(before[name], after[name]), name


@pytest.fixture(scope="module", params=[JUDGED, DECODER_ALONE, PUBLISHED], ids=["critic", "decoder", "published"])
def uninterrupted(
    request: pytest.FixtureRequest,
    data: LabelledPictures,
    tiny: MorphPreset,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[MorphPreset, Path]:
    """A preset of each recipe, and a run of it with checkpoints after the second, fourth and sixth step."""
    preset = dataclasses.replace(tiny, recipe=request.param)
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    _train(data, run, preset)
    return preset, run


@pytest.mark.parametrize("interrupted_after", [1, 3, 5])
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    data: LabelledPictures, uninterrupted: tuple[MorphPreset, Path], tmp_path: Path, interrupted_after: int
) -> None:
    preset, run = uninterrupted

    class _Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.done == interrupted_after:
            raise _Killed

    options: dict[str, Any] = {"steps": 6, "checkpoint_every": interrupted_after, "workers": 0}
    with pytest.raises(_Killed):
        loop.train(make_method(data, preset), tmp_path / "parts", report=kill, **options)
    resumed = _train(data, tmp_path / "parts", preset, resume=True)
    assert [report.done for report in resumed] == list(range(interrupted_after + 1, 7))
    for file in ("model.safetensors", "training.safetensors"):
        whole, parts = load_file(run / file), load_file(tmp_path / "parts" / file)
        assert whole.keys() == parts.keys()
        for name in whole:
            assert torch.equal(whole[name], parts[name]), name


def test_a_training_killed_between_its_state_and_its_model_can_be_resumed(
    data: LabelledPictures, tiny: MorphPreset, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    _train(data, run, tiny, steps=2)
    before = load_model(run).state_dict()
    for name in ("model.safetensors", "config.json", "training.json"):
        (run / name).unlink()
    _train(data, run, tiny, steps=2, resume=True)
    after = load_model(run).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert read_record(run) is not None


@pytest.mark.parametrize("recipe", [JUDGED, PUBLISHED], ids=["critic", "published"])
@pytest.mark.parametrize("share", [0.02, 0.2, 1.0])
def test_pictures_without_some_or_all_labels_train_too(
    data: LabelledPictures,
    tiny: MorphPreset,
    tmp_path: Path,
    recipe: DefaultRecipe | PublishedRecipe,
    share: float,
) -> None:
    labels = data.labels.copy()
    labels[np.random.default_rng(0).random(labels.shape) < share] = UNKNOWN
    preset = dataclasses.replace(tiny, recipe=recipe)
    last = _train(dataclasses.replace(data, labels=labels), tmp_path / "run", preset)[-1].figures
    names = ("labels", "classifier") if recipe is JUDGED else ("head", "homomorphism")
    assert [last[name] > 0 for name in names] == [share < 1] * 2


def test_resuming_something_else_is_refused(data: LabelledPictures, tiny: MorphPreset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        _train(data, tmp_path / "run", tiny, resume=True)
    _train(data, tmp_path / "run", tiny, steps=2)
    other = dataclasses.replace(tiny, recipe=DefaultRecipe(front=0))
    with pytest.raises(CheckpointError, match="another recipe"):
        _train(data, tmp_path / "run", other, steps=2, resume=True)
    with pytest.raises(CheckpointError, match="already holds something"):
        _train(data, tmp_path / "run", tiny, steps=2)


def test_a_recipe_that_names_another_group_warns(
    data: LabelledPictures, tiny: MorphPreset, caplog: pytest.LogCaptureFixture
) -> None:
    make_method(data, dataclasses.replace(tiny, recipe=DefaultRecipe(blended=("skin", "fur"))))
    assert caplog.messages == ["recipe.blended names fur, which the data does not have"]


def test_a_term_that_is_not_a_number_stops_the_run(data: LabelledPictures, tiny: MorphPreset, tmp_path: Path) -> None:
    diverging = dataclasses.replace(tiny, learning_rate=1.0, steps=100)
    object.__setattr__(diverging, "learning_rate", 1e30)
    with pytest.raises(TrainingError, match=r"step \d+: .*became NaN or infinite; there is no checkpoint yet"):
        _train(data, tmp_path / "run", diverging, checkpoint_every=100)


def _spoiled(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[DefaultMethod, dict[str, Tensor], int], None]) -> None:
    """Have something go wrong at the end of `DefaultMethod.terms`."""
    terms, counted = DefaultMethod.terms, iter(range(100))

    def spoiled(self: DefaultMethod, *arguments: Any) -> dict[str, Tensor]:
        values = terms(self, *arguments)
        spoil(self, values, next(counted))
        return values

    monkeypatch.setattr(DefaultMethod, "terms", spoiled)


def test_what_went_wrong_names_the_checkpoint_that_is_left(
    data: LabelledPictures, tiny: MorphPreset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(method: DefaultMethod, terms: dict[str, Tensor], step: int) -> None:
        if step == 4:
            terms["total"] = terms["reconstruction"] * math.nan

    _spoiled(monkeypatch, spoil)
    with pytest.raises(TrainingError, match=r"^step 5: total became NaN or infinite; .* checkpoint of step 4"):
        _train(data, tmp_path / "run", tiny)


def test_weights_that_are_not_numbers_are_not_written(
    data: LabelledPictures, tiny: MorphPreset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(method: DefaultMethod, terms: dict[str, Tensor], step: int) -> None:
        if step == 3:
            next(method.mean_model.parameters()).data.fill_(math.nan)

    _spoiled(monkeypatch, spoil)
    with pytest.raises(TrainingError, match=r"^step 4: the weights became .* keeps the checkpoint of step 2"):
        _train(data, tmp_path / "run", tiny)


def test_a_label_that_never_or_always_occurs_is_named_and_harmless(
    data: LabelledPictures, tiny: MorphPreset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = data.labels.copy()
    labels[:, 0], labels[:, 1], labels[:, 2] = 0, 1, UNKNOWN
    _train(dataclasses.replace(data, labels=labels), tmp_path / "run", dataclasses.replace(tiny, recipe=JUDGED))
    names = [name for names in data.groups.values() for name in names]
    assert caplog.messages == [f"nothing can be learned of labels that all pictures share: {', '.join(names[:3])}"]


def test_files_follow_the_umask(data: LabelledPictures, tiny: MorphPreset, tmp_path: Path) -> None:
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
    broken: LabelledPictures, tiny: MorphPreset, tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    skipped = loop.train(make_method(broken, tiny), tmp_path / "run", steps=6, workers=workers)
    assert skipped
    assert len(caplog.messages) == len(skipped)
    assert all(message.startswith("skipped: ") and "bad.png" in message for message in caplog.messages)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_pictures_stop_the_run_in_one_line(
    broken: LabelledPictures, tiny: MorphPreset, tmp_path: Path, workers: int
) -> None:
    with pytest.raises(DataError, match=r"^2 of 120 pictures cannot be used, .* is 1; .*bad\.png.*bad\.png") as raised:
        _train(broken, tmp_path / "run", tiny, workers=workers, max_bad_pictures=1)
    assert "\n" not in str(raised.value)


def test_a_set_without_a_single_good_picture_ends(tiny: MorphPreset, tmp_path: Path) -> None:
    paths = (tmp_path / "a.png", tmp_path / "b.png")
    nothing = LabelledPictures(paths, np.array([[0], [1]], dtype=np.uint8), {"x": ("p",)})
    with pytest.raises(DataError, match="2 of 2 pictures cannot be used"):
        _train(nothing, tmp_path / "run", tiny)


def test_a_run_that_cannot_be_loaded_says_why(data: LabelledPictures, tiny: MorphPreset, tmp_path: Path) -> None:
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
    with pytest.raises(CheckpointError, match="is damaged"):
        load_model(run)


def test_a_training_can_start_from_another_run(
    data: LabelledPictures, tiny: MorphPreset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _train(data, tmp_path / "first", tiny, steps=2)
    served = load_file(tmp_path / "first" / "model.safetensors")
    method = make_method(data, tiny)
    assert isinstance(method, MorphMethod)
    method.start_from(tmp_path / "first")
    for name, value in method.model.state_dict().items():
        assert torch.equal(value, served[name]), name
    # Of other groups, E and D alone are taken.
    groups = {"look": data.groups["mouth"], **{g: n for g, n in data.groups.items() if g != "mouth"}}
    other = make_method(dataclasses.replace(data, groups=groups), tiny)
    assert isinstance(other, MorphMethod)
    other.start_from(tmp_path / "first")
    assert "has no such groups, whose T_i start at random: look" in caplog.text
    for name, value in other.model.state_dict().items():
        if not name.startswith("branches.look."):
            assert torch.equal(value, served[name]), name
    smaller = dataclasses.replace(tiny, network=dataclasses.replace(tiny.network, feature_channels=6))
    with pytest.raises(CheckpointError, match="its networks are "):
        _train(data, tmp_path / "third", smaller, init=tmp_path / "first")
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
