"""The options of training. Each says what it affects: run identity and model card follow from that."""

from __future__ import annotations

from dataclasses import dataclass

from glinerko.cli import CONTENT, RESULT, option
from glinerko.common import GlinerkoError
from glinerko.model.swap import SwapArguments
from glinerko.scoring.metrics import METRICS

PRECISIONS, ATTENTIONS = ["auto", "no", "bf16", "fp16"], ["auto", "eager", "disentangled_flash"]
TRACKERS = ["none", "tensorboard", "trackio", "wandb", "all"]


@dataclass
class RunArguments:
    """Options of every script that trains."""

    output_dir: str = option("outputs", "directory for everything that the run writes")
    overwrite_output_dir: bool = option(False, "permission to replace an earlier run in output_dir")
    warmup_ratio: float = option(
        0.1,
        "warm-up: share of the steps in which the rates rise; then they fall linearly",
        RESULT,
        at_least=0,
        at_most=1,
    )
    weight_decay: float = option(
        0.01, "weight decay of AdamW; biases and layer norms have none", RESULT, at_least=0, at_most=1
    )
    mixed_precision: str = option(
        "auto", "precision; auto: Accelerate's setting, or bf16 if the GPU supports it", RESULT, choices=PRECISIONS
    )
    attention_backend: str = option(
        "auto", "attention; auto: disentangled_flash if installed and supported", RESULT, choices=ATTENTIONS
    )
    seed: int = option(42, "random seed", RESULT, at_least=0)
    checkpoints_total_limit: int = option(2, "number of checkpoints to keep, the newest", at_least=1)
    resume_from_checkpoint: str | None = option(None, "checkpoint to resume from: a path, or 'latest' in output_dir")
    resume_anyway: bool = option(False, "permission to resume although data or options differ")
    max_train_minutes: float | None = option(
        None, "minutes from its start after which the run stops, resumable", at_least=0
    )


@dataclass
class ModelArguments(SwapArguments):
    """The model that is trained."""

    lora: bool = option(False, "LoRA adapters (rank 16) on the base model as it is, to compare with a swap", RESULT)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora and self.encoder is not None:
            raise GlinerkoError("--lora trains the base model as it is: pass --korean_encoder none with it")


@dataclass
class DataArguments:
    """The documents, and what the model reads of them."""

    train_file: str | None = option(None, "training documents, JSON lines (default: the bundled sample)", CONTENT)
    validation_file: str | None = option(None, "validation documents (default: drawn from the training ones)", CONTENT)
    dataset_name: str | None = option(None, "data set of the `datasets` library instead of files", CONTENT)
    validation_split: float = option(0.1, "share of the documents drawn for validation", RESULT, above=0, below=1)
    labels: list[str] | None = option(None, "labels to use, in prompt order (default: all in the rows)", RESULT)
    on_bad_row: str = option(
        "raise", "what to do with a malformed row: stop or leave it out", choices=["raise", "skip"]
    )
    max_train_samples: int | None = option(None, "maximum number of training rows (default: all)", RESULT, at_least=1)
    max_length: int = option(512, "pieces in a window, prompt included", RESULT, at_least=16)
    label_descriptions: bool = option(True, "descriptions of the labels in the prompt, if the rows have them", RESULT)
    prompt_augmentation: bool = option(False, "random order, names and descriptions of labels, as in gliner2", RESULT)
    word_dropout: float = option(
        0.0, "share of the words masked in training, so that contexts are learned", RESULT, at_least=0, below=1
    )


@dataclass
class TrainingArguments(RunArguments):
    """The training."""

    output_dir: str = option("outputs/korean-gliner2", "directory for everything that the run writes")
    encoder_learning_rate: float = option(2e-5, "peak learning rate of the encoder", RESULT, at_least=0, below=1)
    head_learning_rate: float = option(5e-4, "peak learning rate of the heads", RESULT, at_least=0, below=1)
    num_train_epochs: int = option(15, "maximum number of passes over the training windows", RESULT, at_least=1)
    max_train_steps: int | None = option(
        None, "number of optimizer steps, instead of num_train_epochs", RESULT, at_least=1
    )
    per_device_train_batch_size: int = option(
        8, "windows per batch and process; twice as many in evaluation", RESULT, at_least=1
    )
    auto_find_batch_size: bool = option(False, "smaller batches and more accumulation if memory is too small", RESULT)
    gradient_accumulation_steps: int = option(2, "batches per optimizer step", RESULT, at_least=1)
    weight_averaging: float = option(
        0.0,
        "power p of weight averaging: step t counts t^p; the average is scored and saved (0: none)",
        RESULT,
        at_least=0,
    )
    metric_for_best_model: str = option(
        "string_f1", "metric that chooses epoch and threshold: string_f1 or span_f1", RESULT, choices=lambda: METRICS
    )
    early_stopping_patience: int = option(5, "epochs without a better F1 before training stops", RESULT, at_least=1)
    dataloader_num_workers: int = option(0, "number of processes that prepare batches", at_least=0)
    checkpointing_steps: int | str = option(
        "epoch", "time of a checkpoint: every epoch, or a number of steps", words=["epoch", "no"], at_least=1
    )
    report_to: str = option("none", "experiment tracker; all: every one that is installed", choices=TRACKERS)
    logging_steps: int = option(10, "optimizer steps between two log entries", at_least=1)
    dry_run: bool = option(
        False, "all checks, some timed steps and a plan of the run (time, memory, disk), no training"
    )
    price_per_hour: float | None = option(None, "price of the machine an hour, for the plan of --dry_run", at_least=0)
    push_to_hub: bool = option(False, "upload of the best model to the Hub when training ends")
    hub_model_id: str | None = option(None, "Hub repository, user/model (default: the name of output_dir)")
    hub_private_repo: bool | None = option(None, "privacy of a new Hub repository (default: the owner's default)")
    hub_token: str | None = option(None, "Hub access token (default: the one saved by `hf auth login`)")
