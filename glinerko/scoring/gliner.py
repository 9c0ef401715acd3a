"""GLiNER v1 models, through the optional ``gliner`` package: they can be compared with, and are never trained here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from glinerko.common import LoadError, first_line
from glinerko.corpus.processor import Window
from glinerko.corpus.windows import cut_windows, row_windows
from glinerko.model.architecture import WindowAnswer
from glinerko.model.prediction import FLOOR, Predictions, collect

if TYPE_CHECKING:
    from gliner import GLiNER


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
    except Exception as error:  # each reader raises its own errors on damaged files
        raise LoadError(f"{directory}: the GLiNER v1 model cannot be loaded: {first_line(error)}") from error


def predict_with_gliner(
    model: GLiNER,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    indices: Sequence[int] | None = None,
    batch_size: int = 16,
    floor: float = FLOOR,
    progress: bool = False,
) -> Predictions:
    """The spans that a GLiNER v1 model predicts with its own words and its own decoding (flat: no two spans overlap).

    It reads at most ``config.max_len`` words, so longer texts are cut into windows. Decoding takes the best spans
    first, so the spans of a low floor serve all higher thresholds. The other arguments are as in :func:`predict_spans`.

    Args:
        labels: The labels to ask for; these models were trained on lower-case names.
    """
    limit = model.config.max_len

    def windows(text: str) -> list[tuple[int, Window]]:
        words = [(start, end) for _, start, end in model.data_processor.words_splitter(text)]
        cut = cut_windows(words, [1] * len(words), limit, limit // 8)
        return list(row_windows({"text": text, "words": words, "windows": cut}, labels))

    def score(batch: Sequence[Window]) -> list[WindowAnswer]:
        texts = [window.text for window in batch]
        found = model.inference(texts, list(labels), threshold=floor, batch_size=batch_size)
        return [
            WindowAnswer({"entities": [{each["label"]: [{**each, "confidence": each["score"]}]} for each in entities]})
            for entities in found
        ]

    documents = [windows(text) for text in (texts if indices is None else (texts[index] for index in indices))]
    total = sum(map(len, documents))
    # oneDNN refuses a bf16 LSTM on a CPU without bf16 instructions: the model then reads in float32.
    refused = torch.backends.mkldnn.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    precision = torch.autocast("cpu", enabled=torch.is_autocast_enabled("cpu") and not refused)
    with precision, tqdm(total=total, desc="Predicting", unit="window", leave=False, disable=not progress) as bar:
        return collect(documents, score, batch_size, bar)
