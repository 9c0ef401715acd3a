"""GLiNER v1 models through the optional ``gliner`` package: scored beside ours, never trained here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from glinerko.data import Span
from glinerko.errors import LoadError, first_line
from glinerko.prediction import Predictions
from glinerko.windows import cut_windows

if TYPE_CHECKING:
    from gliner import GLiNER


def is_gliner_v1(directory: Path) -> bool:
    """Whether the files are a GLiNER v1 model's."""
    return (directory / "gliner_config.json").is_file()


def load_gliner(directory: Path, map_location: str | torch.device = "cpu") -> GLiNER:
    """Load a GLiNER v1 model.

    Raises:
        LoadError: ``gliner`` is not installed, or the files cannot be loaded.
    """
    try:
        from gliner import GLiNER
    except ImportError as error:
        raise LoadError(f"{directory}: a GLiNER v1 model, which needs the gliner package: `make gliner`") from error
    try:
        return GLiNER.from_pretrained(str(directory), map_location=str(map_location), local_files_only=True).eval()
    except Exception as error:  # every reader raises its own on a damaged file
        raise LoadError(f"{directory}: the GLiNER v1 model cannot be loaded: {first_line(error)}") from error


def predict_with_gliner(
    model: GLiNER,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    indices: Sequence[int] | None = None,
    batch_size: int = 16,
    floor: float = 0.05,
    progress: Callable[[Iterable], Iterable] = lambda batches: batches,
) -> Predictions:
    """What a GLiNER v1 model finds by its own words and its own decoding (flat: no two spans overlap).

    It reads ``config.max_len`` words and no more, so longer texts go in windows; of a span that two windows find, the
    better score counts.

    Args:
        labels: What to ask for; lower-case names suit what these models were trained on.
        indices: The documents to do, in this order; all by default.
        floor: The lowest score that is kept. Decoding takes the best spans first, so that those of a lower threshold
            serve every other.
    """
    indices = range(len(texts)) if indices is None else indices
    limit = model.config.max_len
    windows: list[tuple[int, int, str]] = []
    for position, index in enumerate(indices):
        words = [(start, end) for _, start, end in model.data_processor.words_splitter(texts[index])]
        for first, last in cut_windows(words, [1] * len(words), limit, limit // 8):
            begin, end = words[first][0], words[last - 1][1]
            windows.append((position, begin, texts[index][begin:end]))
    windows.sort(key=lambda window: len(window[2]))
    scores: list[dict[tuple[int, int, str], float]] = [{} for _ in indices]
    for first in progress(range(0, len(windows), batch_size)):
        batch = windows[first : first + batch_size]
        found = model.inference([text for *_, text in batch], list(labels), threshold=floor, batch_size=batch_size)
        for (position, begin, _), entities in zip(batch, found, strict=True):
            for entity in entities:
                key = (begin + entity["start"], begin + entity["end"], entity["label"])
                scores[position][key] = max(entity["score"], scores[position].get(key, 0.0))
    candidates = [sorted(Span(*key, score=score) for key, score in document.items()) for document in scores]
    return Predictions(candidates, len(windows))
