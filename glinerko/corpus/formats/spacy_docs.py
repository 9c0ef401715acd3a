"""spaCy's ``.spacy`` files: documents in a ``DocBin``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from glinerko.common import DataError, first_line
from glinerko.corpus.formats.documents import Annotation, Document, FormatOptions
from glinerko.corpus.formats.sources import Record, Source
from glinerko.corpus.formats.writing import CUT, Writer
from glinerko.corpus.words import load_word_splitter


def _require_spacy(what: str) -> None:
    try:
        import spacy  # noqa: F401
    except ImportError as error:
        raise DataError(f"{what}: .spacy files need `pip install spacy`") from error


def read_docs(source: Source, options: FormatOptions) -> Iterator[Record]:
    _require_spacy(str(source.path))
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    try:
        docs = DocBin(store_user_data=True).from_disk(source.path).get_docs(Vocab())
        for number, doc in enumerate(docs, 1):
            yield f"document {number}", doc
    except Exception as error:  # of zlib, msgpack and NumPy
        raise DataError(f"{source.path}: no .spacy file of a DocBin ({first_line(error)})") from error


def parse_doc(doc: Any, options: FormatOptions, source: Source) -> Document:
    """A document of spaCy: ``doc.ents``, and the spans of ``--spans_key``.

    Raises:
        ValueError: It has spans, but none of this key.
    """
    if options.spans_key is not None and options.spans_key not in doc.spans and doc.spans:
        raise ValueError(f"no spans {options.spans_key!r}; there are {', '.join(map(repr, doc.spans))}: --spans_key")
    spans = [*doc.ents, *(doc.spans.get(options.spans_key, ()) if options.spans_key is not None else ())]
    found = dict.fromkeys((span.label_, span.start_char, span.end_char) for span in spans)
    identifier = doc.user_data.get("id")
    return Document(doc.text, [Annotation(*key) for key in found], None if identifier is None else str(identifier))


class DocWriter(Writer):
    """A ``DocBin``. Its tokens are the words of a word splitter, and white space that is more than one blank.

    The mentions are ``doc.ents``, which cannot overlap, or the spans of ``--spans_key``, which can overlap and have
    scores.
    """

    def start(self) -> None:
        _require_spacy("--to spacy")
        from spacy.tokens import DocBin
        from spacy.vocab import Vocab

        self.splitter, self.docs = load_word_splitter(self.options.word_splitter), DocBin(store_user_data=True)
        self.vocab = Vocab()

    def add(self, row: Mapping[str, Any], predicted: bool) -> Counter[str]:
        from spacy.tokens import Doc, SpanGroup
        from spacy.util import get_words_and_spaces

        text, key = row["text"], self.options.spans_key
        words, spaces = get_words_and_spaces([text[s:e] for s, e in self.splitter.split(text)], text)
        doc = Doc(self.vocab, words=words, spaces=spaces)
        if doc.text != text:
            raise ValueError("the words leave out a part of the text: choose another --word_splitter")
        tokens = [(token.idx, token.idx + len(token)) for token in doc]
        if key is None:
            runs, lost = self.flat(row, tokens)
            doc.ents = [doc.char_span(tokens[s][0], tokens[e - 1][1], label=label) for s, e, label in runs]
        else:
            lost = self.without_offsets(row)
            marked = [(doc.char_span(m["start"], m["end"], label=label), m) for label, m in self.mentions(row)]
            lost[CUT] += sum(span is None for span, _ in marked)
            kept = [(span, m.get("score")) for span, m in marked if span is not None]
            scores = {"scores": [score for _, score in kept]} if predicted else {}
            doc.spans[key] = SpanGroup(doc, spans=[span for span, _ in kept], attrs=scores)
        doc.user_data["id"] = row["id"]
        self.docs.add(doc)
        return +lost

    def finish(self) -> None:
        self.file.buffer.write(self.docs.to_bytes())
