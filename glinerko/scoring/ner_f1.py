"""The metrics of this package for the evaluate library; no network is needed.

``evaluate.load("glinerko/scoring/ner_f1.py")`` loads it. It works in one process: gather the predictions first
(``accelerator.gather_for_metrics``), then compute on the main process.
"""

import datasets
import evaluate

from glinerko.corpus.matching import compose, without_spaces
from glinerko.corpus.rows import Example, Mention, Span
from glinerko.corpus.schema import check_labels
from glinerko.scoring.metrics import METRICS, score_all, score_modes

_DESCRIPTION = (
    f"{', '.join(metric.title for metric in METRICS.values())} of extracted entities, with bootstrap intervals, and "
    "the SemEval-2013 modes."
)

_INPUTS = """
Args:
    predictions: for each document a list of {"start", "end", "label", "text"}; offsets in characters, end exclusive.
        More keys, such as the "score" of scripts/predict.py, are not used.
    references: the same for the gold spans. A gold mention that is not in the text has start and end -1.
    labels: the labels to score; all that occur by default.
Returns:
    {name of a metric: {"overall": ..., "macro_f1": ..., "labels": ...}, ..., "modes": ...}
Examples:
    >>> ner_f1 = evaluate.load("glinerko/scoring/ner_f1.py")
    >>> gold = [[{"start": 0, "end": 3, "label": "Disease", "text": "당뇨병"}]]
    >>> ner_f1.compute(predictions=gold, references=gold)["string_f1"]["overall"]["f1"]
    1.0
"""


_SPAN = {
    "start": datasets.Value("int64"),
    "end": datasets.Value("int64"),
    "label": datasets.Value("string"),
    "text": datasets.Value("string"),
}


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class NerF1(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.List(_SPAN), "references": datasets.List(_SPAN)}),
        )

    def add(self, *, prediction, reference):
        """Add the spans of one document."""
        super().add(prediction=_only_spans(prediction), reference=_only_spans(reference))

    def add_batch(self, *, predictions, references):
        """Add the spans of some documents; ``compute`` does it too."""
        super().add_batch(predictions=[*map(_only_spans, predictions)], references=[*map(_only_spans, references)])

    def _compute(self, predictions, references, labels=None):
        named = {span["label"] for spans in (*predictions, *references) for span in spans}
        labels = check_labels(labels or sorted(named))
        examples = [
            Example("", _join(gold, spans), labels, tuple(map(_mention, gold)))
            for gold, spans in zip(references, predictions, strict=True)
        ]
        predicted = [
            [Span(s["start"], s["end"], s["label"], 1.0) for s in spans if s["label"] in labels]
            for spans in predictions
        ]
        scores = {name: each.to_dict() for name, each in score_all(examples, predicted, labels).items()}
        return {**scores, "modes": score_modes(examples, predicted, labels)}


def _only_spans(spans):
    """``spans`` without the keys that are not scored.

    Raises:
        ValueError: A key is missing.
    """
    lacking = {key for span in spans for key in _SPAN.keys() - set(span)}
    if lacking:
        raise ValueError(f"a span has no {' and no '.join(sorted(lacking))}: it needs {', '.join(_SPAN)}")
    return [{**{key: span[key] for key in _SPAN}, "label": compose(span["label"])[0]} for span in spans]


def _join(gold, predicted):
    """A text with the given strings at their offsets and blanks between them, for metrics that read the text."""
    characters = [" "] * max((span["end"] for span in (*gold, *predicted)), default=0)
    for span in (*gold, *predicted):
        text, length = span["text"], span["end"] - span["start"]
        if len(text) != length:  # a gold string that differs from the text in white space or Unicode form
            text = without_spaces(text).ljust(length)[:length]
        characters[span["start"] : span["end"]] = text
    text = "".join(characters)
    for span in predicted:
        if text[span["start"] : span["end"]] != span["text"]:
            raise ValueError(f"the text of a predicted {span['label']} does not fit its offsets or overlapping spans")
    return text


def _mention(span):
    return Mention(span["label"], span["text"], ((span["start"], span["end"]),) if span["start"] >= 0 else ())
