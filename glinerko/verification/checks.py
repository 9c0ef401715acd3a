"""The judge of an encoder: each check is one cause of F1 = 0, or of lost hours, with a name.

:func:`check_encoder` needs only an encoder's config and tokenizer. :func:`judge_candidate` derives a verdict from it,
and :func:`verify_swap` continues with a trial of the swap. Nothing here needs a GPU.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import safe_open
from transformers import AutoTokenizer, PretrainedConfig

from glinerko.common import DataError, GlinerkoError, LoadError, TrainingError, first_line
from glinerko.corpus.processor import TrainingWindow, Window
from glinerko.corpus.reading import label_schema
from glinerko.corpus.report import Segmentation, measure_reach
from glinerko.corpus.rows import ENTITIES
from glinerko.corpus.schema import LabelSchema
from glinerko.corpus.tokens import difference_from_files
from glinerko.corpus.windows import MAX_LENGTH, training_windows, window_from_row
from glinerko.corpus.words import load_word_splitter
from glinerko.hub import fetch, read_config
from glinerko.model.extractor import KoreanExtractor, load_and_compare, load_extractor
from glinerko.model.prediction import own_prompt, predict_spans
from glinerko.model.swap import SwapOptions, check_compatibility, swap_encoder, weight_checksum
from glinerko.training.optimizer import check_step, parameter_groups
from glinerko.verification.agreement import describe_agreement
from glinerko.verification.candidates import INSPECTED_FILES, EncoderFiles, Inspection, Kind, Verdict, inspect_encoder

TRIAL_ROWS = 16
"""The number of rows that the trial trains on."""
TRIAL_TEXTS = 200
"""The number of texts for the tokenizer to cut."""
MAX_SINGLE_SYLLABLE_SHARE = 0.7
"""The share of single syllables among Korean pieces above which a tokenizer knows no Korean words."""
MAX_UNKNOWN_SHARE = 0.05
"""The share of unknown pieces above which the check warns."""

# Complete models: the wrong kind for a swap, but good to compare with.
_COMPLETE = {
    Kind.GLINER_V1: "a complete GLiNER v1 model, not an encoder: compare its scores instead",
    Kind.GLINER2: "a complete GLiNER2 model: compare it, or pass it as --base_model",
}
_TRIAL = "heads kept", "loss and gradients", "parameter groups", "gate", "extraction", "save and reload"


class Status(StrEnum):
    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


PASS, WARN, FAIL, SKIP = Status


@dataclass(frozen=True)
class Check:
    """The result of a check."""

    name: str
    status: Status
    evidence: str
    advice: str = ""
    """What to do if it did not pass."""
    summary: str = ""
    """The evidence in a clause, if it is long."""


def check_files(directory: Path) -> Check:
    """The config asks to run no code of its own, and the weights are in undamaged safetensors files."""
    name, tensors, files = "safe files", 0, sorted(directory.glob("*.safetensors"))
    try:
        read_config(directory)
        for file in files:
            with safe_open(file, framework="pt") as content:
                tensors += len(content.keys())
    except LoadError as error:
        return Check(name, FAIL, str(error), "choose a repository whose model class is part of transformers")
    except Exception as error:  # safetensors raises a class of its own that is not public
        damage = f"{file.name} is damaged: {first_line(error)}"
        return Check(name, FAIL, damage, "download it again (`hf download --force-download`)")
    if files:
        return Check(name, PASS, f"{len(files)} safetensors of {tensors} tensors, no remote code")
    if list(directory.glob("pytorch_model*.bin")):
        evidence = "weights in a pickle file only; it is read with weights_only, which runs no code"
        return Check(name, WARN, evidence, "prefer a revision with model.safetensors")
    return Check(name, FAIL, "no weights (*.safetensors or pytorch_model.bin)", "download the whole repository")


def check_architecture(encoder: Inspection, base: PretrainedConfig, head_init: str) -> Check:
    """It is an encoder, with states like those that the heads were trained on: same config class, same width."""
    files = encoder.files
    if files.config is None:
        other = f"not an encoder: {encoder.config_class} has no masked language model"
        return Check("architecture", FAIL, files.error or _COMPLETE.get(encoder.kind, other), "choose an encoder")
    reasons = check_compatibility(base, files.config)
    facts = reasons or [f"{encoder.config_class} of width {encoder.hidden_size}, as the base model's encoder"]
    if encoder.kind is Kind.SENTENCE:
        facts = ["a sentence model, whose token states can be used", *facts]
    return _check_fit("architecture", not reasons, "; ".join(facts), head_init)


def check_hidden_size(encoder: Inspection, base: PretrainedConfig, head_init: str) -> Check:
    """The encoder's states are as wide as the heads expect: gliner2 makes them as wide as the base encoder."""
    evidence = f"encoder {encoder.hidden_size}, heads {base.hidden_size}"
    return _check_fit("hidden size", encoder.hidden_size == base.hidden_size, evidence, head_init)


