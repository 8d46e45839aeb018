"""Evaluation from a data folder to `metrics.json` and `report.html`, on pictures where the answer is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import learned_perceptual_image_patch_similarity
from torchvision.models import alexnet
from typer.testing import CliRunner

from homomorph.data import avatars
from homomorph.data.labels import UNKNOWN, LabelledPictures, read_labelled
from homomorph.errors import ConfigError, DataError
from homomorph.evaluation import evaluate as evaluate_module
from homomorph.evaluation import figures
from homomorph.evaluation.distance import find_lpips, judge_distance
from homomorph.evaluation.evaluate import evaluate
from homomorph.evaluation.evaluator import Evaluator, train_evaluator
from homomorph.evaluation.figures import Pictures
from homomorph.evaluation.held_out import HeldOut, read_held_out
from homomorph.evaluation.judge import JudgeSettings
from homomorph.evaluation.measure import measure_method
from homomorph.evaluation.measured_pairs import all_pairs
from homomorph.evaluation.methods import Homomorph, LatentBlend, PixelBlend, SlerpBlend
from homomorph.evaluation.redrawn import Redrawn
from homomorph.evaluation.references import frechet_floor
from homomorph.evaluation.report import write_report
from homomorph.evaluation.single_group import GROUP_FRAMES, WORST
from homomorph.evaluation.table import format_figure
from homomorph.models.blending import spherical
from homomorph.models.config import ModelConfig
from homomorph.models.morph import MorphModel
from homomorph.models.perceptual import perceptual_distance
from homomorph.progress import Progress
from homomorph.runs.run import save_model
from homomorph.training.settings import MorphPreset
from homomorph_cli.main import app
from homomorph_client.errors import OutputError

PAIRS = 40


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, whatever weights the machine has."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch"


@pytest.fixture
def alexnet_file(torch_home: Path) -> Path:
    """Random weights in the place of AlexNet's; what LPIPS does not use is a single number, for a small file."""
    torch.manual_seed(0)
    state = {
        name: value if name.startswith("features") else torch.zeros(()).expand(value.shape)
        for name, value in alexnet().state_dict().items()
    }
    file = torch_home / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    return file


