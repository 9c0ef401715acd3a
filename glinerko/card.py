"""The card of a model: a template and measured facts. What was not measured is absent, and so is every text.

The facts are the files that the scripts write beside a model. Each is copied by naming what may be public, never by
leaving out what may not.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from glinerko.files import file_digest, write_json, write_json_lines
from glinerko.hub import read_config
from glinerko.lora import ADAPTER_WEIGHTS
from glinerko.modeling import CONFIG_KEY
from glinerko.plots import save_plots, training_plot

#: What the scripts write about a run; the published copies have the same names.
TRAINING_ARGUMENTS, ENVIRONMENT = "training_args.json", "environment.json"
SWAP_REPORT, DATA_REPORT, EVALUATION = "swap_report.json", "data_report.json", "evaluation.json"
HISTORY, EVALUATION_REPORT = "history.jsonl", "report/report.json"
IMAGES = ("labels", "precision_recall", "errors")

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md.jinja"
_METRICS = {"string_f1": "string F1", "span_f1": "strict span F1"}
_ARGUMENTS = (
    "head_init", "lora", "max_width", "word_splitter", "lower_case", "continuation_pieces", "token_pooling",
    "validation_split", "max_train_samples", "max_length", "window_overlap", "prompt_augmentation",
    "encoder_learning_rate", "head_learning_rate", "num_train_epochs", "max_train_steps", "per_device_train_batch_size",
    "gradient_accumulation_steps", "lr_scheduler_type", "warmup_ratio", "weight_decay", "max_grad_norm",
    "metric_for_best_model", "early_stopping_patience", "mixed_precision", "seed",
)  # fmt: skip
_EVALUATION_KEYS = (
    "metric", "documents", "threshold", "threshold_source", "string_f1", "span_f1", "modes", "ceiling", "targets",
    "average_precision", "unseen", "dictionary", "plain_gliner2", "errors", "weights",
)  # fmt: skip
_HISTORY_KEYS = (
    "epoch", "step", "loss", "structure_loss", "count_loss", "encoder_learning_rate", "heads_learning_rate",
    "threshold", "string_f1", "span_f1",
)  # fmt: skip


def weights_digest(directory: Path) -> str:
    """SHA-256 of a model's weights: what tells whether a report is about this very model."""
    adapter = directory / ADAPTER_WEIGHTS
    return file_digest(adapter if adapter.is_file() else directory / "model.safetensors")


def write_card(directory: Path, repo_id: str | None = None) -> Path:
    """Write ``README.md`` of the model in ``directory``, and beside it the public facts and plots it is made of.

    The facts are read from the run's directory, which is the parent of ``directory``, or from ``directory`` itself
    where the model was published before.

    Args:
        repo_id: What the snippets load; a placeholder by default.

    Returns:
        The path of the card.
    """
    run = directory.parent if (directory.parent / TRAINING_ARGUMENTS).is_file() else directory
    facts = {
        TRAINING_ARGUMENTS: _public_arguments(_read(run / TRAINING_ARGUMENTS)),
        ENVIRONMENT: _read(run / ENVIRONMENT),
        SWAP_REPORT: _read(run / SWAP_REPORT),
        DATA_REPORT: _public_data(_read(run / DATA_REPORT)),
        EVALUATION: _public_evaluation(run, directory),
    }
    for name, content in facts.items():
        if content:
            write_json(directory / name, content)
    images = directory / "images"
    images.mkdir(exist_ok=True)
    history = _history(run / HISTORY)
    if history:
        write_json_lines(directory / HISTORY, history)
        metric = facts[TRAINING_ARGUMENTS].get("metric_for_best_model", "string_f1")
        save_plots({"training": training_plot(history, metric)}, images)
    if facts[EVALUATION] and run != directory:
        for name in IMAGES:
            shutil.copyfile(run / "report" / f"{name}.png", images / f"{name}.png")
    path = directory / "README.md"
    path.write_text(_render(directory, facts, history, images, repo_id), encoding="utf-8")
    return path