def _check_fit(name: str, fits: bool, evidence: str, head_init: str) -> Check:
    if fits:
        return Check(name, PASS, evidence)
    if head_init == "reinit":
        return Check(name, WARN, evidence, "the new heads that you requested must learn from your data only")
    return Check(name, FAIL, evidence, "--head_init reinit starts new heads, of the encoder's width")


def check_tokenizer(files: EncoderFiles, embedding_rows: int, texts: Sequence[str]) -> Check:
    """The tokenizer cuts as its files say, has the special tokens it needs, and an embedding row for each id."""
    name, directory, tokenizer = "tokenizer fidelity", files.directory, files.tokenizer
    if tokenizer is None:
        return Check(name, FAIL, files.error, "add a tokenizer.json that fits the encoder")
    difference = difference_from_files(tokenizer, directory, texts)
    if difference:
        return Check(name, FAIL, difference, "load it with glinerko.corpus.tokens.load_encoder_tokenizer")
    needed = ("pad_token", "unk_token", "cls_token", "sep_token")
    missing = [token for token in needed if getattr(tokenizer, token) is None]
    if missing:
        return Check(name, FAIL, f"no {', '.join(missing)}", "name them in tokenizer_config.json")
    highest = max(tokenizer.get_vocab().values())
    if highest >= embedding_rows:
        evidence = f"only {embedding_rows:,} embedding rows: id {highest:,} has no row among {embedding_rows:,}"
        return Check(name, FAIL, evidence, "the tokenizer belongs to another model")
    kind = type(tokenizer.backend_tokenizer.model).__name__
    evidence = f"{kind}, {len(tokenizer):,} tokens for {embedding_rows:,} rows, cuts as its files say"
    try:
        usual = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        trap = difference_from_files(usual, directory, texts)
    except Exception as error:  # whatever the wrong class raises on files that are not its own
        trap = f"{type(error).__name__}: {first_line(error)}"
    if not trap:
        return Check(name, PASS, evidence)
    advice = "no action needed in glinerko (it reads tokenizer.json); do not load it with AutoTokenizer elsewhere"
    return Check(name, WARN, f"{evidence}. AutoTokenizer alone gets it wrong ({trap})", advice)


def check_segmentation(segmentation: Segmentation | None) -> Check:
    """The tokenizer cuts Korean into words and stems, not into syllables."""
    name = "segmentation"
    if segmentation is None:
        return Check(name, SKIP, "there is no tokenizer")
    share = segmentation.single_syllable_share
    worst = ", ".join(f"{term} ({'·'.join(pieces)})" for term, pieces in segmentation.worst)
    evidence = (
        f"single syllables {share:.0%} of the Korean pieces, unknown {segmentation.unknown_share:.1%}, "
        f"{segmentation.pieces_per_word:.2f} pieces a word, boundary agreement with morphemes "
        f"{segmentation.boundary_agreement:.2f}; worst: {worst}"
    )
    if share > MAX_SINGLE_SYLLABLE_SHARE:
        summary = f"its tokenizer cuts Korean into syllables: {share:.0%} of the pieces are a single one"
        advice = "the encoder never learned Korean words: choose a Korean one"
        return Check(name, FAIL, evidence, advice, summary)
    if segmentation.unknown_share > MAX_UNKNOWN_SHARE:
        return Check(name, WARN, evidence, "the model cannot tell unknown pieces apart")
    return Check(name, PASS, evidence)


def check_encoder(encoder: Inspection, base: PretrainedConfig, texts: Sequence[str], head_init: str) -> Iterator[Check]:
    """Run the checks of an inspected encoder's config and tokenizer; ``base`` is the config of the one it replaces."""
    yield check_architecture(encoder, base, head_init)
    if encoder.files.config is None:
        yield from _skip("there is no encoder to check", "hidden size", "tokenizer fidelity", "segmentation")
        return
    yield check_hidden_size(encoder, base, head_init)
    yield check_tokenizer(encoder.files, encoder.embedding_rows, texts)
    yield check_segmentation(encoder.segmentation)


def _skip(reason: str, *names: str) -> Iterator[Check]:
    return (Check(name, SKIP, reason) for name in names)


