"""The card of a model: a template and measured facts. It leaves out what was not measured, and never holds a text.

The facts are the files that the scripts write beside a model. What may be public is named; everything else is left out.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from functools import partial
from importlib.metadata import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from glinerko.cli import RESULT, options_that_affect
from glinerko.common import file_digest, read_json, read_json_lines, write_json, write_json_lines, write_text
from glinerko.hub import read_config
from glinerko.model.extractor import ARCHITECTURES
from glinerko.model.lora import ADAPTER_WEIGHTS
from glinerko.model.settings import Settings
from glinerko.scoring.metrics import METRICS, metric_title
from glinerko.scoring.tasks import score_title
from glinerko.sharing.page import save_plots, training_plot
from glinerko.sharing.tables import code_span, escape_markdown
from glinerko.training.arguments import DataArguments, ModelArguments, TrainingArguments
from glinerko.training.checkpoints import (
    DATA_REPORT,
    ENVIRONMENT,
    HISTORY,
    REPORT,
    REPORT_FIGURES,
    SWAP_REPORT,
    TRAINING_ARGUMENTS,
)

EVALUATION = "evaluation.json"
"""The public part of an evaluation, beside the model."""
IMAGES = ("labels", "precision_recall", "errors")
"""The plots of an evaluation that a card shows."""

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md.jinja"
# The public parts of a data report, and of an evaluation and an entry of the history besides the scores of a metric.
_DATA_KEYS = (
    "documents", "documents_without_labels", "documents_with_all_labels", "bad_rows_skipped", "windows", "words",
    "labels", "mentions", "mentions_by_outcome", "mentions_by_label", "mentions_left_out", "mentions_matched_loosely",
    "tasks", "spans", "spans_by_outcome", "texts_shared_with_training", "reach", "characters", "pieces", "unknown",
    "identical", "fallbacks", "identical_share", "unknown_share", "pieces_per_character",
)  # fmt: skip
_EVALUATION_KEYS = (
    "metric", "documents", "threshold", "threshold_source", "modes", "ceiling", "targets", "average_precision",
    "unseen", "dictionary", "plain_gliner2", "errors", "weights", "tasks",
)  # fmt: skip
_HISTORY_KEYS = (
    "epoch", "step", "loss", "encoder_learning_rate", "heads_learning_rate", "threshold", "tasks", "mean_f1",
    *(part for architecture in ARCHITECTURES.values() for part in architecture.loss_parts),
)  # fmt: skip


def weights_digest(directory: Path) -> str:
    """The SHA-256 of a model's weights, which tells whether a report is about this very model."""
    adapter = directory / ADAPTER_WEIGHTS
    return file_digest(adapter if adapter.is_file() else directory / "model.safetensors")


def requirement(source: str | None = None, extra: str = "") -> str | None:
    """What `pip install` needs to install this package; ``None`` if nobody said where it is published.

    Args:
        source: An address that pip knows (`git+https://...`, or that of a wheel), or a requirement (`glinerko==0.1`);
            by default the `Repository` of `[project.urls]` in ``pyproject.toml``.
        extra: `demo` or `spacy`: optional requirements.
    """
    if source is None:
        urls = dict(entry.split(", ", 1) for entry in metadata("glinerko").get_all("Project-URL") or ())
        source = f"git+{urls['Repository']}" if "Repository" in urls else None
    name = f"glinerko[{extra}]" if extra else "glinerko"
    if source is None or "://" in source:
        return source and f"{name} @ {source}"
    return source.replace("glinerko", name, 1)


