"""The spaCy component: the spans of the model, whatever the tokens of the pipeline are."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import SAMPLE
from hypothesis import given, settings
from hypothesis import strategies as st

from glinerko.common import DataError
from glinerko.corpus.reading import load_rows

spacy = pytest.importorskip("spacy", reason="spaCy is not installed")
from glinerko.sharing.spacy_component import WordTokenizer, make_tokenizer  # noqa: E402

OUR_TOKENS = {"nlp": {"tokenizer": {"@tokenizers": "glinerko.Words.v1"}}}
SPACY_TOKENS = {"nlp": {"tokenizer": {"@tokenizers": "spacy.Tokenizer.v1"}}}


@pytest.fixture(scope="session")
def texts():
    texts = load_rows(str(SAMPLE / "test.jsonl"))[0]["text"][:12]
    return [*texts, "", "  \n ", " ".join(texts * 5)]


@pytest.fixture
def saved(model, tmp_path):
    import torch

    with torch.no_grad():
        model.count_pred[-1].bias[1] += 100.0
        for parameter in model.span_rep.parameters():
            parameter.mul_(3.0)
    model.configure(threshold=0.9)
    model.save_pretrained(tmp_path)
    return tmp_path


def pipeline(saved, tokens=OUR_TOKENS, **config):
    nlp = spacy.blank("ko", config=tokens)
    nlp.add_pipe("glinerko", config={"model": str(saved), **config})
    return nlp


def test_the_spans_of_a_document_are_those_of_the_model(saved, texts):
    nlp = pipeline(saved)
    expected = list(nlp.get_pipe("glinerko").extractor.stream_entities(texts))
    for text, spans, doc in zip(texts, expected, nlp.pipe(texts, batch_size=5), strict=True):
        assert doc.text == text
        group = doc.spans["sc"]
        assert [(s.start_char, s.end_char, s.label_) for s in group] == [span.key for span in spans]
        assert group.attrs["scores"] == pytest.approx([span.score for span in spans], abs=1e-5)
        best = {(span.start, span.end, span.label): span.score for span in spans}
        ents = [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
        assert set(ents) <= set(best)
        for start, end, label in set(best) - set(ents):  # a better one overlaps it
            assert any(s < end and start < e and best[s, e, x] >= best[start, end, label] for s, e, x in ents)
    assert sum(map(len, expected)) > 20
    assert any(len(doc.ents) < len(doc.spans["sc"]) for doc in nlp.pipe(texts))


def test_other_tokens_lose_no_entity(saved, texts):
    nlp = pipeline(saved, SPACY_TOKENS, spans_key="entities", labels=["Drug"], threshold=0.5)
    expected = list(nlp.get_pipe("glinerko").extractor.stream_entities(texts, ["Drug"], threshold=0.5))
    for spans, doc in zip(expected, map(nlp, texts), strict=True):
        group = doc.spans["entities"]
        assert [tuple(offsets) for offsets in group.attrs["offsets"]] == [(span.start, span.end) for span in spans]
        assert all(
            s.start_char <= begin and end <= s.end_char
            for s, (begin, end) in zip(group, group.attrs["offsets"], strict=True)
        )
    assert sum(map(len, expected)) > 20


def test_bad_options_fail_when_the_component_is_added(saved):
    for option, message in (({"threshold": 50.0}, "between 0 and 1"), ({"labels": ["Drug", "Drug"]}, "given twice")):
        with pytest.raises(DataError, match=message):
            pipeline(saved, **option)


def test_entities_of_an_earlier_component_stay(saved, texts):
    nlp = pipeline(saved)
    ruler = nlp.add_pipe("entity_ruler", first=True)
    word = nlp.make_doc(texts[0])[0].text
    ruler.add_patterns([{"label": "FIRST", "pattern": word}])
    assert nlp.pipe_labels["glinerko"] == ["Disease", "Drug", "Procedure", "Biomarker"]
    assert "FIRST" in [ent.label_ for ent in nlp(texts[0]).ents]


def test_a_pipeline_is_saved_and_runs_in_several_processes(saved, texts, tmp_path_factory):
    nlp = pipeline(saved)
    directory = tmp_path_factory.mktemp("pipeline")
    nlp.to_disk(directory)
    again = spacy.load(directory)
    for doc, other in zip(nlp.pipe(texts), again.pipe(texts, n_process=2, batch_size=4), strict=True):
        assert [(s.start_char, s.label_) for s in doc.spans["sc"]] == [
            (s.start_char, s.label_) for s in other.spans["sc"]
        ]


@given(st.text(st.sampled_from("당뇨병으로 인슐린 MRI 5mg\n\t .,") | st.characters(codec="utf-8")))
@settings(max_examples=100, deadline=None)
def test_tokens_keep_every_character(text):
    tokenizer = make_tokenizer()(spacy.blank("xx"))
    assert isinstance(tokenizer, WordTokenizer)
    assert tokenizer(text).text == text


def test_spacy_finds_the_component_and_the_tokenizer_without_an_import():
    code = "import spacy; spacy.registry.tokenizers.get('glinerko.Words.v1'); spacy.registry.factories.get('glinerko')"
    assert subprocess.run([sys.executable, "-c", code], cwd="/").returncode == 0
