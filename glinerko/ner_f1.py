"""glinerko's scores as a metric of the evaluate library: ``evaluate.load("glinerko/ner_f1.py")``, without a network.

Works on one process: gather the predictions first (``accelerator.gather_for_metrics``) and compute on the main one.
"""

import datasets
import evaluate

from glinerko.data import Example, Mention, Span
from glinerko.metrics import score_modes, score_sets, score_spans

_DESCRIPTION = (
    "String-set F1 and strict span F1 of extracted entities, with bootstrap intervals, and the SemEval-2013 modes."
)

_INPUTS = """
Args:
    predictions: of each document, a list of {"start", "end", "label", "text"}; offsets in characters, end exclusive.
    references: the same of the gold spans. A gold mention that is not in the text has start and end -1.
    labels: the labels to score; all that occur by default.
Returns:
    {"string_f1": ..., "span_f1": ..., "modes": ...}, each with precision, recall and F1.
Examples:
    >>> ner_f1 = evaluate.load("glinerko/ner_f1.py")
    >>> gold = [[{"start": 0, "end": 3, "label": "Disease", "text": "당뇨병"}]]
    >>> ner_f1.compute(predictions=gold, references=gold)["string_f1"]["overall"]["f1"]
    1.0
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class NerF1(evaluate.Metric):
    def _info(self):
        span = {
            "start": datasets.Value("int64"),
            "end": datasets.Value("int64"),
            "label": datasets.Value("string"),
            "text": datasets.Value("string"),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.List(span), "references": datasets.List(span)}),
        )

    def _compute(self, predictions, references, labels=None):
        labels = labels or sorted({span["label"] for spans in (*predictions, *references) for span in spans})
        found = [
            [Span(s["start"], s["end"], s["label"], 1.0) for s in spans if s["label"] in labels]
            for spans in predictions
        ]
        examples = [Example("", "", tuple(labels), tuple(map(_mention, gold))) for gold in references]
        strings = [
            [{(span["text"], span["label"]) for span in spans if span["label"] in labels} for spans in documents]
            for documents in (references, predictions)
        ]
        return {
            "string_f1": score_sets(*strings, labels).to_dict(),
            "span_f1": score_spans(examples, found, labels).to_dict(),
            "modes": score_modes(examples, found, labels),
        }


def _mention(span):
    return Mention(span["label"], span["text"], ((span["start"], span["end"]),) if span["start"] >= 0 else ())
