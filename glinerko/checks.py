"""The checks of an encoder swap: each one cause of F1 = 0, or of hours lost, with a name.

Every check is a function that returns a :class:`Check`; :func:`verify_swap` runs them in order and needs no GPU.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch
from datasets import Dataset
from gliner2.processor import PreprocessedBatch
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from glinerko.data import LabelSchema, label_schema
from glinerko.encoders import inspect_encoder
from glinerko.errors import GlinerkoError, LoadError, first_line
from glinerko.hub import fetch, load_extractor, read_config
from glinerko.modeling import KoreanSpanExtractor
from glinerko.prediction import predict_spans
from glinerko.segmentation import MAX_SINGLE_SYLLABLE_SHARE, Segmentation
from glinerko.swap import check_compatibility, swap_encoder, weight_checksum
from glinerko.targets import annotate, measure_reach, training_windows, window_from_row
from glinerko.tokenization import difference_from_files, load_encoder_tokenizer
from glinerko.training import parameter_groups
from glinerko.windows import Window

#: Rows that the trial trains on, and texts that tokenizers are tried on.
TRIAL_ROWS, TRIAL_TEXTS = 16, 200


class Status(str, Enum):
    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True)
class Check:
    """What a check found."""

    name: str
    status: Status
    evidence: str
    advice: str = ""
    """What to do where it did not pass."""


def check_files(directory: Path) -> Check:
    """The config runs no code of its own, and the weights are in whole safetensors files."""
    name = "safe files"
    try:
        read_config(directory)
    except LoadError as error:
        return Check(name, Status.FAIL, str(error), "choose a repository whose model class is part of transformers")
    tensors = 0
    files = sorted(directory.glob("*.safetensors"))
    for file in files:
        try:
            with safe_open(file, framework="pt") as content:
                tensors += len(content.keys())
        except Exception as error:  # safetensors raises its own, which is no public class
            evidence = f"{file.name} is damaged: {first_line(error)}"
            return Check(name, Status.FAIL, evidence, "download it again (`hf download --force-download`)")
    if files:
        return Check(name, Status.PASS, f"{len(files)} safetensors of {tensors} tensors, no remote code")
    if list(directory.glob("pytorch_model*.bin")):
        return Check(
            name,
            Status.WARN,
            "weights in a pickle only; they are read with weights_only, which runs no code",
            "prefer a revision with model.safetensors",
        )
    return Check(name, Status.FAIL, "no weights (*.safetensors or pytorch_model.bin)", "download the whole repository")


def check_architecture(base: PretrainedConfig, encoder: PretrainedConfig, head_init: str = "keep") -> Check:
    """Heads trained on one architecture's states are kept on the same architecture alone."""
    reasons = check_compatibility(base, encoder)
    if reasons and head_init == "reinit":
        return Check(
            "architecture", Status.WARN, "; ".join(reasons), "new heads, as asked, must learn from your data alone"
        )
    if reasons:
        return Check("architecture", Status.FAIL, "; ".join(reasons), "--head_init reinit starts new heads")
    return Check("architecture", Status.PASS, f"both {type(encoder).__name__}")


def head_input_widths(model: KoreanSpanExtractor) -> dict[str, int]:
    """The width of the states that each head takes, read from its first layer."""
    widths = {}
    for head in model.task_module_names():
        layers = getattr(model, head).modules()
        inputs = (getattr(layer, "in_features", getattr(layer, "input_size", None)) for layer in layers)
        widths[head] = next(width for width in inputs if isinstance(width, int))
    return widths


def check_hidden_size(base: KoreanSpanExtractor, hidden_size: int, head_init: str = "keep") -> Check:
    """The encoder's states are as wide as the heads' weights are."""
    widths = head_input_widths(base)
    evidence = f"encoder {hidden_size}; " + ", ".join(f"{head} {width}" for head, width in widths.items())
    if set(widths.values()) == {hidden_size}:
        return Check("hidden size", Status.PASS, evidence)
    if head_init == "reinit":
        return Check("hidden size", Status.WARN, evidence, "new heads, as asked, take the encoder's width")
    return Check("hidden size", Status.FAIL, evidence, "--head_init reinit starts heads of the encoder's width")


