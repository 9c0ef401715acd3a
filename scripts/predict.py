"""Extract entities, classes, relations and structures from Korean text: text in, one JSON object a document out.

    python scripts/predict.py --model user/model --text "당뇨병으로 메트포르민을 투여함"
    python scripts/predict.py --model outputs/medical/best --input_file notes.jsonl --output_file spans.jsonl
    tail -f notes.txt | python scripts/predict.py --model outputs/medical/best
    python scripts/predict.py --model outputs/medical/best --schema schema.yaml --input_file notes.jsonl

An input file is JSON lines with a "text" (and an "id"), or plain text with one document a line; standard input is read
if neither is given, and each document is answered when it comes. It is UTF-8. Documents are cut into the windows of
training. Labels, tasks, descriptions and thresholds are those saved with the model; a schema file asks for others, in
the form of gliner2's Schema.from_dict. Output: {"id", "text", "entities": [{"start", "end", "label", "text",
"score"}]}, offsets in characters, end exclusive; in UTF-8, unless it goes to a terminal. If other tasks are asked,
"tasks" has their answers in gliner2's form. Several models after --model find entities together: the score of a span
is the mean of theirs. An output file is only replaced when all is done; the same command goes on with a run that was
stopped.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from queue import Queue
from typing import Any, TextIO

from tqdm import tqdm

from glinerko.cli import choose_device, option, parse_arguments, run, set_log_levels
from glinerko.common import (
    ESCAPE,
    DataError,
    GlinerkoError,
    check_output,
    file_digest,
    read_yaml,
    resume_file,
    unfinished_files,
)
from glinerko.corpus.reading import read_texts
from glinerko.corpus.rows import Span
from glinerko.hub import fetch
from glinerko.model.attention import read_faster
from glinerko.model.ensemble import stream_average
from glinerko.model.extractor import KoreanExtractor, load_extractor, spans_of

Document = tuple[str, str]
"""Its id and its text."""
Reader = Callable[[Iterable[str]], Iterator[tuple[list[Span], dict[str, Any]]]]
"""Texts in, the entities and the other answers of each out."""
MODEL_FILES = (".json", ".safetensors", ".tsv")
"""The files whose content decides what is found."""
AT_ONCE = 1024
"""How many documents of a stream are read ahead at most."""


@dataclass
class Arguments:
    model: list[str] = option(help="model: Hub id or directory; of several, the mean scores")
    text: list[str] | None = option(None, "one document, or several")
    input_file: str | None = option(None, "JSON lines, or one document a line (default: standard input)")
    output_file: str | None = option(None, "JSON lines to write (default: standard output)")
    labels: list[str] | None = option(None, "entity labels to extract, nothing else (default: all that the model has)")
    schema: str | None = option(None, "YAML or JSON file with the entities and other tasks to ask for")
    threshold: float | None = option(None, "lowest score of a span (default: the model's own)", at_least=0, at_most=1)
    batch_size: int = option(16, "windows per batch", at_least=1)
    device: str | None = option(None, "device: cpu, cuda, mps ... (default: a GPU if there is one)")


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_log_levels(is_main_process=False)
    for one, other in (("text", "input_file"), ("labels", "schema")):
        if getattr(args, one) and getattr(args, other) is not None:
            raise GlinerkoError(f"pass --{one} or --{other}, not both")
    for name in ("input_file", "output_file"):
        if getattr(args, name) == "":
            raise GlinerkoError(f"--{name}: the name is empty")
    if args.output_file and not args.text:
        for file in (args.output_file, *unfinished_files(args.output_file)):
            check_output(file, 0 if args.input_file is None else args.input_file)
    documents, total = find_documents(args)
    directories = list(map(fetch, args.model))
    schema = (
        read_yaml(args.schema, "the entities and tasks of a schema, as gliner2 reads it", dict) if args.schema else None
    )
    if schema and len(directories) > 1:
        raise GlinerkoError("--schema: one model only; several find entities: pass --labels")
    device = choose_device(args.device)
    models = [load_extractor(directory, map_location=device) for directory in directories]
    for name, model in zip(args.model, models, strict=True):
        if model.label_schema is None and not args.labels and not schema:
            raise DataError(f"{name}: the model names no labels: pass --labels or --schema")
    read = choose_reader(args, models, schema)
    try:
        next(read([""]))  # fails now, and not at the first document
    except DataError as error:
        raise DataError(f"{args.schema}: {error}" if args.schema else str(error)) from error
    for model in models:
        read_faster(model)
    if not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8", errors=ESCAPE)
    bar = tqdm(total=total, desc="Predicting", unit="document", leave=False, disable=None)
    if not args.output_file:
        write_answers(args, read, documents, bar, sys.stdout, iter(()))
        return
    files = [
        {str(file.relative_to(model)): file_digest(file) for file in model.rglob("*.*") if file.suffix in MODEL_FILES}
        for model in directories
    ]
    identity = {"model": files, "labels": args.labels, "schema": schema, "threshold": args.threshold}
    with resume_file(args.output_file, identity) as (file, done):
        try:
            write_answers(args, read, documents, bar, file, done)
        except KeyboardInterrupt:
            bar.close()
            raise KeyboardInterrupt(f"{bar.n} documents are done; the same command goes on with the others") from None


def choose_reader(args: Arguments, models: Sequence[KoreanExtractor], schema: dict[str, Any] | None) -> Reader:
    """How texts are read: by the one model, or by the mean of several."""
    options = {"threshold": args.threshold, "batch_size": args.batch_size}
    (first, *others), asked = models, args.labels
    if others:
        return lambda texts: ((spans, {}) for spans in stream_average(models, texts, asked, **options))
    asked = first.entity_schema(asked) if asked else schema

    def read(texts: Iterable[str]) -> Iterator[tuple[list[Span], dict[str, Any]]]:
        for answer in first.stream(texts, asked, **options):
            yield spans_of(answer), {name: value for name, value in answer.items() if name != "entities"}

    return read


def find_documents(args: Arguments) -> tuple[Iterator[Iterable[Document]], int | None]:
    """The documents in groups, and their number if it can be known. All of a file is checked before the model runs."""
    if args.text:
        return iter([[(str(number), text) for number, text in enumerate(args.text, 1)]]), len(args.text)
    if args.input_file is not None and os.path.isfile(args.input_file):
        checked = tqdm(read_texts(args.input_file), desc="Checking", unit="document", leave=False, disable=None)
        return iter([read_texts(args.input_file)]), sum(1 for _ in checked)
    return as_they_come(read_texts(args.input_file)), None


def as_they_come(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """What there is to read at the moment, in lists: a document never waits for one that has not come yet."""
    queue: Queue[Any] = Queue(AT_ONCE)

    def read() -> None:
        try:
            for document in documents:
                queue.put([document])
            queue.put(StopIteration)
        except Exception as error:
            queue.put(error)

    threading.Thread(target=read, daemon=True).start()
    while True:
        group = [queue.get()]
        while isinstance(group[-1], list) and len(group) < AT_ONCE and not queue.empty():
            group.append(queue.get())
        end = None if isinstance(group[-1], list) else group.pop()
        yield list(chain.from_iterable(group))
        if end is StopIteration:
            return
        if end is not None:
            raise end


def write_answers(
    args: Arguments,
    read: Reader,
    groups: Iterable[Iterable[Document]],
    bar: tqdm,
    file: TextIO,
    done: Iterator[str],
) -> None:
    """Write a line for each document, after those that are done."""
    empty: list[str] = []
    for group in groups:
        waiting: deque[Document] = deque()
        for spans, tasks in read(texts_of(group, done, waiting, bar, file)):
            identifier, text = waiting.popleft()
            record = {"id": identifier, "text": text, "entities": [span.to_record(text) for span in spans]}
            file.write(json.dumps({**record, "tasks": tasks} if tasks else record, ensure_ascii=False) + "\n")
            advance(bar)
            empty += [] if text.strip() else [identifier]
    bar.close()
    if next(done, None) is not None:
        raise DataError(f"{file.name}: has more documents than the input: delete the file to start again")
    if empty:
        print(f"{len(empty)} documents are empty (the first is {empty[0]}), so they have no entities", file=sys.stderr)
    if args.output_file:
        print(f"{bar.n} documents to {args.output_file}", file=sys.stderr)


def texts_of(
    documents: Iterable[Document], done: Iterator[str], waiting: deque[Document], bar: tqdm, file: TextIO
) -> Iterator[str]:
    """The texts to read, while their documents are put in ``waiting``; those that are done are passed over.

    Raises:
        DataError: What is done is not of these documents.
    """
    for document in documents:
        line = next(done, None)
        if line is None:
            waiting.append(document)
            yield document[1]
            continue
        record = json.loads(line)
        if (record["id"], record["text"]) != document:
            where = f"{file.name}, line {bar.n + 1}"
            raise DataError(f"{where}: of another input than document {document[0]}: delete the file to start again")
        advance(bar)


def advance(bar: tqdm) -> None:
    """Count a document, also where no bar is shown."""
    bar.n += 1
    bar.update(0)


if __name__ == "__main__":
    run(main)