def judge_candidate(
    name: str | Path, base: PretrainedConfig, texts: Sequence[str], terms: Sequence[str], domain: str | None = None
) -> Inspection:
    """Inspect and judge a candidate by its config and tokenizer files only.

    Args:
        base: The config of the encoder that it is to replace.
        texts: Of :func:`trial_texts`, as ``terms``.
        domain: The domain of its pre-training text, as its publisher states it.
    """
    try:
        encoder = inspect_encoder(fetch(name, allow_patterns=INSPECTED_FILES), texts, terms)
    except LoadError as error:
        return Inspection(str(name), Verdict.SKIPPED, str(error), domain=domain)
    verdict, reason = derive_verdict(encoder.kind, list(check_encoder(encoder, base, texts, "reinit")))
    return replace(encoder, name=str(name), verdict=verdict, reason=reason, domain=domain)


def derive_verdict(kind: Kind, checks: Sequence[Check]) -> tuple[Verdict, str]:
    """The verdict and its reason, from the results of :func:`check_encoder` with new heads."""
    failed = [check for check in checks if check.status is FAIL]
    if failed:
        verdict = Verdict.COMPARE if kind in _COMPLETE else Verdict.UNSUITABLE
        return verdict, failed[0].summary or failed[0].evidence
    architecture = checks[0]
    return Verdict.SWAP if architecture.status is PASS else Verdict.NEW_HEADS, architecture.evidence


def check_reach(
    reach: Mapping[str, Mapping[int | None, float | None]], word_splitter: str, max_width: int | None
) -> Check:
    """The gold mentions are runs of whole words; ``reach`` is that of :func:`glinerko.corpus.report.measure_reach`."""
    name, share = "word-splitter reach", reach[word_splitter][max_width]
    if share is None:
        return Check(name, SKIP, "no gold mention occurs in its text", "pass documents with mentions")
    evidence = "; ".join(
        f"{splitter} "
        + ", ".join(f"{part:.1%}{f' to width {width}' if width else ''}" for width, part in by_width.items())
        for splitter, by_width in reach.items()
    )
    if share < 0.9:
        lost = f"{1 - share:.0%} of the gold can never be predicted"
        advice = f"{lost}: try --word_splitter korean{' or a larger --max_width' if max_width else ''}"
        return Check(name, FAIL if share < 0.5 else WARN, evidence, advice)
    return Check(name, PASS, evidence)


@torch.inference_mode()
def check_forward(model: KoreanExtractor, base: KoreanExtractor, texts: Sequence[str]) -> Check:
    """The encoder gives one finite state per token, of about the same scale as the base encoder's."""

    def states(extractor: KoreanExtractor) -> torch.Tensor:
        tokenizer = extractor.processor.tokenizer
        batch = tokenizer(list(texts[:4]), padding=True, truncation=True, max_length=128, return_tensors="pt")
        output = extractor.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return output.last_hidden_state[batch["attention_mask"].bool()]

    name, ours, theirs = "forward pass", states(model), states(base)
    if ours.shape[-1] != model.encoder.config.hidden_size or not ours.isfinite().all():
        evidence = f"states of shape {tuple(ours.shape)}, {int((~ours.isfinite()).sum())} values not finite"
        return Check(name, FAIL, evidence, "the weights are damaged: download them again")
    spread, reference = ours.std().item(), theirs.std().item()
    width = ours.shape[-1]
    evidence = f"{len(ours)} finite states of width {width}, spread {spread:.2f} (base encoder {reference:.2f})"
    if not 0.1 < spread / reference < 10:
        advice = "the encoder's outputs differ in scale from what the heads were trained on: train longer"
        return Check(name, WARN, evidence, advice)
    return Check(name, PASS, evidence)


def check_heads_kept(model: KoreanExtractor, base: KoreanExtractor, head_init: str, texts: Sequence[str]) -> Check:
    """Every head is bit for bit that of the base model; the evidence says how far the encoders agree on ``texts``."""
    name, heads = "heads kept", base.task_module_names()
    if head_init != "keep":
        return Check(name, SKIP, "you requested new heads")
    changed = [head for head in heads if weight_checksum(getattr(base, head)) != weight_checksum(getattr(model, head))]
    if changed:
        return Check(name, FAIL, f"changed: {', '.join(changed)}", "report this as a bug")
    return Check(name, PASS, f"{', '.join(heads)}: bit for bit; {describe_agreement(model, base, texts)}")