def check_tokenizer(
    directory: Path, tokenizer: PreTrainedTokenizerBase, embedding_rows: int, texts: Sequence[str]
) -> Check:
    """The tokenizer cuts as its files say, has the special tokens it needs, and no id without a row."""
    name = "tokenizer fidelity"
    difference = difference_from_files(tokenizer, directory, texts)
    if difference:
        return Check(name, Status.FAIL, difference, "load it with glinerko.tokenization.load_encoder_tokenizer")
    lacks = [
        token for token in ("pad_token", "unk_token", "cls_token", "sep_token") if getattr(tokenizer, token) is None
    ]
    if lacks:
        return Check(name, Status.FAIL, f"no {', '.join(lacks)}", "name them in tokenizer_config.json")
    highest = max(tokenizer.get_vocab().values())
    if highest >= embedding_rows:
        evidence = f"id {highest:,} has no row among {embedding_rows:,}"
        return Check(name, Status.FAIL, evidence, "the tokenizer belongs to another model")
    kind = type(tokenizer.backend_tokenizer.model).__name__
    evidence = f"{kind}, {len(tokenizer):,} tokens for {embedding_rows:,} rows, cuts as its files say"
    try:
        trap = difference_from_files(
            AutoTokenizer.from_pretrained(directory, trust_remote_code=False), directory, texts
        )
    except Exception as error:  # whatever the wrong class raises on files that are not its own
        trap = f"{type(error).__name__}: {first_line(error)}"
    if trap:
        evidence += f". AutoTokenizer alone gets it wrong ({trap})"
        return Check(name, Status.WARN, evidence, "nothing with glinerko, which goes by the file; mind it elsewhere")
    return Check(name, Status.PASS, evidence)


def check_segmentation(segmentation: Segmentation) -> Check:
    """Korean comes out in words and stems, not in syllables."""
    found = segmentation
    worst = ", ".join(f"{term} ({'·'.join(pieces)})" for term, pieces in found.worst)
    evidence = (
        f"single syllables {found.single_syllable_share:.0%} of the Korean pieces, unknown {found.unknown_share:.1%}, "
        f"{found.pieces_per_word:.2f} pieces a word, boundary agreement with morphemes {found.boundary_agreement:.2f}; "
        f"worst: {worst}"
    )
    if found.single_syllable_share > MAX_SINGLE_SYLLABLE_SHARE:
        return Check(
            "segmentation", Status.FAIL, evidence, "the encoder never learned Korean words: choose a Korean one"
        )
    if found.unknown_share > 0.05:
        return Check("segmentation", Status.WARN, evidence, "text of unknown pieces cannot be told apart")
    return Check("segmentation", Status.PASS, evidence)


def check_reach(reach: Mapping[str, Mapping[int, float]], word_splitter: str, max_width: int) -> Check:
    """The gold can be represented as runs of whole words.

    Args:
        reach: Of :func:`glinerko.targets.measure_reach`, by splitter and width.
    """
    evidence = "; ".join(
        f"{name} " + ", ".join(f"{share:.1%} to width {width}" for width, share in by_width.items())
        for name, by_width in reach.items()
    )
    share = reach[word_splitter][max_width]
    if share < 0.9:
        advice = f"{1 - share:.0%} of the gold can never be found: --word_splitter korean, --max_width {max_width}"
        return Check("word-splitter reach", Status.FAIL if share < 0.5 else Status.WARN, evidence, advice)
    return Check("word-splitter reach", Status.PASS, evidence)


