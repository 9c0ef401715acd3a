"""Publishing a model: a check in a fresh process, then an upload in one commit, so that it is never half visible."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path

import torch
from httpx2 import HTTPError
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi

from glinerko.common import PublishError, first_line
from glinerko.corpus.reading import load_rows
from glinerko.corpus.rows import Example
from glinerko.corpus.words import USER_DICTIONARY, splitter_modules
from glinerko.hub import hub_errors, is_transient, read_config, root_cause, what_happened
from glinerko.model.extractor import SCORE_TOLERANCE, KoreanExtractor, load_and_compare
from glinerko.model.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_base
from glinerko.model.prediction import predict_spans
from glinerko.model.settings import Settings
from glinerko.scoring.metrics import METRICS
from glinerko.sharing.card import EVALUATION
from glinerko.training.checkpoints import DATA_REPORT, ENVIRONMENT, HISTORY, SWAP_REPORT, TRAINING_ARGUMENTS

PUBLISHED = (
    "config.json", "encoder_config/config.json", "model.safetensors", ADAPTER_CONFIG, ADAPTER_WEIGHTS,
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    USER_DICTIONARY, "README.md", TRAINING_ARGUMENTS, ENVIRONMENT, SWAP_REPORT, DATA_REPORT, HISTORY, EVALUATION,
    "images/*.png",
)  # fmt: skip
"""The files of a repository. Other files of the directory are not published, and older ones of these are deleted."""


def published_files(directory: Path) -> list[Path]:
    """The files of a model's directory that are published, relative to it."""
    files = (path.relative_to(directory) for path in sorted(directory.rglob("*")) if path.is_file())
    return [path for path in files if _is_published(path.as_posix())]


def _is_published(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in PUBLISHED)


def prepare_repository(repo_id: str, *, token: str | None = None, private: bool | None = None) -> str:
    """Make the repository if there is none and check that the token may write to it, before hours are spent.

    Args:
        repo_id: ``user/model``, or ``model`` for the token's own user.
        private: Whether a new repository is private; the owner's default if ``None``.

    Returns:
        The full id.

    Raises:
        PublishError: There is no token, no permission or no connection.
    """
    api = HfApi(token=token)
    with hub_errors(repo_id, PublishError):
        user = api.whoami()["name"]
        repo_id = repo_id if "/" in repo_id else f"{user}/{repo_id}"
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.auth_check(repo_id, write=True)
    return repo_id


def verify_saved(directory: Path, validation_file: Path, batch_size: int = 16) -> None:
    """Load the model in a fresh process and check that it gives what it gave when it was saved.

    Raises:
        PublishError: It cannot be loaded, or its scores or its F1 on the validation documents differ.
    """
    base = adapter_base(directory)
    if base and Path(base).exists():
        raise PublishError(f"{directory}: not published, its adapters need {base}, which is on this machine alone")
    try:
        with ProcessPoolExecutor(1, get_context("spawn"), _import_modules, (splitter_modules(),)) as pool:
            fault = pool.submit(_find_fault, directory, validation_file, batch_size).result()
    except BrokenProcessPool:
        fault = "the process that tried it died, perhaps because memory is too small"
    if fault:
        raise PublishError(f"{directory}: not published, {fault}")


def _import_modules(names: list[str]) -> None:
    for name in names:
        importlib.import_module(name)


def _find_fault(directory: Path, validation_file: Path, batch_size: int) -> str | None:
    """What is wrong with a saved model, if something is."""
    torch.set_flush_denormal(True)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        claim = Settings.from_config(read_config(directory), directory).validation
        if claim is None:
            return "it names no F1 on validation documents: only a model that was trained can be published"
        model, difference = load_and_compare(directory, claim.reference_scores, device)
    except Exception as error:
        return f"it cannot be loaded: {first_line(error)}"
    if difference == math.inf:
        return "it splits words, or opens its gate, differently than when it was saved"
    if difference > SCORE_TOLERANCE:
        return f"its scores differ by {difference:.4f} from those when it was saved"
    f1 = _validation_f1(model, validation_file, batch_size)
    # Sums in another order can move a span across the threshold, in half precision several spans.
    if abs(f1 - claim.f1) > (0.005 if claim.precision == "no" else 0.02):
        return f"its {claim.metric} on {validation_file} is {f1:.4f}, and {claim.f1:.4f} when it was saved"
    return None


def _validation_f1(model: KoreanExtractor, validation_file: Path, batch_size: int) -> float:
    claim, schema = model.settings.validation, model.label_schema
    rows, _ = load_rows(str(validation_file))
    documents = model.split(rows)
    precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(claim.precision)
    with torch.autocast(model.device.type, dtype=precision, enabled=precision is not None):
        predictions = predict_spans(model, documents, schema, batch_size=batch_size)
    examples = [Example.from_row(row) for row in rows]
    return METRICS[claim.metric].score(examples, predictions.at_threshold(model.threshold), schema.labels).overall.f1


def publish(
    directory: Path,
    repo_id: str,
    *,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload the model, its card and its scores",
    tell: Callable[[str], None] = lambda line: None,
) -> CommitInfo:
    """Upload the files of :data:`PUBLISHED` in one commit, the last request, so that all or none are visible.

    What was uploaded before a broken connection is not sent again. If all files are the same there, no commit is made.

    Args:
        revision: The branch to commit to, made if there is none; ``main`` by default.
        create_pr: Whether to open a pull request instead.
        tell: Gets a line for each error after which the request is repeated.

    Raises:
        PublishError: The Hub's answer, and what to do.
    """
    api = HfApi(token=token)
    files = [path.as_posix() for path in published_files(directory)]
    with hub_errors(repo_id, PublishError):
        if revision and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)

        def commit() -> CommitInfo:
            there = api.list_repo_files(repo_id, revision=None if create_pr else revision)
            stale = [path for path in there if _is_published(path) and path not in files]
            operations = [CommitOperationAdd(path, directory / path) for path in files]
            return api.create_commit(
                repo_id,
                [*operations, *map(CommitOperationDelete, stale)],
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
            )

        # The client repeats its uploads, but not the commit. If a commit was made and only its answer was lost, the
        # second one changes nothing; a pull request would be opened twice.
        for wait in () if create_pr else (2, 8):
            try:
                return commit()
            except (HTTPError, RuntimeError) as error:
                if not is_transient(root_cause(error)):
                    raise
                tell(f"{what_happened(root_cause(error))}; trying again in {wait} seconds")
                time.sleep(wait)
        return commit()
