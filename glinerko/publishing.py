"""Publishing a model: tried in a fresh process, then uploaded in one commit, so that a half-visible model never is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path

import torch
from httpx2 import HTTPError
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from glinerko.card import DATA_REPORT, ENVIRONMENT, EVALUATION, HISTORY, SWAP_REPORT, TRAINING_ARGUMENTS
from glinerko.data import Example, load_rows
from glinerko.errors import PublishError, first_line
from glinerko.hub import load_extractor
from glinerko.kiwi import USER_DICTIONARY
from glinerko.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_base
from glinerko.metrics import METRICS
from glinerko.modeling import SCORE_TOLERANCE, score_difference
from glinerko.prediction import predict_spans
from glinerko.targets import annotate

#: What a repository gets, and nothing else that lies in the directory. What is there of these and not here is deleted.
PUBLISHED = (
    "config.json", "encoder_config/config.json", "model.safetensors", ADAPTER_CONFIG, ADAPTER_WEIGHTS,
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    USER_DICTIONARY, "README.md", TRAINING_ARGUMENTS, ENVIRONMENT, SWAP_REPORT, DATA_REPORT, HISTORY, EVALUATION,
    "images/*.png",
)  # fmt: skip

_TRANSIENT = (408, 429, 500, 502, 503, 504)


def published_files(directory: Path) -> list[Path]:
    """The files of a model's directory that are published, relative to it."""
    files = (path.relative_to(directory) for path in sorted(directory.rglob("*")) if path.is_file())
    return [path for path in files if _is_published(path.as_posix())]


def _is_published(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in PUBLISHED)


def prepare_repository(repo_id: str, *, token: str | None = None, private: bool | None = None) -> str:
    """Make the repository if there is none and see that the token may write to it, before hours are spent.

    Args:
        repo_id: ``user/model``, or ``model`` for the token's own user.
        private: For a new repository; the owner's default where ``None``.

    Returns:
        The full id.

    Raises:
        PublishError: no token, no permission, no connection.
    """
    api = HfApi(token=token)
    with _explained(repo_id):
        user = api.whoami()["name"]
        repo_id = repo_id if "/" in repo_id else f"{user}/{repo_id}"
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.auth_check(repo_id, write=True)
    return repo_id


def verify_saved(directory: Path, validation_file: Path, batch_size: int = 16) -> None:
    """Load the model in a fresh process and see that it gives what it gave when it was saved.

    Raises:
        PublishError: it cannot be loaded, or its scores or its F1 on the validation documents differ.
    """
    base = adapter_base(directory)
    if base and Path(base).exists():
        raise PublishError(f"{directory}: not published, its adapters need {base}, which is on this machine alone")
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            fault = pool.submit(_find_fault, directory, validation_file, batch_size).result()
    except BrokenProcessPool:
        fault = "the process that tried it died, perhaps for want of memory"
    if fault:
        raise PublishError(f"{directory}: not published, {fault}")


def _find_fault(directory: Path, validation_file: Path, batch_size: int) -> str | None:
    """What is wrong with a saved model, where something is."""
    torch.set_flush_denormal(True)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        model = load_extractor(directory, map_location=device)
    except Exception as error:
        return f"it cannot be loaded: {first_line(error)}"
    claim = model.validation
    if not claim or "reference_scores" not in claim:
        return "it names no F1 on validation documents: only a model that was trained can be published"
    difference = score_difference(claim["reference_scores"], model.reference_scores())
    if difference == math.inf:
        return "it splits words, or opens its count gate, otherwise than when it was saved"
    if difference > SCORE_TOLERANCE:
        return f"its scores differ by {difference:.4f} from those when it was saved"
    rows, _ = load_rows(str(validation_file))
    schema = model.label_schema
    annotated = annotate(rows, model.processor, schema, max_width=model.max_width, **model.window_limits)
    precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(claim["precision"])
    with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
        found = predict_spans(model, annotated, schema, batch_size=batch_size).at_threshold(model.threshold)
    examples = [Example.from_row(row) for row in annotated]
    f1 = METRICS[claim["metric"]](examples, found, schema.labels).overall.f1
    # Sums in another order can tip a span that stands at the threshold, in half precision several.
    if abs(f1 - claim["f1"]) > (0.005 if precision is None else 0.02):
        return f"its {claim['metric']} on {validation_file} is {f1:.4f}, and {claim['f1']:.4f} when it was saved"
    return None


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
    """Upload the files of :data:`PUBLISHED` in one commit, the last step, so that they are visible all or not at all.

    What was uploaded before a broken connection is not sent again. Files that are as they are there already make no
    new commit.

    Args:
        revision: The branch to commit to, made where there is none; ``main`` by default.
        create_pr: Open a pull request instead.
        tell: Is told what goes wrong and is tried again.

    Raises:
        PublishError: what the Hub answered, and what to do.
    """
    api = HfApi(token=token)
    files = [path.as_posix() for path in published_files(directory)]
    with _explained(repo_id):
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

        # The client tries its uploads again, but not the commit. A second one finds nothing left to do if the first
        # was made and its answer lost; a pull request would be opened twice.
        for wait in () if create_pr else (2, 8):
            try:
                return commit()
            except (HTTPError, RuntimeError) as error:
                if not _is_transient(_cause(error)):
                    raise
                tell(f"{_reason(_cause(error))}; trying again in {wait} seconds")
                time.sleep(wait)
        return commit()


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Errors of the client as one line that says what to do."""
    try:
        yield
    except (HTTPError, RuntimeError, OSError, HFValidationError) as raised:
        error = _cause(raised)
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if isinstance(error, LocalTokenNotFoundError) or status == 401:
            reason = "no valid token: `hf auth login`, or pass --hub_token"
        elif isinstance(error, HFValidationError):
            reason = f"not the id of a repository ({first_line(error)})"
        elif status == 403:
            reason = "this token may not write there: make one with write access to it"
        elif isinstance(error, RevisionNotFoundError):
            reason = "no such revision"
        elif isinstance(error, RepositoryNotFoundError):
            reason = "no such repository, or none that this token may see"
        elif isinstance(error, OfflineModeIsEnabled):
            reason = "offline mode is on: unset HF_HUB_OFFLINE"
        elif _is_transient(error):
            reason = f"{_reason(error)}; run it again later, and what was uploaded is not sent again"
        elif status is not None:
            reason = f"the Hub refused it ({_reason(error)})"
        else:
            raise
        raise PublishError(f"{repo_id}: {reason}") from raised


def _cause(error: BaseException) -> BaseException:
    """The client's own error inside the one that a thread of uploads raised."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _TRANSIENT
    return isinstance(error, HTTPError)


def _reason(error: BaseException) -> str:
    if isinstance(error, HfHubHTTPError):
        said = error.server_message or error.response.reason_phrase
        return f"the Hub answered {error.response.status_code}: {said}"
    return f"the connection to the Hub failed ({first_line(error)})"
