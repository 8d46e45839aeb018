"""Runs on the Hugging Face Hub.

The Hub's own functions instead of its ModelHubMixin: a repository is a run folder with its records, of either method,
while the mixin knows one class and its arguments, and importing it would slow down every `homomorph.load`.
"""

from __future__ import annotations

import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from homomorph.errors import CheckpointError
from homomorph.models.config import ModelConfig
from homomorph.runs.cyclegan import is_cyclegan
from homomorph.runs.label_features import LABEL_FEATURES_FILE
from homomorph.runs.record import METRICS_FILE, TRAINING_FILE, read_record
from homomorph.runs.run import CONFIG_FILE, MODEL_FILE, resolve_run
from homomorph.text_files import read_json
from homomorph_client.files import sha256
from homomorph_client.version import DISTRIBUTION, install_hint

_CARD_FILE = "README.md"

_FILES = (CONFIG_FILE, MODEL_FILE, LABEL_FEATURES_FILE, TRAINING_FILE, METRICS_FILE)
_FIGURES = ("transfer", "preservation", "monotonicity", "counterfactual", "ghost", "jump", "frechet", "endpoint")
"""Figures of a model card, as docs/evaluation.md describes them."""


def download(name: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """Return the folder of a run, downloaded from the Hub unless it is there already.

    Args:
        name: a folder on this machine, or a repository, such as `owner/faces`.
        revision: branch, tag or commit of the repository; None is its newest state.
        token: the Hub's token; None is the one of `hf auth login`.

    Raises:
        CheckpointError: there is no such repository, or the Hub cannot be reached.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise CheckpointError(f"to load from the Hub, {install_hint('hub')} ({error.name} is not installed)") from error
    try:
        return Path(snapshot_download(str(name), revision=revision, token=token, allow_patterns=[*_FILES, _CARD_FILE]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{name} is no folder, and cannot be loaded from the Hub: {reason}") from error


def push_to_hub(
    run: str | Path,
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """Upload a run to the Hub, with a model card.

    The card shows the figures of the run's `metrics.json`, which `homomorph evaluate RUN --out RUN` writes; a README.md
    in the run takes the card's place.

    Args:
        run: a run folder, or the name of a model that ships with homomorph.
        repository: where to, such as `owner/faces`; it is made if there is none.
        private: whether a new repository is private; None is the owner's default.
        token: the Hub's token; None is the one of `hf auth login`.
        revision: branch to write to; None is the main one.

    Returns:
        Address of the commit.

    Raises:
        CheckpointError: there is no such run, it is damaged, or the Hub refuses.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ModuleNotFoundError as error:
        raise CheckpointError(f"to upload to the Hub, {install_hint('hub')} ({error.name} is not installed)") from error
    folder = resolve_run(run)
    with tempfile.TemporaryDirectory() as made:
        staged = Path(made)
        for name in (*_FILES, _CARD_FILE):
            if (folder / name).is_file():
                shutil.copy(folder / name, staged / name)
        if not (staged / _CARD_FILE).exists():
            (staged / _CARD_FILE).write_text(_model_card(folder, repository), encoding="utf-8")
        try:
            api = HfApi(token=token, library_name=DISTRIBUTION)
            name = api.create_repo(repository, private=private, exist_ok=True).repo_id
            commit = api.upload_folder(
                repo_id=name, folder_path=staged, revision=revision, commit_message="Upload a run of homomorph"
            )
        except (HFValidationError, HfHubHTTPError, OSError) as error:
            raise CheckpointError(f"{repository}: the Hub refuses: {str(error).strip().splitlines()[0]}") from error
    return str(commit)


def _model_card(run: Path, repository: str) -> str:
    """Return the text of a run's model card, with its figures in the Hub's metadata too.

    Raises:
        CheckpointError: a file of the run is missing or damaged, or the figures are of other weights.
    """
    from huggingface_hub import EvalResult, ModelCardData

    name = repository.rpartition("/")[2]
    try:
        config = read_json(run / CONFIG_FILE, CheckpointError)
        metrics = read_json(run / METRICS_FILE, CheckpointError) if (run / METRICS_FILE).is_file() else {}
    except OSError as error:
        raise CheckpointError(f"{run} is not a finished run: {error}") from error
    meta = metrics.get("meta", {})
    if metrics and sha256(run / MODEL_FILE) not in meta.get("weights", {}).values():
        raise CheckpointError(f"{run / METRICS_FILE} has the figures of other weights: evaluate the run again")
    method = "cyclegan" if is_cyclegan(run) else "homomorph"
    figures = {figure: value for figure, value in _means(metrics.get(method, {})).items() if figure in _FIGURES}
    data = ModelCardData(
        library_name="homomorph",
        pipeline_tag="image-to-image",
        tags=["homomorph", "image-morphing", method],
        model_name=name if figures else None,
        eval_results=[
            EvalResult("image-to-image", "held-out pairs", "held-out pairs", figure, round(value, 4))
            for figure, value in figures.items()
        ]
        or None,
    )
    template = resources.files("homomorph.runs").joinpath("card.md.j2").read_text(encoding="utf-8")
    return (
        jinja2.Environment(trim_blocks=True)
        .from_string(template)
        .render(
            data=data.to_yaml(),
            name=name,
            repository=repository,
            distribution=DISTRIBUTION,
            config=config,
            groups={} if method == "cyclegan" else ModelConfig.from_dict(config).groups,
            figures=figures,
            meta=meta,
            record=read_record(run),
        )
    )


def _means(figures: dict[str, Any]) -> dict[str, float]:
    """Return each figure, as the mean over its groups where it has groups; what could not be measured is left out."""
    means = {}
    for name, value in figures.items():
        parts = [part for part in (value.values() if isinstance(value, dict) else [value]) if part is not None]
        if parts:
            means[name] = float(sum(parts) / len(parts))
    return means
