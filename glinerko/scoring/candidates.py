"""Reading the candidates that ``scripts/eval.py`` writes, as out-of-fold predictions for a whole corpus."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from glinerko.common import DataError, parse_json_lines, read_json_lines
from glinerko.corpus.rows import Example, Span


def find_candidates(directory: str, name: str, examples: Sequence[Example]) -> list[str]:
    """The files of all folds of a cross-validation, for the variant ``name``.

    Raises:
        DataError: There is none, or a text that was held out is not that of ``examples``.
    """
    files = sorted(Path(directory).glob(f"fold-*/{name}/dev/candidates.jsonl"))
    if not files:
        raise DataError(f"{directory}: no fold-*/{name}/dev/candidates.jsonl; run scripts/cross_validate.py first")
    documents = _by_id_and_text(examples)
    for file in files:
        for identifier, text in _held_out(file):
            if text not in documents.get(identifier, {text}):
                raise DataError(f"{file.parents[2]}: the document {identifier!r} has another text than in the corpus")
    return list(map(str, files))


def read_candidates(files: Sequence[str], examples: Sequence[Example], labels: Collection[str]) -> list[list[Span]]:
    """The candidates of each document, in the order of ``examples``.

    A line names a document by its id. If several texts have this id, the documents that the fold held out tell which
    one is meant. Documents with the same id and the same text take the lines in their order.

    Args:
        labels: The labels of the corpus.

    Raises:
        DataError: With file and line: a document is missing, unknown or covered twice, or a line has another form.
    """
    documents = _by_id_and_text(examples)
    found: list[list[Span] | None] = [None] * len(examples)
    for file in files:
        held_out = _held_out(Path(file))
        for number, (place, raw) in enumerate(parse_json_lines(file)):
            try:
                identifier, spans = raw["id"], [Span(*span) for span in raw["spans"]]
                text = _text_of(identifier, documents, held_out[number : number + 1])
                _check_spans(identifier, spans, text, labels)
                if not documents[identifier][text]:
                    raise ValueError(f"the document {identifier!r} is covered twice")
                found[documents[identifier][text].pop(0)] = spans
            except (TypeError, KeyError) as error:
                raise DataError(f'{place}: expected {{"id", "spans": [[start, end, label, score]]}}') from error
            except ValueError as error:
                raise DataError(f"{place}: {error}") from error
    missing = [example.id for example, spans in zip(examples, found, strict=True) if spans is None]
    if missing:
        more = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise DataError(f"no candidates for the document {missing[0]!r}{more}: pass the files of all folds")
    return [spans for spans in found if spans is not None]


def _by_id_and_text(examples: Sequence[Example]) -> dict[str, dict[str, list[int]]]:
    """The indices of the documents with each id and text."""
    documents: dict[str, dict[str, list[int]]] = {}
    for index, example in enumerate(examples):
        documents.setdefault(example.id, {}).setdefault(example.text, []).append(index)
    return documents


def _held_out(file: Path) -> list[tuple[str, str]]:
    """Id and text of the document of each line of a file of candidates, if a cross-validation wrote it."""
    if not file.match("fold-*/*/dev/candidates.jsonl"):
        return []
    return [(row["id"], row["text"]) for row in read_json_lines(file.parents[2] / "dev.jsonl")]


def _text_of(identifier: str, documents: Mapping[str, Collection[str]], held_out: Sequence[tuple[str, str]]) -> str:
    """The text that a line of candidates is about.

    Args:
        documents: The texts of each id.
        held_out: What :func:`_held_out` says of this line, if anything.

    Raises:
        ValueError: The corpus has no document with this id, or it has several and nothing tells which is meant.
    """
    own = {*documents.get(identifier, ())}
    if not own:
        raise ValueError(f"the corpus has no document {identifier!r}")
    if len(own) > 1:
        own &= {text for name, text in held_out if name == identifier}
    if len(own) != 1:
        raise ValueError(
            f"the id {identifier!r} stands for several texts: pass --cross_validation DIRECTORY, whose folds have the "
            "texts, or give each document its own id"
        )
    return next(iter(own))


def _check_spans(identifier: str, spans: Sequence[Span], text: str, labels: Collection[str]) -> None:
    """Raise a ``TypeError`` if a span has another form, and a ``ValueError`` if it does not fit the document."""
    for span in spans:
        if type(span.start) is not int or type(span.end) is not int or type(span.score) not in (int, float):
            raise TypeError
        if not 0 <= span.start < span.end <= len(text) or not 0 <= span.score <= 1:
            raise ValueError(f"a span does not fit the text of the document {identifier!r}: of another corpus?")
        if span.label not in labels:
            raise ValueError(f"the corpus has no label {span.label!r}")
