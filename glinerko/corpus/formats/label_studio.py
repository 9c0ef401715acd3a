"""Label Studio: tasks in JSON and JSON-MIN in, tasks with annotations or predictions out.

Its CONLL export is not read: it loses the white space and the overlaps that the JSON export has.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from glinerko.corpus.formats.documents import (
    Annotation,
    Document,
    FormatOptions,
    LeftOut,
    objects,
    one_answer,
    own_id,
    pick_text,
)
from glinerko.corpus.formats.sources import Record, Source, json_records
from glinerko.corpus.formats.writing import Writer

_ABOUT = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")
"""Keys of JSON-MIN that Label Studio adds to those of the task."""


def is_label_studio(raw: Any) -> bool:
    """Whether a record is a task, in JSON or JSON-MIN."""
    return isinstance(raw, Mapping) and (
        ("data" in raw and bool({"annotations", "completions", "predictions"} & raw.keys()))
        or {"annotation_id", "annotator"} <= raw.keys()
    )


def read_tasks(source: Source, options: FormatOptions) -> Iterator[Record]:
    """The tasks. JSON-MIN has one record for each annotation: the records of a task are given together, at the end."""
    groups: dict[Any, list[Mapping]] = {}
    for place, raw in json_records(source):
        if isinstance(raw, Mapping) and "data" not in raw and "annotation_id" in raw:
            groups.setdefault(json.dumps(raw.get("id", place)), []).append(raw)
        else:
            yield place, raw
    for key, group in groups.items():
        yield f"task {key}", group


def parse_task(raw: Any, options: FormatOptions, source: Source) -> Document:
    """A task with its ground truth, or with what all its annotators agree on.

    Raises:
        LeftOut: Nobody annotated it.
        ValueError: Annotators differ, or it is no task of a ``Labels`` and a ``Text`` tag.
    """
    if isinstance(raw, list):
        return _parse_min(raw, options)
    if not isinstance(raw, Mapping) or not isinstance(raw.get("data"), Mapping):
        raise ValueError("expected a task with 'data' and 'annotations': export as JSON or JSON-MIN")
    data, annotations = raw["data"], raw.get("annotations", raw.get("completions"))
    kept = [each for each in objects(annotations, "annotations") if not each.get("was_cancelled")]
    kept = [each for each in kept if each.get("ground_truth")] or kept
    if not kept:
        raise LeftOut("task that is not annotated, or was skipped")
    remarks: Counter[str] = Counter()
    answers = [_parse_results(each.get("result"), remarks) for each in kept]
    text = pick_text(data, options.text_column)
    return Document(text, one_answer(answers), own_id(data) or own_id(raw), remarks=remarks)


def _parse_results(results: Any, remarks: Counter[str]) -> list[Annotation]:
    annotations = []
    for each in objects(results, "result"):
        kind, value = each.get("type"), each.get("value")
        if kind in ("hypertextlabels", "paragraphlabels"):
            raise ValueError(f"{kind}: their offsets are not offsets into a text: annotate with a Text tag")
        if kind != "labels" or not isinstance(value, Mapping):
            remarks[f"result that is no label of a text ({kind})"] += 1
            continue
        annotations += _parse_value(value)
    return annotations


def _parse_value(value: Mapping) -> list[Annotation]:
    if "globalOffsets" in value:
        raise ValueError("annotated as HyperText: offsets into HTML are no offsets into a text: use a Text tag")
    labels = value.get("labels")
    if not isinstance(labels, list) or not labels:
        raise ValueError("a mention has no 'labels': label it in the tool, or delete it")
    return [Annotation(label, value.get("start"), value.get("end"), value.get("text")) for label in labels]


def _parse_min(group: Sequence[Mapping], options: FormatOptions) -> Document:
    fields = {key: value for key, value in group[0].items() if key not in _ABOUT}
    answers = []
    for record in group:
        values = [v for v in record.values() if isinstance(v, list) and all(isinstance(each, Mapping) for each in v)]
        answers.append([a for v in values for each in v if "labels" in each for a in _parse_value(each)])
    return Document(pick_text(fields, options.text_column), one_answer(answers), own_id(group[0]))


class TaskWriter(Writer):
    """Tasks to import: gold as annotations, and predicted mentions as predictions with their scores.

    The ids are kept in the data of the tasks. The labelling interface is written to a file of its own. The score of a
    prediction is that of its row, or the mean of the scores of its mentions.
    """

    suffixes = (".config.xml",)

    def start(self) -> None:
        self.file.write("[")

    def add(self, row: Mapping[str, Any], predicted: bool) -> Counter[str]:
        results, scores = [], []
        for number, (label, mention) in enumerate(self.mentions(row)):
            score = {"score": mention["score"]} if "score" in mention else {}
            scores += score.values()
            value = {key: mention[key] for key in ("start", "end", "text")} | {"labels": [label]}
            about = {"id": f"m{number}", "from_name": "label", "to_name": "text", "type": "labels"}
            results.append({**about, "value": value, **score})
        answer: dict[str, Any] = {"result": results}
        if predicted:
            score = row.get("score", sum(scores) / max(len(scores), 1))
            answer |= {"model_version": "glinerko", "score": score}
        task = {"data": {"id": row["id"], "text": row["text"]}, "predictions" if predicted else "annotations": [answer]}
        self.file.write(f"{',' if self.written else ''}\n{json.dumps(task, ensure_ascii=False)}")
        return self.without_offsets(row)

    def finish(self) -> None:
        self.file.write("\n]\n")
        labels = "\n".join(f"    <Label value={quoteattr(label)}/>" for label in self.labels)
        self.beside[self.suffixes[0]] = (
            f'<View>\n  <Labels name="label" toName="text">\n{labels}\n  </Labels>\n'
            '  <Text name="text" value="$text"/>\n</View>\n'
        )