@pytest.fixture
def published(alexnet_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the random weights pass for those that torchvision publishes."""
    monkeypatch.setattr("homomorph.evaluation.distance.sha256", lambda path: "7be5be79" + 56 * "0")


@pytest.fixture(scope="module")
def held_out(folder: Path) -> HeldOut:
    """The same as pairs."""
    return read_held_out(read_labelled(folder), 32, PAIRS, 11)


@pytest.fixture(scope="module")
def evaluator(held_out: HeldOut) -> Evaluator:
    """Trained for a moment."""
    torch.manual_seed(0)
    network = Evaluator(held_out.labels.shape[1], widths=(16, 32, 48))
    losses = list(train_evaluator(network, held_out.pictures, held_out.labels, steps=150))
    assert np.mean(losses[-20:]) < 0.6 * losses[0]
    return network


@pytest.fixture(scope="module")
def model(tiny: MorphPreset, held_out: HeldOut) -> MorphModel:
    """Untrained."""
    torch.manual_seed(0)
    return MorphModel(ModelConfig(groups=held_out.groups, picture_size=32, network=tiny.network)).eval()


def redrawn_of(held_out: HeldOut) -> Redrawn:
    assert held_out.redrawn is not None
    return held_out.redrawn


class Oracle:
    """Knows the truth: shows pictures as they are, and morphs one group by drawing it."""

    has_groups = True
    switches = False
    parameters = 0
    attributes = 0

    def __init__(self, held_out: HeldOut) -> None:
        self.held_out = held_out

    def reconstruct(self, pictures: Pictures) -> Pictures:
        return pictures

    def morph(self, source: Pictures, target: Pictures, strengths: np.ndarray) -> Pictures:
        rows = [next(i for i, a in enumerate(self.held_out.source) if (a == picture).all()) for picture in source]
        moved = np.flatnonzero(strengths[0, -1])
        # The last strength is that of the residual branch, which changes nothing here.
        truths = [*(truth[rows] for truth in redrawn_of(self.held_out).counterfactuals.values()), source]
        ends = target if len(moved) > 1 else truths[moved[0]]
        v = strengths.max(axis=2)[:, :, None, None, None]
        return ((1 - v) * source[:, None] + v * ends[:, None]).round().astype(np.uint8)


def test_truths_change_one_group(held_out: HeldOut) -> None:
    assert held_out.source.shape == held_out.target.shape == (PAIRS, 3, 32, 32)
    assert set(redrawn_of(held_out).counterfactuals) == set(avatars.GROUPS)
    assert set(redrawn_of(held_out).half_colours) == {"hair_colour", "skin", "clothes_colour"}
    same = (held_out.labels_a == held_out.labels_b)[:, held_out.columns("glasses")].all(axis=1)
    unchanged = (redrawn_of(held_out).counterfactuals["glasses"] == held_out.source).all(axis=(1, 2, 3))
    assert 0 < same.sum() < PAIRS
    assert (unchanged == same).all()


def test_ends_in_mixed_colours_are_drawn_for_ghosts(held_out: HeldOut) -> None:
    redrawn = redrawn_of(held_out)
    assert redrawn.mixed_a.shape == redrawn.mixed_b.shape == (PAIRS, 3, 3, 32, 32)
    # At a quarter of the way a is nearer to itself than at three quarters.
    distances = np.abs(redrawn.mixed_a.astype(float) - held_out.source[:, None]).mean(axis=(0, 2, 3, 4))
    assert 0 < distances[0] < distances[1] < distances[2]
    assert set(redrawn.counterfactuals_of_b) == {g for g in avatars.GROUPS if not avatars.is_colour_group(g)}
    same = (held_out.labels_a == held_out.labels_b)[:, held_out.columns("glasses")].all(axis=1)
    assert ((redrawn.counterfactuals_of_b["glasses"] == held_out.target).all(axis=(1, 2, 3)) == same).all()


def test_the_truth_scores_one(held_out: HeldOut, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    # The oracle finds its truth by the picture, so it cannot morph moved ones.
    monkeypatch.setattr("homomorph.evaluation.measure.moved_picture", lambda augment, picture: picture)
    distance = judge_distance(evaluator)
    measured_pairs = [all_pairs(Oracle(held_out), held_out)]
    oracle = measure_method(measured_pairs, held_out, evaluator, distance, displayed_pairs=[0, 1])
    assert oracle.figures["counterfactual"] == pytest.approx(dict.fromkeys(avatars.GROUPS, 1.0))
    assert oracle.figures["reconstruction"] == {"psnr": pytest.approx(100), "ssim": pytest.approx(1, abs=1e-4)}
    assert oracle.figures["background"] == {"reconstruction": 0, "morph": 0}
    assert oracle.figures["endpoint"] == 0
    assert oracle.figures["frechet_reconstruction"] == pytest.approx(0, abs=1e-4)
    assert oracle.figures["shift"] == 0
    # The oracle blends pixels, of one group as of all.
    assert oracle.figures["ghost"] == 1
    assert oracle.figures["ghost_floor"] == 0
    single_groups = redrawn_of(held_out).counterfactuals_of_b
    assert oracle.figures["ghost_others_0"] == pytest.approx(dict.fromkeys(single_groups, 1.0), abs=0.02)
    assert oracle.figures["label_loss"] == 0
    assert oracle.figures["symmetry"] == pytest.approx(0, abs=0.02)
    transfer, preservation = oracle.figures["transfer"], oracle.figures["preservation"]
    assert isinstance(transfer, dict)
    assert isinstance(preservation, dict)
    assert transfer["hair_colour"] > 0.7
    assert preservation["mouth"] > 0.7
    assert oracle.path_strips.shape == (2, 17, 3, 32, 32)
    assert oracle.group_strips["skin"].shape == (2, GROUP_FRAMES, 3, 32, 32)


def test_reconstructions_of_either_side_count_for_frechet(held_out: HeldOut, evaluator: Evaluator) -> None:
    class LosesTargets(PixelBlend):
        def reconstruct(self, pictures: Pictures) -> Pictures:
            return pictures if (held_out.source == pictures[0]).all(axis=(1, 2, 3)).any() else 255 - pictures

    distance = judge_distance(evaluator)
    measured_pairs = [all_pairs(LosesTargets(), held_out)]
    taken = measure_method(measured_pairs, held_out, evaluator, distance, displayed_pairs=[0]).figures
    assert taken["reconstruction"] == {"psnr": pytest.approx(100), "ssim": pytest.approx(1, abs=1e-4)}
    shown_as = evaluator.judge(np.concatenate([held_out.source, 255 - held_out.target]))[1]
    real = evaluator.judge(np.concatenate([held_out.source, held_out.target]))[1]
    assert taken["frechet_reconstruction"] == pytest.approx(figures.frechet(shown_as, real))
    assert taken["frechet_reconstruction"] > 1


def test_the_floor_of_frechet_is_that_of_as_many_other_pictures(held_out: HeldOut, evaluator: Evaluator) -> None:
    pairs = np.concatenate([held_out.source, held_out.target])
    rows = np.arange(PAIRS)
    floor = frechet_floor(held_out, evaluator, rows)
    assert floor > 0.01
    # Only the first 2N pictures are looked at: with more of them the floor would be lower than a system's own noise.
    assert frechet_floor(replace(held_out, pictures=held_out.pictures[: 2 * PAIRS]), evaluator, rows) == floor
    assert frechet_floor(replace(held_out, pictures=pairs), evaluator, rows) == pytest.approx(0, abs=1e-4)
    assert frechet_floor(replace(held_out, pictures=255 - pairs), evaluator, rows) > floor
    assert np.isnan(frechet_floor(replace(held_out, pictures=pairs[1:]), evaluator, rows))


def test_distances_go_around_the_frames(held_out: HeldOut, evaluator: Evaluator) -> None:
    frames = np.concatenate([held_out.pictures[:289], held_out.pictures[:17]]).reshape(18, 17, 3, 32, 32)
    around = judge_distance(evaluator).around(frames)  # more sequences than are looked at together
    assert around.shape == (18, 17)
    for row, first, second in ((0, 0, 1), (14, 7, 8), (15, 15, 16), (16, 16, 0)):
        maps = (evaluator.maps(torch.from_numpy(frames[row, [column]])) for column in (first, second))
        assert around[row, first] == pytest.approx(perceptual_distance(*maps).item(), rel=1e-4)
    assert around[17] == pytest.approx(around[0], rel=1e-4)
    assert judge_distance(evaluator).around(np.repeat(frames[:1, :1], 3, axis=1)).tolist() == [[0, 0, 0]]


@pytest.mark.usefixtures("published")
def test_lpips_is_that_of_torchmetrics(held_out: HeldOut) -> None:
    lpips, _ = find_lpips("auto", 32)
    assert lpips is not None
    assert lpips.name.startswith("LPIPS (")
    frames = held_out.pictures[:6].reshape(2, 3, 3, 32, 32)
    ours, following = (torch.from_numpy(of.reshape(6, 3, 32, 32)) / 255 for of in (frames, np.roll(frames, -1, axis=1)))
    expected = learned_perceptual_image_patch_similarity(ours, following, "alex", reduction="none", normalize=True)
    assert lpips.around(frames).reshape(-1) == pytest.approx(expected.numpy(), rel=1e-4)
    assert expected.min() > 0


def test_without_weights_lpips_is_not_taken_and_nothing_is_downloaded(torch_home: Path) -> None:
    lpips, reason = find_lpips("auto", 32)
    assert lpips is None
    assert reason is not None
    assert "there is no file" in reason
    with pytest.raises(ConfigError, match=r"there is no file .*alexnet-owt-7be5be79\.pth"):
        find_lpips("lpips", 32)
    assert not torch_home.exists()


@pytest.mark.usefixtures("published")
def test_lpips_is_not_taken_for_pictures_that_are_too_small() -> None:
    assert find_lpips("auto", 24)[0] is None
    with pytest.raises(ConfigError, match="24 pixels are smaller"):
        find_lpips("lpips", 24)


def test_damaged_weights_are_named(alexnet_file: Path) -> None:
    for choice in ("auto", "lpips"):
        with pytest.raises(ConfigError, match=f"{alexnet_file} is damaged"):
            find_lpips(choice, 32)  # type: ignore[arg-type]
    assert find_lpips("evaluator", 32)[0] is None


def test_methods_begin_at_a_and_end_at_b(model: MorphModel, held_out: HeldOut) -> None:
    a, b = held_out.source[:3], held_out.target[:3]
    ends = np.zeros((3, 2, len(model.config.branches)), dtype=np.float32)
    ends[:, 1] = 1
    for method in (PixelBlend(), LatentBlend(model), SlerpBlend(model), Homomorph(model)):
        frames = method.morph(a, b, ends)
        assert frames.shape == (3, 2, 3, 32, 32)
        assert frames.dtype == np.uint8
        assert np.abs(frames[:, 0].astype(int) - method.reconstruct(a)).max() <= 1, method
        if not method.has_groups:  # whose T_i are not trained here
            assert np.abs(frames[:, 1].astype(int) - method.reconstruct(b)).max() <= 1, method


def test_slerp_keeps_the_norm() -> None:
    a, b = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)
    a, b = (x / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for x in (a, b))
    mixed = spherical(a.unsqueeze(1), b.unsqueeze(1), torch.linspace(0, 1, 5))
    torch.testing.assert_close(mixed.flatten(2).norm(dim=2), torch.ones(2, 5))
    torch.testing.assert_close(mixed[:, 0], a)
    torch.testing.assert_close(mixed[:, -1], b)


def test_the_command_writes_figures_and_a_report(model: MorphModel, folder: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "run", model)
    out = tmp_path / "report"
    stages: list[str] = []
    evaluation = evaluate(
        {"run": tmp_path / "run", "again": tmp_path / "run"},
        folder,
        out,
        pairs=16,
        judge=JudgeSettings(steps=3),
        report=lambda progress: stages.append(progress.stage),
    )
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics) == [
        "pixel",
        "latent",
        "slerp",
        "homomorph",
        "detailed",
        "latent:again",
        "slerp:again",
        "homomorph:again",
        "detailed:again",
        "meta",
    ]
    # The time alone differs.
    for name in ("homomorph", "homomorph:again"):
        assert metrics[name]["cost"].pop("frame_time") > 0
    assert metrics["homomorph"] == metrics["homomorph:again"]
    assert metrics["pixel"]["cost"]["training_pictures_thousands"] == 0
    assert metrics["homomorph"]["cost"]["training_pictures_thousands"] is None
    for figure in ("transfer", "preservation", "monotonicity", "counterfactual"):
        assert list(metrics["homomorph"][figure]) == list(avatars.GROUPS)
    assert metrics["pixel"]["reconstruction"]["psnr"] == pytest.approx(100)
    assert metrics["meta"]["pairs"] == 16
    assert metrics["pixel"]["frechet_reconstruction"] == pytest.approx(0, abs=1e-4)
    assert metrics["slerp"]["frechet_reconstruction"] == metrics["homomorph"]["frechet_reconstruction"] > 0
    floor = metrics["meta"]["frechet_floor"]
    assert floor == pytest.approx(evaluation.meta["frechet_floor"])
    assert floor > 0
    assert metrics["meta"]["frechet_drawn"] > 0
    assert metrics["meta"]["frechet_ends"] > 0
    assert list(metrics["homomorph"]["ghost_others_1"]) == [
        group for group in avatars.GROUPS if not avatars.is_colour_group(group)
    ]
    assert metrics["pixel"]["ghost"] == 1
    assert "ghost_others_0" not in metrics["latent"]
    assert metrics["latent"]["ghost_floor"] == metrics["homomorph"]["ghost_floor"] > 0
    # A small model that is hardly trained draws badly; details put what has not changed right.
    assert metrics["detailed"]["reconstruction"]["psnr"] == pytest.approx(100)
    assert metrics["detailed"]["ghost"] < metrics["homomorph"]["ghost"]
    assert metrics["meta"]["d"].startswith("LPIPS's form on the judge's maps")
    assert metrics["meta"]["data"] == {"pictures": 700, "style": "avataaars", "seed": 11}
    page = (out / "report.html").read_text()
    # Of each method the path, of each model each group; of each group the worst pairs; a row a pair.
    assert page.count("data:image/png;base64,") == 9 * 6 + 2 * len(avatars.GROUPS) * (6 + WORST)
    assert "<th>a</th><th>0</th><th>0.1</th>" in page
    assert "<th>morph</th><th>truth</th>" in page
    assert page.count("homomorph: on the way, ") == 1
    assert "fid is left out: there is no file" in page
    assert evaluation.notes == metrics["meta"]["notes"]
    assert set(metrics["homomorph"]["movement"]) == {*avatars.GROUPS, "residual"}
    assert page.count("<svg") == 4
    assert f"but of about {format_figure(floor)}: that is how far 32" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert stages[0] == "pictures"
    assert stages[-1] == "detailed:again"
    assert not list(out.glob("*.partial"))
    unknown = write_report(evaluation.results, evaluation.held_out, evaluation.meta | {"frechet_floor": None})
    assert "is not known: that takes 32 pictures in no pair" in unknown


@pytest.mark.usefixtures("published")
def test_lpips_measures_where_its_weights_are(model: MorphModel, folder: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "run", model)
    taken = {}
    for choice in ("auto", "evaluator"):
        words = ["evaluate", tmp_path / "run", "--data", folder, "--out", tmp_path / choice, "--pairs", 16]
        words += ["--evaluator-steps", 3] + ["--distance", choice] * (choice != "auto")
        result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0
        # Without a terminal each stage is a line when it begins and one when it ends.
        lines = result.stderr.splitlines()
        assert [line for line in lines if line.startswith("homomorph:")] == ["homomorph: 16/16"]
        assert any(line.startswith("judge: 3/3") for line in lines)
        taken[choice] = json.loads((tmp_path / choice / "metrics.json").read_text())
    assert taken["auto"]["meta"]["d"] == "LPIPS (Zhang et al., CVPR 2018) on AlexNet"
    assert "d is LPIPS (Zhang et al., CVPR 2018) on AlexNet." in (tmp_path / "auto" / "report.html").read_text()
    assert "judge's maps" in taken["evaluator"]["meta"]["d"]
    for figure in ("jump", "ppl", "pdv", "pps"):
        assert taken["auto"]["pixel"][figure] != pytest.approx(taken["evaluator"]["pixel"][figure], rel=1e-3)
    for figure in ("frechet", "transfer", "endpoint"):
        assert taken["auto"]["pixel"][figure] == taken["evaluator"]["pixel"][figure]


def test_a_small_set_gives_fewer_pairs_and_a_tiny_one_is_refused(folder: Path) -> None:
    data = read_labelled(folder)
    small = LabelledPictures(data.paths[:70], data.labels[:70], data.groups)
    held_out = read_held_out(small, 32, 300, None)
    assert len(held_out.source) == len(held_out.target) == 17  # half of the pictures are left for the judge
    assert len(held_out.pictures) == 70 - 34
    alone = read_held_out(small, 32, 300, None, judge_data=data)
    assert (len(alone.source), len(alone.pictures)) == (35, 700)
    with pytest.raises(DataError, match="need 64 pictures whose labels are all known, there are 50"):
        read_held_out(LabelledPictures(data.paths[:50], data.labels[:50], data.groups), 32, 300, None)
    with pytest.raises(DataError, match="must have the groups"):
        read_held_out(small, 32, 16, None, judge_data=LabelledPictures(data.paths, data.labels[:, :3], {"mouth": ()}))


def test_pairs_are_labelled_completely_and_the_judge_takes_every_label_there_is(folder: Path) -> None:
    data = read_labelled(folder)
    labels = data.labels.copy()
    labels[::2, 1:] = UNKNOWN
    labels[0] = UNKNOWN
    held_out = read_held_out(LabelledPictures(data.paths, labels, data.groups), 32, 16, 11)
    assert (held_out.labels_a != UNKNOWN).all()
    assert (held_out.labels_b != UNKNOWN).all()
    assert len(held_out.labels) == 700 - 32 - 1
    # Shuffled: the first tenth, which tells how good the judge is, is like the rest.
    assert 0.3 < (held_out.labels[:66] == UNKNOWN).any(axis=1).mean() < 0.7


def test_truths_are_of_the_groups_that_were_drawn(folder: Path) -> None:
    data = read_labelled(folder)
    columns = slice(0, len(avatars.GROUPS["mouth"]))
    groups = {"mouth": avatars.GROUPS["mouth"]}
    fewer = LabelledPictures(data.paths, data.labels[:, columns], groups)
    assert set(redrawn_of(read_held_out(fewer, 32, 16, 11)).counterfactuals) == {"mouth"}
    mine = LabelledPictures(data.paths, data.labels[:, columns], {"mood": groups["mouth"]})
    assert redrawn_of(read_held_out(mine, 32, 16, 11)).counterfactuals == {}


def test_an_unwritable_report_is_an_error_before_the_work(model: MorphModel, folder: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "run", model)
    (tmp_path / "file").write_text("mine")

    def report(progress: Progress) -> None:
        pytest.fail("work began")

    with pytest.raises(OutputError, match="file is not a folder"):
        evaluate(
            {"run": tmp_path / "run"},
            folder,
            tmp_path / "file" / "out",
            pairs=16,
            judge=JudgeSettings(steps=1),
            report=report,
        )
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["evaluate", "label"])
def test_wrong_input_shows_no_empty_bar(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    words = {"evaluate": ["avatars64", "--data", "absent"], "label": ["absent"]}[command]
    result = CliRunner().invoke(app, [command, *words, "--out", str(tmp_path / "out.csv")])
    assert isinstance(result.exception, DataError)
    assert result.output == ""


def test_figures_and_report_are_replaced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "write_report", lambda *_: "cannot be encoded: \ud800")
    (tmp_path / "metrics.json").write_text("earlier figures")
    with pytest.raises(UnicodeEncodeError):
        evaluate_module._write(evaluate_module.Evaluation({}, None, [], {}, []), tmp_path)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    assert (tmp_path / "metrics.json").read_text() == "earlier figures"