def write_card(
    directory: Path,
    repo_id: str | None = None,
    install_from: str | None = None,
    argument_classes: Iterable[type] = (ModelArguments, DataArguments, TrainingArguments),
) -> Path:
    """Write ``README.md`` of the model in ``directory``, and beside it the public facts and plots that it is made of.

    The facts are read from the directory of the run, which is the parent of ``directory``, or from ``directory`` itself
    if the model was published before.

    Args:
        repo_id: The repository that the code examples load; a placeholder by default.
        install_from: Where this package can be installed from; see :func:`requirement`.
        argument_classes: The classes that declare the options of training. Those that affect the trained weights are
            public.

    Returns:
        The path of the card.
    """
    run = directory.parent if (directory.parent / TRAINING_ARGUMENTS).is_file() else directory
    facts = {
        TRAINING_ARGUMENTS: _public_arguments(read_json(run / TRAINING_ARGUMENTS), argument_classes),
        ENVIRONMENT: read_json(run / ENVIRONMENT),
        SWAP_REPORT: read_json(run / SWAP_REPORT),
        DATA_REPORT: {split: _only(part, _DATA_KEYS) for split, part in read_json(run / DATA_REPORT).items()},
        EVALUATION: _public_evaluation(run, directory),
    }
    for name, content in facts.items():
        if content:
            write_json(directory / name, content)
    config = read_config(directory)
    settings = Settings.from_config(config, directory)
    images = directory / "images"
    images.mkdir(exist_ok=True)
    history = [_only(entry, (*_HISTORY_KEYS, *METRICS)) for entry in read_json_lines(run / HISTORY)]
    if history:
        write_json_lines(directory / HISTORY, history)
        if settings.validation and settings.validation.metric in METRICS:
            save_plots({"training": partial(training_plot, history, settings.validation.metric)}, images)
    if facts[EVALUATION] and run != directory:
        for plot, shown in ((run / REPORT / f"{name}.png", images / f"{name}.png") for name in IMAGES):
            shown.unlink(missing_ok=True)
            if plot.is_file():  # a plot that could not be drawn is left out
                shutil.copyfile(plot, shown)
    path = directory / "README.md"
    name = repo_id.split("/")[-1] if repo_id else directory.resolve().parent.name
    card = _render(name, repo_id or f"USER/{name}", requirement(install_from), config, settings, facts, history, images)
    write_text(path, re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n")
    return path


def _render(
    name: str,
    repo_id: str,
    install: str | None,
    config: Mapping[str, Any],
    settings: Settings,
    facts: Mapping[str, dict],
    history: list[dict],
    images: Path,
) -> ModelCard:
    arguments, swap, evaluation = facts[TRAINING_ARGUMENTS], facts[SWAP_REPORT], facts[EVALUATION]
    licences = swap.get("licences", {})
    encoder = swap.get("encoder", config["model_name"])
    stated = set(licences.values())
    licence = stated.pop() if len(stated) == 1 else None
    on_hub = [parent for parent in licences if "/" in parent]
    plain = evaluation.get("plain_gliner2", {})
    entity_types = {label: settings.descriptions.get(label, {}) for label in settings.labels}
    chosen = settings.validation
    validation = next(
        (each for each in history if chosen and each["epoch"] == chosen.epoch and chosen.metric in each), None
    )
    data = ModelCardData(
        language="ko",
        library_name="gliner2",
        pipeline_tag="token-classification",
        license=licence,
        tags=["gliner2", "named-entity-recognition", "korean", "glinerko"],
        metrics=["f1", "precision", "recall"],
        datasets=[arguments["dataset_name"]] if "dataset_name" in arguments else None,
        base_model=on_hub or None,
        base_model_relation="finetune" if on_hub else None,
        model_name=name,
        eval_results=_results(evaluation, validation, arguments.get("dataset_name")) or None,
    )
    return ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        name=name,
        repo_id=repo_id,
        install=install,
        md=escape_markdown,
        code=code_span,
        link=_link,
        quoted=partial(json.dumps, ensure_ascii=False),
        base_model=swap.get("base_model", config["model_name"]),
        encoder=encoder,
        common_ancestor=swap.get("common_ancestor"),
        swapped=encoder in licences,
        kept=list(swap.get("kept", {})),
        lora=bool(arguments.get("lora")),
        settings=settings,
        entity_types=entity_types if settings.descriptions else settings.labels,
        threshold=0.5 if settings.threshold is None else settings.threshold,
        max_width=config.get("max_width"),
        metrics=METRICS,
        score_title=score_title,
        evaluation=evaluation,
        plain_splitter=max(("whitespace", "char"), key=lambda splitter: plain.get(splitter, 0.0)),
        validation=validation,
        arguments=arguments,
        environment=facts[ENVIRONMENT],
        training_data=facts[DATA_REPORT].get("training"),
        licence=licence,
        licences=licences,
        images=[image for image in IMAGES if (images / f"{image}.png").is_file()],
        curve=(images / "training.png").is_file(),
    )


def _link(model: str) -> str:
    """A model in Markdown, with a link if it is on the Hub."""
    if "/" not in model:
        return code_span(model)
    return f"[{escape_markdown(model)}](https://huggingface.co/{quote(model)})"


def _results(evaluation: dict, validation: dict | None, dataset_name: str | None) -> list[EvalResult]:
    """The overall scores in the form of the Hub: those on test documents if there are any."""
    dataset, split = (Path(evaluation["test_file"]).stem, "test") if evaluation else ("validation", "validation")
    measured = evaluation or validation or {}
    return [
        EvalResult(
            task_type="token-classification",
            task_name="Named entity recognition",
            dataset_type=dataset_name or dataset,
            dataset_name=dataset,
            dataset_split=split,
            metric_type=kind,
            metric_name=f"{metric_title(name)}: {kind}" if kind != "f1" else metric_title(name),
            metric_value=round(measured[name]["overall"][kind], 4),
        )
        for name in METRICS
        if name in measured and measured[name]["labels"]
        for kind in ("f1", "precision", "recall")
    ]


def _public_arguments(arguments: dict, classes: Iterable[type]) -> dict[str, Any]:
    """The hyper-parameters; no path, no name of a file, no token."""
    names = options_that_affect(RESULT, *classes)
    public = {name: arguments[name] for name in names if arguments.get(name) is not None}
    dataset = arguments.get("dataset_name")
    return public | ({"dataset_name": dataset} if dataset and _is_hub_id(dataset) else {})


def _is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository, and is no path; training writes paths as absolute ones."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()


def _public_evaluation(run: Path, directory: Path) -> dict[str, Any]:
    """The evaluation of these very weights, if there is one."""
    report = read_json(run / REPORT / REPORT_FIGURES) or read_json(directory / EVALUATION)
    if not report or report.get("weights") != weights_digest(directory):
        return {}
    return {**_only(report, (*_EVALUATION_KEYS, *METRICS)), "test_file": Path(report["test_file"]).name}


def _only(record: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: record[name] for name in names if name in record}