def check_backward(model: KoreanExtractor, windows: Sequence[TrainingWindow], schema: LabelSchema) -> Check:
    """All targets can be found, the loss is finite, and every parameter that entity data can train gets a gradient."""
    name, beyond = "loss and gradients", model.beyond_limits(windows)
    if beyond:
        evidence = f"{beyond} of {sum(len(window.targets) for window in windows)} mentions have no room"
        return Check(name, FAIL, evidence, f"raise the limits in config.json: {model.limits()}")
    batch = model.processor.collate(windows, schema)
    model.train()
    outputs = model(batch)
    try:
        check_step(outputs, model, batch)
    except TrainingError as error:
        return Check(name, FAIL, str(error), "the weights are damaged, or a document cannot be read")
    loss = model.summed_losses(outputs, len(batch))[0]
    loss.backward()
    squares, missing = {"encoder": 0.0, "heads": 0.0}, []
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            squares["encoder" if key.startswith("encoder.") else "heads"] += parameter.grad.square().sum().item()
        elif not key.startswith((*model.untrained(frozenset()), "encoder.pooler.")):
            missing.append(key)
    model.zero_grad()
    model.eval()
    norms = ", ".join(f"{part} {math.sqrt(square):.2g}" for part, square in squares.items())
    if missing or not all(0 < square < math.inf for square in squares.values()):
        first = f", {missing[0]} first" if missing else ""
        evidence = f"gradient norms {norms}; none for {len(missing)} parameters{first}"
        return Check(name, FAIL, evidence, "encoder and heads must both learn: find out what detaches them")
    return Check(name, PASS, f"loss {loss.item() / len(batch):.2f} a document, gradient norms {norms}")


def check_parameter_groups(model: KoreanExtractor) -> Check:
    """Every trainable parameter is in exactly one group of the optimizer."""
    name = "parameter groups"
    trainable = {id(parameter): key for key, parameter in model.named_parameters() if parameter.requires_grad}
    groups = parameter_groups(model, encoder_learning_rate=2e-5, head_learning_rate=5e-4, weight_decay=0.01)
    times = Counter(id(parameter) for group in groups for parameter in group["params"])
    wrong = [key for identity, key in trainable.items() if times[identity] != 1]
    if wrong or set(times) - set(trainable):
        evidence = f"{len(wrong)} parameters in no group or in two, for example {min(wrong, default='a frozen one')}"
        return Check(name, FAIL, evidence, "report this as a bug")
    sizes = "; ".join(f"{group['name']} {sum(p.numel() for p in group['params']) / 1e6:.2f}M" for group in groups)
    return Check(name, PASS, sizes)


def check_gate(model: KoreanExtractor, windows: Sequence[Window], schema: LabelSchema) -> Check:
    """The gate is open after one epoch; where it is shut, gliner2 returns no entities, whatever their scores are.

    This trains ``model`` on ``windows``.
    """
    prompts = [own_prompt(model, schema, 0.0)] * len(windows)

    def open_share() -> float:
        model.eval()
        answers = model.extract_from_windows(windows, prompts)
        return 1 - sum(answer.shut for answer in answers) / sum(answer.gates for answer in answers)

    name, before = "gate", open_share()
    optimizer = torch.optim.AdamW(parameter_groups(model, 2e-5, 5e-4, 0.01))
    model.train()
    for first in range(0, len(windows), 4):
        batch = model.processor.collate(windows[first : first + 4], schema)
        model.summed_losses(model(batch), len(batch))[0].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    after = open_share()
    evidence = f"{model.gate} {before:.0%} open before training, {after:.0%} after one epoch of {len(windows)} windows"
    if after == 1:
        return Check(name, PASS, evidence)
    if after > before:
        return Check(name, WARN, evidence, "it is opening: the training script reports it every epoch")
    return Check(name, FAIL, evidence, "entities would be kept back, whatever their scores are")


