"""The surgical swap: a pretrained GLiNER2 keeps its heads and gets another encoder, with that encoder's tokenizer."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from gliner2.configuration import ExtractorConfig
from gliner2.processor import SchemaTransformer
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from glinerko.data import LabelSchema
from glinerko.errors import LoadError, SwapError, first_line
from glinerko.hub import fetch, load_extractor, public_name, read_config, read_licence
from glinerko.kiwi import USER_DICTIONARY
from glinerko.modeling import FORMAT, KoreanSchemaTransformer, KoreanSpanExtractor
from glinerko.tokenization import load_encoder_tokenizer
from glinerko.words import load_word_splitter


@dataclass
class SwapReport:
    """What a swap kept, resized, initialised and changed."""

    base_model: str
    encoder: str
    licences: dict[str, str | None] = field(default_factory=dict)
    """Base model and encoder to the licence that their own cards state."""
    kept: dict[str, str] = field(default_factory=dict)
    """Module name to the SHA-256 of its weights, the same before and after."""
    initialised: dict[str, str] = field(default_factory=dict)
    """Module or token to how it was initialised."""
    changed: dict[str, tuple[str, str]] = field(default_factory=dict)
    """What was set to another value: before, after."""
    parameters: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Module name to its number of parameters, before and after."""


def weight_checksum(module: torch.nn.Module) -> str:
    """SHA-256 over the names, shapes and bytes of a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_compatibility(base: PretrainedConfig, encoder: PretrainedConfig) -> list[str]:
    """Why heads trained on ``base``'s states cannot be kept on ``encoder``'s; empty where they can."""
    reasons = []
    if type(base) is not type(encoder):
        reasons.append(f"its config class is {type(encoder).__name__}, the base encoder's {type(base).__name__}")
    if base.hidden_size != encoder.hidden_size:
        reasons.append(f"its hidden size is {encoder.hidden_size}, the heads expect {base.hidden_size}")
    return reasons


def swap_encoder(
    base_model: str | Path,
    encoder: str | Path | None,
    *,
    max_width: int = 12,
    word_splitter: str = "korean",
    lower_case: bool = False,
    continuation_pieces: bool = False,
    token_pooling: str | None = None,
    user_dictionary: str | Path | None = None,
    schema: LabelSchema | None = None,
    head_init: str = "keep",
    seed: int = 42,
) -> tuple[KoreanSpanExtractor, SwapReport]:
    """Load ``base_model`` and put ``encoder`` in place of its own.

    Args:
        base_model: A GLiNER2 of the span architecture, Hub id or directory.
        encoder: The encoder to install, Hub id or directory; ``None`` keeps the base model's own.
        max_width: The widest span that is scored, in words. The ``markerV0`` span layer has no weights behind it.
        word_splitter: ``korean``, ``kiwi``, ``whitespace`` or ``char``.
        lower_case: Lower-case the words of the Korean splitter.
        continuation_pieces: Tokenize a word that continues one as the encoder saw it in pre-training (``##에게``).
        token_pooling: How the pieces of a word become its state: ``first``, ``mean`` or ``max`` of them; ``None`` for
            the base model's own.
        user_dictionary: A file of words for the Korean splitter; saved with the model.
        schema: Labels and descriptions to keep in ``config.json``.
        head_init: ``keep`` the heads bit for bit, or ``reinit`` them.
        seed: For the rows of GLiNER2's special tokens, and for heads that are re-initialised.

    Returns:
        The model in eval mode, and what was done to it.

    Raises:
        LoadError: a model, encoder or tokenizer cannot be loaded.
        SwapError: the encoder does not fit; the message gives the reason and the choice there is.
    """
    if head_init not in ("keep", "reinit"):
        raise SwapError(f"head_init must be 'keep' or 'reinit', got {head_init!r}")
    if max_width < 1:
        raise SwapError(f"max_width must be at least 1 word, got {max_width}")
    splitter = load_word_splitter(word_splitter, lower_case, user_dictionary)
    base = load_extractor(base_model)
    if encoder is None:
        module, tokenizer = base.encoder, base.processor.tokenizer
    else:
        module, tokenizer = _load_encoder(encoder, base.encoder.config, head_init)
    special_tokens = [token for token in SchemaTransformer.SPECIAL_TOKENS if token not in tokenizer.get_vocab()]
    tokenizer.add_special_tokens({"additional_special_tokens": SchemaTransformer.SPECIAL_TOKENS})

    name = base.config.model_name if encoder is None else public_name(encoder)
    heads = base.task_module_names()
    before = {head: weight_checksum(getattr(base, head)) for head in heads}
    widths = {"span_head": {**base.config.span_head, "max_width": max_width}, "max_width": max_width}
    pooling = {"token_pooling": token_pooling or base.config.token_pooling}
    config = ExtractorConfig.from_dict({**base.config.to_dict(), **widths, **pooling, "model_name": name})
    rows = module.get_input_embeddings().num_embeddings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _new_model(config, module.config, tokenizer)
        model.encoder = module
        _fit_embeddings(module, tokenizer.convert_tokens_to_ids(special_tokens), len(tokenizer))
    model.processor = KoreanSchemaTransformer(tokenizer, splitter, config.token_pooling, continuation_pieces)
    settings = {"word_splitter": word_splitter, "lower_case": lower_case, "continuation_pieces": continuation_pieces}
    if user_dictionary:
        settings["user_dictionary"] = USER_DICTIONARY
    if schema is not None:
        settings |= {"labels": list(schema.labels), "descriptions": schema.descriptions}
    model.configure(format=FORMAT, **settings)

    parents = [base_model, *([] if encoder is None else [encoder])]
    report = SwapReport(public_name(base_model), "the base model's own" if encoder is None else public_name(encoder))
    report.licences = {public_name(parent): read_licence(fetch(parent)) for parent in parents}
    for head in heads:
        if head_init == "keep":
            getattr(model, head).load_state_dict(getattr(base, head).state_dict())
            report.kept[head] = weight_checksum(getattr(model, head))
            if report.kept[head] != before[head]:
                raise SwapError(f"the weights of {head} changed in the swap")
        else:
            report.initialised[head] = "anew, as gliner2 does"
        report.parameters[head] = (_count(getattr(base, head)), _count(getattr(model, head)))
    for token in special_tokens:
        report.initialised[token] = "drawn around the mean of the vocabulary's rows"
    report.parameters["encoder"] = (_count(base.encoder), _count(module))
    report.changed = _changes(base, model, rows)
    return model.eval(), report


def _load_encoder(
    encoder: str | Path, base_config: PretrainedConfig, head_init: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    directory = fetch(encoder)
    kind = read_config(directory).get("model_type")
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (ValueError, KeyError) as error:
        raise LoadError(f"{encoder}: transformers knows no encoder of model_type {kind!r}") from error
    reasons = check_compatibility(base_config, config)
    if getattr(config, "is_encoder_decoder", False):
        raise SwapError(f"{encoder}: an encoder-decoder ({type(config).__name__}); only encoders can be swapped in")
    if reasons and head_init == "keep":
        raise SwapError(
            f"{encoder}: the heads cannot be kept: {'; '.join(reasons)}. `--head_init reinit` starts new ones"
        )
    tokenizer = load_encoder_tokenizer(directory)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # a pre-training head that is left behind is no news; missing weights are, below
    try:
        module, info = AutoModel.from_pretrained(
            directory, config=config, trust_remote_code=False, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # damaged files raise whatever their reader raises
        raise LoadError(f"{encoder}: the weights cannot be loaded: {first_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
    missing = [key for key in info["missing_keys"] if not key.startswith("pooler.")]
    if missing:
        raise LoadError(f"{encoder}: {len(missing)} weights are missing from its files, for example {min(missing)}")
    with torch.inference_mode():
        ids = torch.tensor([[0, 1, 2]])
        states = module.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    if states.shape != (1, 3, config.hidden_size) or not states.isfinite().all():
        raise SwapError(f"{encoder}: gives no finite state a token (shape {tuple(states.shape)})")
    return module, tokenizer


def _new_model(config: ExtractorConfig, encoder_config: PretrainedConfig, tokenizer) -> KoreanSpanExtractor:
    """A model with new heads on the smallest encoder of this kind, which the caller replaces."""
    shell = copy.deepcopy(encoder_config)
    shell.num_hidden_layers, shell.vocab_size = 1, len(tokenizer)
    return KoreanSpanExtractor(config, encoder_config=shell, tokenizer=tokenizer)


def _fit_embeddings(encoder: PreTrainedModel, new_ids: list[int], vocabulary_size: int) -> None:
    """Give every token one row, and new tokens rows drawn around the mean of the others, with their spread.

    An encoder may have more rows than tokens. A new token would then get a row that was never trained and that no
    resize touches, so the rows are set here whatever the resize did.
    """
    encoder.resize_token_embeddings(vocabulary_size, mean_resizing=False)
    weight = encoder.get_input_embeddings().weight.data
    known = torch.ones(vocabulary_size, dtype=torch.bool)
    known[new_ids] = False
    mean, spread = weight[known].mean(0), weight[known].std(0)
    weight[new_ids] = torch.normal(mean.expand(len(new_ids), -1), spread.expand(len(new_ids), -1))


def _changes(base: KoreanSpanExtractor, model: KoreanSpanExtractor, rows: int) -> dict[str, tuple[str, str]]:
    def describe(extractor: KoreanSpanExtractor) -> dict[str, str]:
        tokenizer = extractor.processor.tokenizer
        return {
            "max_width": str(extractor.max_width),
            "word_splitter": extractor.word_splitter_name,
            "encoder": extractor.config.model_name,
            "tokenizer": f"{type(tokenizer.backend_tokenizer.model).__name__}, {len(tokenizer):,} tokens",
        }

    before, after = describe(base), describe(model)
    changes = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    resized = model.encoder.get_input_embeddings().num_embeddings
    if resized != rows:
        changes["embedding rows"] = (f"{rows:,}", f"{resized:,}")
    return changes


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
