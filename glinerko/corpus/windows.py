"""From documents to windows, and from gold mentions to targets: whole words, not too wide, within one window.

gliner2 drops a mention string that matches no run of words, widens offsets that miss the word boundaries, and keeps
the rest of a span that truncation cut, all without a message. Here every mention that cannot become a target is
counted, with its cause, and never reaches gliner2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher

from glinerko.common import DataError, code_digest
from glinerko.corpus.alignment import Outcome, classify_spans, place_records
from glinerko.corpus.processor import KoreanSchemaTransformer, RecordTarget, TrainingWindow, Window, gliner2_schema
from glinerko.corpus.rows import ENTITIES, OFFSETS, Example, Offsets, Span
from glinerko.corpus.schema import CLASSIFICATIONS, LabelSchema

MAX_LENGTH, WINDOW_OVERLAP = 512, 64
"""Pieces in a window, and pieces that it may share with the window before it."""

_WINDOW_COLUMNS = {"words": OFFSETS, "windows": OFFSETS}
_PLACES = {"label": Value("string"), "spans": OFFSETS}
_CHOSEN = {"label": Value("string"), "text": Value("string")}
_ALIGNED_COLUMNS = {
    "outcomes": List(List(Value("string"))),
    "record_outcomes": List(List(Value("string"))),
    "record_targets": List(
        {"window": Value("int32"), "record": Value("int32"), "task": Value("string"), "values": List(_PLACES),
         "chosen": List(_CHOSEN)}
    ),
}  # fmt: skip


def cut_windows(words: Sequence[Offsets], pieces: Sequence[int], max_pieces: int, overlap: int) -> list[Offsets]:
    """Cover all words with windows of at most ``max_pieces`` pieces that overlap by up to ``overlap`` pieces.

    Windows begin and end at white space. Only a stretch without white space that is longer than a window is cut
    between two words. A single word of more than ``max_pieces`` pieces makes a window of its own.

    Args:
        words: ``(start, end)`` of each word; two words are separated by white space if these do not touch.
        pieces: The number of pieces of each word.

    Returns:
        ``(first, last)`` word of each window, ``last`` exclusive, in order.

    Raises:
        ValueError: There is no room, or the overlap leaves none for new words.
    """
    if max_pieces < 1 or not 0 <= overlap < max_pieces:
        raise ValueError(f"need 0 <= overlap < max_pieces, got overlap={overlap}, max_pieces={max_pieces}")
    before = [0, *accumulate(pieces)]
    after_space = [True, *(end < start for (_, end), (start, _) in pairwise(words)), True]

    windows: list[Offsets] = []
    first, covered = 0, 0
    while covered < len(words):
        last = covered + 1
        while last < len(words) and before[last + 1] - before[first] <= max_pieces:
            last += 1
        if before[last] - before[first] > max_pieces and first < covered:
            first = covered  # the overlap leaves no room for the next word
            continue
        if last < len(words):
            at_space = next((cut for cut in range(last, covered, -1) if after_space[cut]), None)
            if at_space is None and first < covered:
                first = covered  # try the long stretch again, with a whole window for it
                continue
            last = at_space or last
        windows.append((first, last))
        covered = last
        first = last
        for cut in range(last - 1, windows[-1][0], -1):
            if before[last] - before[cut] > overlap:
                break
            if after_space[cut]:
                first = cut
    return windows


def split_into_windows(
    rows: Dataset,
    processor: KoreanSchemaTransformer,
    schema: LabelSchema,
    *,
    max_length: int = MAX_LENGTH,
    window_overlap: int = WINDOW_OVERLAP,
    max_text: int | None = None,
) -> Dataset:
    """Add the columns ``words`` and ``windows`` (first and last word, exclusive) to each row, computed once and cached.

    Args:
        schema: The labels and descriptions of the prompt; the prompt uses part of each window.
        max_length: Pieces in a window, prompt included.
        window_overlap: Pieces that a window may share with the one before it.
        max_text: Pieces of text in a window; as many as there is room for by default.

    Raises:
        DataError: The prompt leaves too little room for text.
    """
    tasks = gliner2_schema(Window("", [], schema.labels), schema)
    room = text_room(processor, tasks, max_length, window_overlap, max_text)

    def split_batch(batch: Mapping[str, list]) -> dict[str, list]:
        columns: dict[str, list] = {name: [] for name in _WINDOW_COLUMNS}
        for text, words in zip(batch["text"], processor.split(batch["text"]), strict=True):
            pieces = [len(pieces) for pieces in processor.word_pieces(text, words)]
            columns["words"].append(words)
            columns["windows"].append(cut_windows(words, pieces, *room))
        return columns

    splitter = processor.word_splitter
    words = splitter.splitter, splitter.splitter.version, splitter.continuation is not None
    tokenizer = processor.tokenizer.backend_tokenizer.to_str()
    settings = rows._fingerprint, code_digest(), words, tokenizer, schema, room
    return rows.map(
        split_batch,
        batched=True,
        batch_size=256,
        features=Features({**rows.features, **_WINDOW_COLUMNS}),
        new_fingerprint=Hasher.hash(settings),
        desc="Splitting words",
    )


def text_room(
    processor: KoreanSchemaTransformer,
    schema: Mapping[str, Any],
    max_length: int = MAX_LENGTH,
    window_overlap: int = WINDOW_OVERLAP,
    max_text: int | None = None,
) -> tuple[int, int]:
    """The pieces that the prompt of a schema in gliner2's own form leaves for the text of a window, and its overlap.

    Raises:
        DataError: They are too few.
    """
    prompt = processor.prompt_length(schema)
    room = max_length - prompt - 1  # gliner2 ends a text with a full stop
    if max_text is not None and max_text < room:
        room, window_overlap = max_text, min(window_overlap, max_text // 2)
    if room <= window_overlap:
        raise DataError(
            f"the prompt alone takes {prompt} of {max_length} pieces, which leaves {room} for text and an overlap of "
            f"{window_overlap}: shorten the label descriptions, or train with a larger --max_length"
        )
    return room, window_overlap


def align_gold(documents: Dataset, max_width: int | None, max_records: int | None = None) -> Dataset:
    """Add what became of the gold to rows of :func:`split_into_windows`.

    ``outcomes`` has one for each span of each mention, ``record_outcomes`` one for each value of each record, and
    ``record_targets`` are the records as they are in each window; see :func:`place_records`.
    """

    def align_batch(batch: Mapping[str, list]) -> dict[str, list]:
        columns: dict[str, list] = {name: [] for name in _ALIGNED_COLUMNS}
        for values in zip(*batch.values(), strict=True):
            row = dict(zip(batch, values, strict=True))
            example, place = Example.from_row(row), (row["words"], row["windows"], max_width)
            outcomes = classify_spans(example, *place)
            columns["outcomes"].append([[outcome.value for outcome in spans] for spans in outcomes])
            records, targets = place_records(example, *place, max_records)
            columns["record_outcomes"].append([[outcome.value for outcome in values] for values in records])
            columns["record_targets"].append(targets)
        return columns

    return documents.map(
        align_batch,
        batched=True,
        batch_size=256,
        features=Features({**documents.features, **_ALIGNED_COLUMNS}),
        new_fingerprint=Hasher.hash((documents._fingerprint, code_digest(), "outcomes", max_width, max_records)),
        desc="Aligning mentions",
    )


def row_windows(row: Mapping[str, Any], labels: Sequence[str]) -> Iterator[tuple[int, Window]]:
    """The windows of a row of :func:`split_into_windows`, each with the offset at which it begins."""
    text, words = row["text"], row["words"]
    for first, last in row["windows"]:
        begin = 0 if first == 0 else words[first][0]
        stop = len(text) if last == len(words) else words[last - 1][1]
        shifted = [(start - begin, end - begin) for start, end in words[first:last]]
        yield begin, Window(text[begin:stop], shifted, tuple(labels))


def aligned_windows(row: Mapping[str, Any], labels: Sequence[str]) -> Iterator[tuple[int, TrainingWindow]]:
    """The windows of a row of :func:`align_gold`, each with the targets that lie wholly in it."""
    targets = {key for key, outcome in span_outcomes(row).items() if outcome == Outcome.TARGET and key[2] in labels}
    classes = {entry["task"]: entry["labels"] for entry in row["classes"]}
    for number, (begin, window) in enumerate(row_windows(row, labels)):
        stop = begin + len(window.text)
        inside = sorted(Span(s - begin, e - begin, label) for s, e, label in targets if begin <= s and e <= stop)
        records = [RecordTarget.from_row(each, begin) for each in row["record_targets"] if each["window"] == number]
        asked = tuple(row["annotated"])
        yield begin, TrainingWindow(window.text, window.words, window.labels, inside, asked, classes, records)


def span_outcomes(row: Mapping[str, Any]) -> dict[tuple[int, int, str], str]:
    """The outcome of each gold span ``(start, end, label)`` of a row of :func:`align_gold`."""
    return {
        (start, end, mention.label): outcome
        for mention, outcomes in zip(Example.from_row(row).mentions, row["outcomes"], strict=True)
        for (start, end), outcome in zip(mention.spans, outcomes, strict=True)
    }


def perfect_spans(row: Mapping[str, Any]) -> list[Span]:
    """What a perfect model would predict for a row of :func:`align_gold`: the targets, with score 1."""
    return [Span(*key, score=1.0) for key, outcome in span_outcomes(row).items() if outcome == Outcome.TARGET]


_TRAINING_FEATURES = Features(
    {
        "id": Value("string"),
        "text": Value("string"),
        "words": OFFSETS,
        "labels": List(Value("string")),
        "targets": List({"start": Value("int32"), "end": Value("int32"), "label": Value("string")}),
        "asked": List(Value("string")),
        "classes": List({"task": Value("string"), "labels": List(Value("string"))}),
        "records": List({"task": Value("string"), "values": List(_PLACES), "chosen": List(_CHOSEN)}),
    }
)


def training_windows(aligned: Dataset, schema: LabelSchema) -> Dataset:
    """One row for each window of :func:`align_gold`: a :class:`TrainingWindow` and the ``id`` of its document.

    A document without labels is one in which nothing was found: a negative example of every label. A document that was
    not annotated for anything that ``schema`` asks has no window.
    """
    tasks = {task.name for task in schema.tasks}
    kinds = {task.kind for task in schema.tasks if task.kind != CLASSIFICATIONS}

    def explode(batch: Mapping[str, list]) -> dict[str, list]:
        columns: dict[str, list] = {name: [] for name in _TRAINING_FEATURES}
        for values in zip(*batch.values(), strict=True):
            row = dict(zip(batch, values, strict=True))
            named = (row["labels"] or schema.labels) if ENTITIES in row["annotated"] else ()
            labels = [label for label in schema.labels if label in named]
            classes = [entry for entry in row["classes"] if entry["task"] in tasks]
            if not labels and not classes and kinds.isdisjoint(row["annotated"]):
                continue
            for _, window in aligned_windows(row, labels):
                targets = [{"start": span.start, "end": span.end, "label": span.label} for span in window.targets]
                records = [each.to_row() for each in window.records if each.task in tasks]
                cells = (
                    row["id"],
                    window.text,
                    window.words,
                    list(window.labels),
                    targets,
                    window.asked,
                    classes,
                    records,
                )
                for column, cell in zip(columns.values(), cells, strict=True):
                    column.append(cell)
        return columns

    return aligned.map(
        explode,
        batched=True,
        batch_size=256,
        remove_columns=aligned.column_names,
        features=_TRAINING_FEATURES,
        new_fingerprint=Hasher.hash([aligned._fingerprint, "windows", schema]),
        desc="Cutting windows",
    )


def window_from_row(row: Mapping[str, Any]) -> TrainingWindow:
    """The window in a row of :func:`training_windows`."""
    targets = [Span(target["start"], target["end"], target["label"]) for target in row["targets"]]
    classes = {entry["task"]: entry["labels"] for entry in row["classes"]}
    records = list(map(RecordTarget.from_row, row["records"]))
    labels, asked = tuple(row["labels"]), tuple(row["asked"])
    return TrainingWindow(row["text"], row["words"], labels, targets, asked, classes, records)


def usual_length(windows: Dataset, processor: KoreanSchemaTransformer) -> int:
    """The pieces of text for a window that is like most of these rows of :func:`training_windows`.

    A fifth more than the length up to which texts hold 95 % of all pieces, and at least four times the longest target.
    """
    lengths, targets = [], [1]
    for window in map(window_from_row, windows):
        before = [0, *accumulate(map(len, processor.word_pieces(window.text, window.words)))]
        starts = {start: index for index, (start, _) in enumerate(window.words)}
        ends = {end: index for index, (_, end) in enumerate(window.words, 1)}
        places = [(target.start, target.end) for target in window.targets]
        places += [place for record in window.records for _, spans in record.values for place in spans]
        targets += [before[ends[end]] - before[starts[start]] for start, end in places]
        lengths.append(before[-1])
    lengths.sort()
    usual = next(n for n, total in zip(lengths, accumulate(lengths), strict=True) if total >= 0.95 * sum(lengths))
    return max(math.ceil(1.2 * usual), 4 * max(targets))
