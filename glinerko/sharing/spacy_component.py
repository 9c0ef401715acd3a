"""A model as a component of a spaCy pipeline, and a tokenizer whose tokens are the words of the model.

    nlp = spacy.blank("ko", config={"nlp": {"tokenizer": {"@tokenizers": "glinerko.Words.v1"}}})
    nlp.add_pipe("glinerko", config={"model": "user/model"})

spaCy finds both by their entry points: nothing has to be imported.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from spacy.language import Language
from spacy.tokens import Doc, SpanGroup
from spacy.util import DummyTokenizer, get_words_and_spaces, registry
from spacy.vocab import Vocab

from glinerko.corpus.rows import Span
from glinerko.corpus.words import WordSplitter, load_word_splitter
from glinerko.model.extractor import KoreanExtractor, load_extractor

SPANS_KEY = "sc"
"""The key of ``doc.spans`` that displaCy shows by default."""


@Language.factory("glinerko", assigns=["doc.ents", "doc.spans"])
def make_component(
    nlp: Language,
    name: str,
    model: str,
    labels: list[str] | None = None,
    threshold: float | None = None,
    spans_key: str = SPANS_KEY,
    alignment_mode: str = "expand",
    device: str | None = None,
) -> EntityMarker:
    """The component that ``nlp.add_pipe("glinerko", config={"model": ...})`` adds.

    Args:
        model: A directory or a Hub id.
        labels: The labels to extract, and ``threshold`` the lowest score; those of the model by default.
        spans_key: The key of ``doc.spans``.
        alignment_mode: What becomes of an entity that ends inside a token: see ``spacy.tokens.Doc.char_span``.

    Raises:
        GlinerkoError: The model cannot be loaded, or has no use for the labels or the threshold.
    """
    extractor = load_extractor(model, map_location=device)
    next(extractor.stream_entities([""], labels, threshold=threshold))  # fails now, and not at the first document
    return EntityMarker(extractor, labels, threshold, spans_key, alignment_mode)


@dataclass
class EntityMarker:
    """Marks the entities of each document in ``doc.spans``, and in ``doc.ents`` where no better one overlaps them.

    The scores and the exact offsets of the spans are in the attributes ``scores`` and ``offsets`` of the span group.
    """

    extractor: KoreanExtractor
    asked: list[str] | None
    threshold: float | None
    spans_key: str
    alignment_mode: str

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.asked or self.extractor.settings.labels)

    def __call__(self, doc: Doc) -> Doc:
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], batch_size: int = 16) -> Iterator[Doc]:
        """Mark the documents of a stream; ``batch_size`` is a number of windows."""
        waiting: deque[Doc] = deque()

        def texts() -> Iterator[str]:
            for doc in stream:
                waiting.append(doc)
                yield doc.text

        options = {"threshold": self.threshold, "batch_size": min(batch_size, 16)}
        for spans in self.extractor.stream_entities(texts(), self.asked, **options):
            yield self._mark(waiting.popleft(), spans)

    def _mark(self, doc: Doc, found: list[Span]) -> Doc:
        marked = [
            (doc.char_span(each.start, each.end, label=each.label, alignment_mode=self.alignment_mode), each)
            for each in found
        ]
        marked = [(span, each) for span, each in marked if span is not None]
        scores, offsets = [each.score for _, each in marked], [(each.start, each.end) for _, each in marked]
        attributes = {"scores": scores, "offsets": offsets}
        doc.spans[self.spans_key] = SpanGroup(doc, spans=[span for span, _ in marked], attrs=attributes)
        entities = list(doc.ents)  # those of an earlier component stay
        taken = {token.i for entity in entities for token in entity}
        for span, _ in sorted(marked, key=lambda pair: -pair[1].score):
            if taken.isdisjoint(range(span.start, span.end)):
                entities.append(span)
                taken.update(range(span.start, span.end))
        doc.ents = entities
        return doc


class WordTokenizer(DummyTokenizer):
    """The words of a splitter as tokens; white space that is more than a blank is a token, as in spaCy."""

    def __init__(self, vocab: Vocab, splitter: WordSplitter):
        self.vocab, self.splitter = vocab, splitter

    def __call__(self, text: str) -> Doc:
        words, spaces = get_words_and_spaces([text[start:end] for start, end in self.splitter.split(text)], text)
        return Doc(self.vocab, words=words, spaces=spaces)


@registry.tokenizers("glinerko.Words.v1")
def make_tokenizer(
    word_splitter: str = "korean", user_dictionary: str | None = None
) -> Callable[[Language], WordTokenizer]:
    """The tokenizer of the config of a pipeline."""
    return lambda nlp: WordTokenizer(nlp.vocab, load_word_splitter(word_splitter, user_dictionary=user_dictionary))