def check_extraction(model: KoreanExtractor, documents: Dataset, schema: LabelSchema) -> Check:
    """Predicted spans of split ``documents`` lie in their text, without the full stop that gliner2 adds to it."""
    name, texts = "extraction", documents["text"][:]
    predicted = predict_spans(model, documents, schema, floor=0.0).spans
    spans = [(text, span) for text, spans in zip(texts, predicted, strict=True) for span in spans]
    if not spans:
        return Check(name, FAIL, "no span at threshold 0", "the gate is shut")
    wrong = [s for text, s in spans if not 0 <= s.start < s.end <= len(text) or text[s.start : s.end].isspace()]
    if wrong or not all(math.isfinite(span.score) for _, span in spans):
        return Check(name, FAIL, f"{len(wrong)} of {len(spans)} spans lie outside their text", "report this as a bug")
    result = model.extract_entities(texts[0], threshold=0.0, include_spans=True)
    entities = [entity for entities in result["entities"].values() for entity in entities]
    inside = [entity for entity in entities if entity["end"] <= len(texts[0])]
    if any(entity["text"] != texts[0][entity["start"] : entity["end"]] for entity in inside):
        return Check(name, FAIL, "extract_entities gives text that is not at its offsets", "report this as a bug")
    beyond = f"of gliner2's own {len(entities)}, {len(entities) - len(inside)} reach the full stop it adds"
    return Check(name, PASS, f"{len(spans):,} spans of {len(texts)} documents lie in their text; {beyond}")


def check_reload(model: KoreanExtractor) -> Check:
    """A saved and reloaded model has the same width and gives the same scores."""
    name = "save and reload"
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        reloaded, difference = load_and_compare(directory, model.reference_scores())
    if difference or reloaded.max_width != model.max_width:
        return Check(name, FAIL, "the reloaded model scores differently", "report this as a bug")
    return Check(name, PASS, "the reloaded model gives identical scores")


def verify_swap(
    base_model: str | Path, encoder: str | Path, rows: Dataset, *, seed: int = 42, **options: Any
) -> Iterator[Check]:
    """Run every check on the swap of ``encoder`` into ``base_model``, one after the other.

    Args:
        rows: The user's data (see :func:`glinerko.corpus.reading.load_rows`); the trial trains on the first few.
        options: Those of :class:`glinerko.model.swap.SwapOptions`.

    Yields:
        One result per check; SKIP if an earlier failure makes it impossible.

    Raises:
        LoadError: The base model, or the encoder's repository, cannot be loaded.
        SwapError: The base model has no widest span, and ``options`` names one.
    """
    chosen, base_directory = SwapOptions(**options), fetch(base_model)
    base, directory = load_extractor(base_directory), fetch(encoder)
    width = base.swapped_config(base.config, chosen.max_width).get("max_width")
    schema, (texts, terms) = label_schema(rows).entities_only(), trial_texts(rows)
    annotated = [index for index, kinds in enumerate(rows["annotated"]) if ENTITIES in kinds]
    if not schema.labels or not annotated:
        raise DataError("no labels of entities, which the checks need: leave out --data_file to try the sample corpus")
    yield check_files(directory)
    yield from check_encoder(inspect_encoder(directory, texts, terms), base.encoder.config, texts, chosen.head_init)
    splitters = {name: load_word_splitter(name) for name in ("whitespace", "char")}
    splitters[chosen.word_splitter] = load_word_splitter(chosen.word_splitter, user_dictionary=chosen.user_dictionary)
    reach = measure_reach(rows, splitters, sorted({8, width}) if width else [None])
    yield check_reach(reach, chosen.word_splitter, width)
    try:
        model, _ = swap_encoder(base_directory, directory, schema=schema, seed=seed, base=base, **options)
    except GlinerkoError as error:
        yield Check("forward pass", FAIL, str(error), "fix this, or choose another encoder")
        yield from _skip("there is no swapped model", *_TRIAL)
        return
    model.configure(window={"max_length": min(MAX_LENGTH, model.encoder.config.max_position_embeddings)})
    aligned = model.align(rows.select(annotated[:TRIAL_ROWS]))
    trained = training_windows(aligned, schema)
    model.fit_to(trained)
    windows = [window_from_row(row) for row in trained][:TRIAL_ROWS]
    # gliner2 adds a full stop to a text without one.
    unfinished = rows.select(range(min(4, len(rows)))).map(
        lambda row: {"text": row["text"].rstrip(" .!?\n"), "mentions": []}, features=rows.features
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield check_forward(model, base, texts)
        yield check_heads_kept(model, base, chosen.head_init, texts)
        yield check_backward(model, windows[:4], schema)
        yield check_parameter_groups(model)
        yield check_gate(model, windows, schema)
        yield check_extraction(model, model.split(unfinished), schema)
        yield check_reload(model)


def trial_texts(rows: Dataset) -> tuple[list[str], list[str]]:
    """The first texts of ``rows``, and the Korean mentions in them: what tokenizers are tried on."""
    first = rows.select(range(min(TRIAL_TEXTS, len(rows))))
    mentions = (mention["text"] for mentions in first["mentions"] for mention in mentions)
    return first["text"][:], [mention for mention in mentions if re.search("[가-힣]", mention)]