@torch.inference_mode()
def check_forward(model: KoreanSpanExtractor, base: KoreanSpanExtractor, texts: Sequence[str]) -> Check:
    """The encoder gives a finite state a token, on the scale that the heads know."""

    def states(extractor: KoreanSpanExtractor) -> torch.Tensor:
        tokenizer = extractor.processor.tokenizer
        batch = tokenizer(list(texts[:4]), padding=True, truncation=True, max_length=128, return_tensors="pt")
        output = extractor.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return output.last_hidden_state[batch["attention_mask"].bool()]

    ours, theirs = states(model), states(base)
    if ours.shape[-1] != model.encoder.config.hidden_size or not ours.isfinite().all():
        evidence = f"states of shape {tuple(ours.shape)}, {int((~ours.isfinite()).sum())} values not finite"
        return Check("forward pass", Status.FAIL, evidence, "the weights are damaged: download them again")
    spread, reference = ours.std().item(), theirs.std().item()
    evidence = (
        f"{len(ours)} finite states of width {ours.shape[-1]}, spread {spread:.2f} (base encoder {reference:.2f})"
    )
    if not 0.1 < spread / reference < 10:
        return Check("forward pass", Status.WARN, evidence, "the heads meet states of another scale: train them longer")
    return Check("forward pass", Status.PASS, evidence)


def check_heads_kept(model: KoreanSpanExtractor, base: KoreanSpanExtractor, head_init: str) -> Check:
    """Every head has the very bits of the base model's."""
    if head_init != "keep":
        return Check("heads kept", Status.SKIP, "the heads were initialised anew, as asked")
    heads = base.task_module_names()
    changed = [head for head in heads if weight_checksum(getattr(base, head)) != weight_checksum(getattr(model, head))]
    if changed:
        return Check("heads kept", Status.FAIL, f"changed: {', '.join(changed)}", "report this as a bug")
    return Check("heads kept", Status.PASS, f"{', '.join(heads)}: bit for bit")


def check_backward(model: KoreanSpanExtractor, batch: PreprocessedBatch) -> Check:
    """The loss is finite, and every parameter that entity data can train gets a gradient."""
    name = "loss and gradients"
    frozen = [key for key, parameter in model.named_parameters() if not parameter.requires_grad]
    if frozen:
        return Check(name, Status.FAIL, f"{len(frozen)} parameters are frozen, {frozen[0]} first", "unfreeze them")
    model.train()
    outputs = model(batch)
    loss = outputs["total_loss"]
    if outputs["batch_size"] != len(batch) or not torch.isfinite(loss):
        return Check(name, Status.FAIL, f"loss {loss.item()} of {outputs['batch_size']} of {len(batch)} documents",
                     "the weights are damaged, or a document cannot be read")  # fmt: skip
    loss.backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    gradients = {
        part: math.sqrt(sum(p.grad.square().sum().item() for n, p in model.named_parameters()
                            if p.grad is not None and n.startswith("encoder.") == (part == "encoder")))
        for part in ("encoder", "heads")
    }  # fmt: skip
    model.zero_grad()
    model.eval()
    # Entity data trains no classification head, and no pooler of an encoder.
    missing = [key for key in without if not key.startswith(("classifier.", "encoder.pooler."))]
    norms = ", ".join(f"{part} {norm:.2g}" for part, norm in gradients.items())
    if missing or not all(norm > 0 and math.isfinite(norm) for norm in gradients.values()):
        evidence = f"gradient norms {norms}; none for {len(missing)} parameters" + (
            f", {missing[0]} first" if missing else ""
        )
        return Check(name, Status.FAIL, evidence, "the encoder and the heads must both learn: see what detaches them")
    return Check(name, Status.PASS, f"loss {loss.item() / len(batch):.2f} a document, gradient norms {norms}")


def check_parameter_groups(model: KoreanSpanExtractor) -> Check:
    """Every trainable parameter is in exactly one group of the optimizer."""
    trainable = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    groups = parameter_groups(model, encoder_learning_rate=2e-5, head_learning_rate=5e-4, weight_decay=0.01)
    times = Counter(id(parameter) for group in groups for parameter in group["params"])
    wrong = [name for key, name in trainable.items() if times[key] != 1]
    if wrong or set(times) - set(trainable):
        evidence = f"{len(wrong)} parameters in no group or in two, for example {min(wrong, default='a frozen one')}"
        return Check("parameter groups", Status.FAIL, evidence, "report this as a bug")
    sizes = "; ".join(f"{group['name']} {sum(p.numel() for p in group['params']) / 1e6:.2f}M" for group in groups)
    return Check("parameter groups", Status.PASS, sizes)