def _render(directory: Path, facts: Mapping[str, dict], history: list[dict], images: Path, repo_id: str | None) -> str:
    config = read_config(directory)
    settings = config.get(CONFIG_KEY, {})
    arguments, swap, evaluation = facts[TRAINING_ARGUMENTS], facts[SWAP_REPORT], facts[EVALUATION]
    labels = settings.get("labels") or []
    licences = swap.get("licences", {})
    base_model, encoder = swap.get("base_model", config["model_name"]), swap.get("encoder", config["model_name"])
    swapped = encoder in licences
    on_hub = [parent for parent in licences if "/" in parent]
    stated = set(licences.values())
    licence = stated.pop() if len(stated) == 1 else None
    plain = evaluation.get("plain_gliner2", {})
    descriptions = settings.get("descriptions", {})
    entity_types = {label: descriptions[label] for label in labels} if set(labels) <= set(descriptions) else labels
    metric = arguments.get("metric_for_best_model", "string_f1")
    validation = next(
        (
            {"epoch": entry["epoch"], **entry[metric]}
            for entry in history
            if entry["epoch"] == settings.get("validation", {}).get("epoch")
        ),
        None,
    )
    name = repo_id.split("/")[-1] if repo_id else directory.resolve().parent.name
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
        eval_results=_results(evaluation, validation, metric, arguments) or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        name=name,
        repo_id=repo_id or f"USER/{name}",
        link=lambda parent: f"[{parent}](https://huggingface.co/{parent})" if "/" in parent else f"`{parent}`",
        base_model=base_model,
        encoder=encoder,
        swapped=swapped,
        kept=list(swap.get("kept", {})),
        lora=bool(arguments.get("lora")),
        labels=labels,
        descriptions=descriptions,
        entity_types=json.dumps(entity_types, ensure_ascii=False),
        threshold=settings.get("threshold", 0.5),
        word_splitter=settings.get("word_splitter", "whitespace"),
        max_width=config["max_width"],
        evaluation=evaluation,
        plain_gliner2=plain,
        plain_splitter=max(("whitespace", "char"), key=lambda splitter: plain.get(splitter, 0.0)),
        validation=validation,
        metric_name=_METRICS[metric],
        arguments=arguments,
        environment=facts[ENVIRONMENT],
        training_data=facts[DATA_REPORT].get("training"),
        licence=licence,
        licences=licences,
        images=[image for image in IMAGES if (images / f"{image}.png").is_file()],
        curve=(images / "training.png").is_file(),
    )
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


def _results(evaluation: dict, validation: dict | None, metric: str, arguments: dict) -> list[EvalResult]:
    """The headline figures in the Hub's own form."""
    if evaluation:
        dataset, split = Path(evaluation["test_file"]).stem, "test"
        measured = [(name, evaluation[name]["overall"]) for name in _METRICS]
    elif validation:
        dataset, split = "validation", "validation"
        measured = [(metric, validation["overall"])]
    else:
        return []
    return [
        EvalResult(
            task_type="token-classification",
            task_name="Named entity recognition",
            dataset_type=arguments.get("dataset_name", dataset),
            dataset_name=dataset,
            dataset_split=split,
            metric_type=kind,
            metric_name=f"{_METRICS[name]}: {kind}" if kind != "f1" else _METRICS[name],
            metric_value=round(score[kind], 4),
        )
        for name, score in measured
        for kind in ("f1", "precision", "recall")
    ]


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _history(path: Path) -> list[dict]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [{name: value for name, value in json.loads(line).items() if name in _HISTORY_KEYS} for line in lines]


def _public_arguments(arguments: dict) -> dict[str, Any]:
    """Hyper-parameters; no path, no name of a file, no token."""
    public = {name: arguments[name] for name in _ARGUMENTS if arguments.get(name) is not None}
    named = arguments.get("dataset_name")
    return public | ({"dataset_name": named} if named and not Path(named).exists() else {})


def _public_data(report: dict) -> dict[str, Any]:
    return {
        split: {name: value for name, value in content.items() if name != "source"} for split, content in report.items()
    }


def _public_evaluation(run: Path, directory: Path) -> dict[str, Any]:
    """The evaluation of these very weights, where there is one."""
    report = _read(run / EVALUATION_REPORT) or _read(directory / EVALUATION)
    if not report or report.get("weights") != weights_digest(directory):
        return {}
    public = {name: report[name] for name in _EVALUATION_KEYS if name in report}
    return {**public, "test_file": Path(report["test_file"]).name}
