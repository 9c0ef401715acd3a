"""From gold mentions to what the model can be taught: spans of whole words, no wider than the head, in one window.

gliner2 drops a mention string that matches no run of words, widens offsets that miss the word boundaries, and keeps
the fragment of a span that truncation cut, all in silence. Here every mention that cannot become a target is counted,
by cause, and never reaches gliner2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher

from glinerko import __version__
from glinerko.data import Example, LabelSchema, Span
from glinerko.errors import DataError
from glinerko.files import write_json_lines
from glinerko.modeling import KoreanSchemaTransformer
from glinerko.rows import as_offsets
from glinerko.windows import Window, cut_windows
from glinerko.words import load_word_splitter, split_batch


class Outcome(str, Enum):
    """What became of an occurrence of a gold mention, in the order in which the reasons apply."""

    ABSENT = "absent from text"
    STARTS_INSIDE_WORD = "starts inside a word"
    ENDS_INSIDE_WORD = "ends inside a word"
    TOO_WIDE = "wider than max_width"
    OUTSIDE_WINDOWS = "outside every window"
    NESTED = "nested in a span of its label"
    TARGET = "target"


_ORDER = {outcome.value: rank for rank, outcome in enumerate(Outcome)}
_OFFSETS = List({"start": Value("int32"), "end": Value("int32")})
_ANNOTATIONS = {"words": _OFFSETS, "windows": _OFFSETS, "outcomes": List(List(Value("string")))}


def classify_spans(
    example: Example, words: Sequence[tuple[int, int]], windows: Sequence[tuple[int, int]], max_width: int
) -> list[list[Outcome]]:
    """The outcome of every occurrence of every mention of ``example``.

    Args:
        words: ``(start, end)`` of each word of the text.
        windows: ``(first, last)`` word of each window, ``last`` exclusive.
        max_width: The widest span the head scores, in words.
    """
    starts = {start: index for index, (start, _) in enumerate(words)}
    ends = {end: index for index, (_, end) in enumerate(words)}

    def classify(start: int, end: int) -> Outcome:
        if start not in starts:
            return Outcome.STARTS_INSIDE_WORD
        if end not in ends:
            return Outcome.ENDS_INSIDE_WORD
        if ends[end] - starts[start] >= max_width:
            return Outcome.TOO_WIDE
        if not any(first <= starts[start] and ends[end] < last for first, last in windows):
            return Outcome.OUTSIDE_WINDOWS
        return Outcome.TARGET

    outcomes = [[classify(*span) for span in mention.spans] for mention in example.mentions]
    targets: dict[str, set[tuple[int, int]]] = {}
    for mention, results in zip(example.mentions, outcomes, strict=True):
        reached = (span for span, result in zip(mention.spans, results, strict=True) if result is Outcome.TARGET)
        targets.setdefault(mention.label, set()).update(reached)
    for mention, results in zip(example.mentions, outcomes, strict=True):
        for index, span in enumerate(mention.spans):
            if results[index] is Outcome.TARGET and any(
                other != span and other[0] <= span[0] and span[1] <= other[1] for other in targets[mention.label]
            ):
                results[index] = Outcome.NESTED
    return outcomes


def measure_reach(rows: Dataset, splitters: Iterable[str], widths: Sequence[int]) -> dict[str, dict[int, float]]:
    """The share of the mentions present in their text that are runs of whole words, by splitter and greatest width.

    Args:
        rows: Of :func:`glinerko.data.load_rows`.
        splitters: Names, as :func:`glinerko.words.load_word_splitter` takes them.
    """
    examples = [Example.from_row(row) for row in rows]
    present = sum(bool(mention.spans) for example in examples for mention in example.mentions)
    reach = {}
    for name in splitters:
        split = split_batch(load_word_splitter(name), [example.text for example in examples])
        reached = dict.fromkeys(widths, 0)
        for example, words in zip(examples, split, strict=True):
            for width in widths:
                outcomes = classify_spans(example, words, [(0, len(words))], width)
                reached[width] += sum(Outcome.TARGET in found or Outcome.NESTED in found for found in outcomes)
        reach[name] = {width: count / present if present else 1.0 for width, count in reached.items()}
    return reach


def annotate(
    rows: Dataset,
    processor: KoreanSchemaTransformer,
    schema: LabelSchema,
    *,
    max_width: int,
    max_length: int = 512,
    window_overlap: int = 64,
) -> Dataset:
    """Add to each row its words, its windows and the outcome of each of its spans, split once and cached.

    Args:
        max_length: Pieces in a window, the prompt's included.
        window_overlap: Pieces that a window may share with the one before it.

    Raises:
        DataError: the prompt leaves too little room for text.
    """
    prompt = processor.prompt_length(schema)
    room = max_length - prompt - 1  # gliner2 ends a text with a full stop
    if room <= window_overlap:
        raise DataError(
            f"the prompt alone takes {prompt} of {max_length} pieces, which leaves {room} for text and overlap: "
            f"raise --max_length, lower --window_overlap ({window_overlap}) or shorten the label descriptions"
        )

    def annotate_batch(batch: Mapping[str, list]) -> dict[str, list]:
        texts = [processor.normalize_text(text) for text in batch["text"]]
        columns: dict[str, list] = {name: [] for name in _ANNOTATIONS}
        for index, words in enumerate(split_batch(processor.word_splitter.splitter, texts)):
            pieces = [len(pieces) for pieces in processor.word_pieces(texts[index], words)]
            windows = cut_windows(words, pieces, room, window_overlap)
            example = Example.from_row({name: values[index] for name, values in batch.items()})
            outcomes = classify_spans(example, words, windows, max_width)
            columns["words"].append(as_offsets(words))
            columns["windows"].append(as_offsets(windows))
            columns["outcomes"].append([[outcome.value for outcome in results] for results in outcomes])
        return columns

    splitter = processor.word_splitter
    version = getattr(splitter.splitter, "version", "")
    words = splitter.splitter, version, splitter.lower_case, splitter.continuation is not None
    tokenizer = processor.tokenizer.backend_tokenizer.to_str()
    fingerprint = Hasher.hash(
        (rows._fingerprint, __version__, words, tokenizer, schema, max_width, max_length, window_overlap)
    )
    return rows.map(
        annotate_batch,
        batched=True,
        batch_size=256,
        features=Features({**rows.features, **_ANNOTATIONS}),
        new_fingerprint=fingerprint,
        desc="Splitting words",
    )


def row_windows(row: Mapping[str, Any], labels: Sequence[str]) -> Iterator[tuple[int, Window]]:
    """The windows of an annotated row, with the targets of ``labels`` that each holds whole, and where each begins."""
    text = KoreanSchemaTransformer.normalize_text(row["text"])
    words = [(word["start"], word["end"]) for word in row["words"]]
    outcomes = span_outcomes(row).items()
    targets = {key for key, outcome in outcomes if outcome == Outcome.TARGET.value and key[2] in labels}
    for window in row["windows"]:
        first, last = window["start"], window["end"]
        begin = 0 if first == 0 else words[first][0]
        stop = len(text) if last == len(words) else words[last - 1][1]
        inside = sorted(Span(s - begin, e - begin, label) for s, e, label in targets if begin <= s and e <= stop)
        shifted = [(start - begin, end - begin) for start, end in words[first:last]]
        yield begin, Window(text[begin:stop], shifted, tuple(labels), inside)


def span_outcomes(row: Mapping[str, Any]) -> dict[tuple[int, int, str], str]:
    """What became of each gold span ``(start, end, label)`` of an annotated row."""
    return {
        (start, end, mention.label): outcome
        for mention, outcomes in zip(Example.from_row(row).mentions, row["outcomes"], strict=True)
        for (start, end), outcome in zip(mention.spans, outcomes, strict=True)
    }


def perfect_spans(example: Example, outcomes: Sequence[Sequence[str]]) -> list[Span]:
    """What a perfect model finds of ``example``: the spans that are targets, with score 1.

    Args:
        outcomes: Of each span of each mention, as :func:`classify_spans` gives them.
    """
    return [
        Span(*span, mention.label, 1.0)
        for mention, results in zip(example.mentions, outcomes, strict=True)
        for span, outcome in zip(mention.spans, results, strict=True)
        if outcome == Outcome.TARGET
    ]


def training_windows(annotated: Dataset, schema: LabelSchema) -> Dataset:
    """One row a window: ``text``, ``words``, ``labels``, ``targets`` and the ``id`` of the document it is from."""

    def explode(batch: Mapping[str, list]) -> dict[str, list]:
        columns: dict[str, list] = {"id": [], "text": [], "words": [], "labels": [], "targets": []}
        for index in range(len(batch["id"])):
            row = {name: values[index] for name, values in batch.items()}
            for _, window in row_windows(row, [label for label in schema.labels if label in row["labels"]]):
                columns["id"].append(row["id"])
                columns["text"].append(window.text)
                columns["words"].append(as_offsets(window.words))
                columns["labels"].append(list(window.labels))
                columns["targets"].append(
                    [{"start": span.start, "end": span.end, "label": span.label} for span in window.targets]
                )
        return columns

    targets = List({"start": Value("int32"), "end": Value("int32"), "label": Value("string")})
    strings = {"id": Value("string"), "text": Value("string"), "labels": List(Value("string"))}
    return annotated.map(
        explode,
        batched=True,
        batch_size=256,
        remove_columns=annotated.column_names,
        features=Features({**strings, "words": _OFFSETS, "targets": targets}),
        new_fingerprint=Hasher.hash([annotated._fingerprint, "windows", schema]),
        desc="Cutting windows",
    )


def window_from_row(row: Mapping[str, Any]) -> Window:
    """The :class:`Window` that a row of :func:`training_windows` holds."""
    return Window(
        row["text"],
        [(word["start"], word["end"]) for word in row["words"]],
        tuple(row["labels"]),
        [Span(target["start"], target["end"], target["label"]) for target in row["targets"]],
    )


@dataclass
class DataReport:
    """What a corpus holds, and what of it can be learned with this splitter, width and window."""

    source: str
    documents: int = 0
    bad_rows_skipped: int = 0
    windows: int = 0
    words: int = 0
    labels: list[str] = field(default_factory=list)
    documents_with_all_labels: int = 0
    mentions: int = 0
    mentions_by_outcome: dict[str, int] = field(default_factory=dict)
    mentions_by_label: dict[str, dict[str, int]] = field(default_factory=dict)
    spans: int = 0
    spans_by_outcome: dict[str, int] = field(default_factory=dict)
    texts_shared_with_training: int = 0

    @property
    def reach(self) -> float:
        """Share of the mentions present in their text that can be learned, and so found, at least once."""
        present = self.mentions - self.mentions_by_outcome.get(Outcome.ABSENT.value, 0)
        learnable = sum(self.mentions_by_outcome.get(o.value, 0) for o in (Outcome.TARGET, Outcome.NESTED))
        return learnable / present if present else 1.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reach": self.reach}


def report_data(annotated: Dataset, schema: LabelSchema, source: str, listing: Path | None = None) -> DataReport:
    """Account for every mention of ``annotated``; list those that are no target in ``listing`` (JSON lines).

    A mention counts by its best occurrence: it is a target if any of its occurrences is.
    """
    report = DataReport(source, documents=len(annotated), labels=list(schema.labels))
    mentions, spans = Counter(), Counter()
    by_label = {label: Counter() for label in schema.labels}
    unreached = []
    for row in annotated:
        report.windows += len(row["windows"])
        report.words += len(row["words"])
        report.documents_with_all_labels += set(schema.labels) <= set(row["labels"])
        for mention, outcomes in zip(Example.from_row(row).mentions, row["outcomes"], strict=True):
            best = max(outcomes, key=_ORDER.__getitem__, default=Outcome.ABSENT.value)
            mentions[best] += 1
            spans.update(outcomes)
            by_label[mention.label][best] += 1
            if best != Outcome.TARGET.value:
                where = {"id": row["id"], "label": mention.label, "mention": mention.text, "cause": best}
                unreached.append({**where, "spans": [list(span) for span in mention.spans]})
    report.mentions, report.mentions_by_outcome = mentions.total(), dict(mentions)
    report.mentions_by_label = {label: dict(counts) for label, counts in by_label.items()}
    report.spans, report.spans_by_outcome = spans.total(), dict(spans)
    if listing is not None:
        write_json_lines(listing, unreached)
    return report