def check_count_gate(
    model: KoreanSpanExtractor, windows: Sequence[Window], schema: LabelSchema, batch_size: int = 4
) -> Check:
    """The count head lets entities through after one epoch; at a predicted count of 0 gliner2 returns none at all.

    This trains ``model`` on ``windows``.
    """

    def open_share() -> float:
        model.eval()
        batch = model.processor.collate(windows, schema)
        return sum(scores is not None for scores in model.span_probabilities(batch)) / len(windows)

    before = open_share()
    optimizer = torch.optim.AdamW(parameter_groups(model, 2e-5, 5e-4, 0.01))
    model.train()
    for first in range(0, len(windows), batch_size):
        model(model.processor.collate(windows[first : first + batch_size], schema))["total_loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    after = open_share()
    evidence = f"open for {before:.0%} of the documents before training, {after:.0%} after one epoch of {len(windows)}"
    if after == 1:
        return Check("count gate", Status.PASS, evidence)
    if after > before:
        return Check("count gate", Status.WARN, evidence, "it is opening: the training script reports it every epoch")
    return Check(
        "count gate", Status.FAIL, evidence, "nothing would be found, whatever the spans score: see the count loss"
    )


def check_extraction(model: KoreanSpanExtractor, annotated: Dataset, schema: LabelSchema) -> Check:
    """Extracted spans are what the text holds at their offsets, which the full stop that gliner2 adds is not."""
    texts = [row["text"] for row in annotated]
    found = predict_spans(model, annotated, schema, floor=0.0)
    spans = [(text, span) for text, spans in zip(texts, found.spans, strict=True) for span in spans]
    name = "extraction"
    if not spans:
        return Check(name, Status.FAIL, "no span at threshold 0", "the count gate is shut")
    wrong = [
        span
        for text, span in spans
        if not 0 <= span.start < span.end <= len(text) or text[slice(*span.key[:2])].isspace()
    ]
    scores = [span.score for _, span in spans]
    if wrong or not all(map(math.isfinite, scores)):
        return Check(
            name, Status.FAIL, f"{len(wrong)} of {len(spans)} spans lie outside their text", "report this as a bug"
        )
    labels = schema.descriptions or list(schema.labels)
    theirs = model.extract_entities(texts[0], labels, threshold=0.0, include_spans=True)
    entities = [entity for found in theirs["entities"].values() for entity in found]
    own = [entity for entity in entities if entity["end"] <= len(texts[0])]
    if any(entity["text"] != texts[0][entity["start"] : entity["end"]] for entity in own):
        return Check(
            name, Status.FAIL, "extract_entities gives text that is not at its offsets", "report this as a bug"
        )
    evidence = f"{len(spans):,} spans of {len(texts)} documents lie in their text"
    beyond = f"; of gliner2's own {len(entities)}, {len(entities) - len(own)} reach the full stop it adds"
    return Check(name, Status.PASS, evidence + beyond)


def check_reload(model: KoreanSpanExtractor, windows: Sequence[Window], schema: LabelSchema) -> Check:
    """A saved and reloaded model gives the same scores, bit for bit."""
    model.eval()
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        again = load_extractor(directory)
    ours, theirs = (m.span_probabilities(m.processor.collate(windows, schema)) for m in (model, again))
    same = all((a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
               for a, b in zip(ours, theirs, strict=True))  # fmt: skip
    if not same or again.max_width != model.max_width:
        return Check("save and reload", Status.FAIL, "the reloaded model scores differently", "report this as a bug")
    return Check("save and reload", Status.PASS, "the reloaded model gives identical scores")


def verify_swap(
    base_model: str | Path,
    encoder: str | Path,
    rows: Dataset,
    *,
    max_width: int = 12,
    word_splitter: str = "korean",
    head_init: str = "keep",
    seed: int = 42,
) -> Iterator[Check]:
    """Run every check on the swap of ``encoder`` into ``base_model``, one after the other.

    Args:
        rows: The user's data (see :func:`glinerko.data.load_rows`); the trial trains on the first few.

    Yields:
        One result a check. What an earlier failure makes impossible is SKIP.

    Raises:
        LoadError: the base model, or the encoder's repository, cannot be loaded.
    """
    base, directory = load_extractor(base_model), fetch(encoder)
    schema, (texts, terms) = label_schema(rows), trial_texts(rows)
    found = inspect_encoder(directory, base.encoder.config, texts, terms)

    files = check_files(directory)
    yield files
    if found.segmentation is None:
        yield Check("architecture", Status.FAIL, found.reason, "choose an encoder")
        yield from _skipped(("hidden size", "tokenizer fidelity", "segmentation"), "it is no encoder that can be read")
    else:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        yield check_architecture(base.encoder.config, config, head_init)
        yield check_hidden_size(base, config.hidden_size, head_init)
        yield check_tokenizer(directory, load_encoder_tokenizer(directory), config.vocab_size, texts)
        yield check_segmentation(found.segmentation)
    splitters = ("whitespace", "char", word_splitter)
    yield check_reach(measure_reach(rows, dict.fromkeys(splitters), sorted({8, max_width})), word_splitter, max_width)

    try:
        swapped = {"max_width": max_width, "word_splitter": word_splitter, "head_init": head_init, "seed": seed}
        model, _ = swap_encoder(base_model, encoder, schema=schema, **swapped)
    except GlinerkoError as error:
        yield Check("forward pass", Status.FAIL, str(error), "mend what failed above, or choose another encoder")
        yield from _skipped(_TRIAL, "there is no swapped model")
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield from _trial(model, base, rows, schema, texts, head_init)


_TRIAL = (
    "heads kept", "loss and gradients", "parameter groups", "count gate", "extraction", "save and reload"
)  # fmt: skip


def _skipped(names: Sequence[str], reason: str) -> Iterator[Check]:
    yield from (Check(name, Status.SKIP, reason) for name in names)


def _trial(
    model: KoreanSpanExtractor,
    base: KoreanSpanExtractor,
    rows: Dataset,
    schema: LabelSchema,
    texts: Sequence[str],
    head_init: str,
) -> Iterator[Check]:
    """The checks that need the swapped model."""
    limits = {"max_width": model.max_width, "max_length": min(512, model.encoder.config.max_position_embeddings)}
    handful = annotate(rows.select(range(min(TRIAL_ROWS, len(rows)))), model.processor, schema, **limits)
    windows = [window_from_row(row) for row in training_windows(handful, schema)][:TRIAL_ROWS]
    # Without a full stop at the end, so that gliner2 adds one.
    open_ended = rows.select(range(min(4, len(rows)))).map(
        lambda row: {"text": row["text"].rstrip(" .!?\n"), "mentions": []}, features=rows.features
    )
    yield check_forward(model, base, texts)
    yield check_heads_kept(model, base, head_init)
    yield check_backward(model, model.processor.collate(windows[:4], schema))
    yield check_parameter_groups(model)
    yield check_count_gate(model, windows, schema)
    yield check_extraction(model, annotate(open_ended, model.processor, schema, **limits), schema)
    yield check_reload(model, windows[:4], schema)


def trial_texts(rows: Dataset) -> tuple[list[str], list[str]]:
    """The first texts of ``rows``, and the Korean mentions in them: what tokenizers are tried on."""
    first = rows.select(range(min(TRIAL_TEXTS, len(rows))))
    mentions = (mention["text"] for mentions in first["mentions"] for mention in mentions)
    return first["text"][:], [mention for mention in mentions if re.search("[가-힣]", mention)]
