"""The surgical swap: a pretrained GLiNER2 keeps its heads and gets another encoder, with that encoder's tokenizer."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from gliner2.configuration import ExtractorConfig
from gliner2.processor import SchemaTransformer
from transformers import AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from glinerko.cli import CONTENT, RESULT, check_options, option
from glinerko.common import GlinerkoError, LoadError, SwapError, first_line
from glinerko.corpus.processor import KoreanSchemaTransformer
from glinerko.corpus.schema import LabelSchema
from glinerko.corpus.tokens import load_encoder_tokenizer
from glinerko.corpus.words import USER_DICTIONARY, load_word_splitter, word_splitter_names
from glinerko.hub import fetch, load_config, public_name, read_licence
from glinerko.model.extractor import KoreanExtractor, load_extractor

_NO_SWAP = "--common_ancestor is for a swap, and the base model keeps its own encoder"


@dataclass
class SwapOptions:
    """How a swap is done."""

    common_ancestor: str | None = option(
        None, "encoder from which both were trained further; the base's task vector since then is added", CONTENT
    )
    head_init: str = option("keep", "weights of the heads: the base model's or new", RESULT, choices=["keep", "reinit"])
    max_width: int | None = option(
        None,
        "widest span that is scored, in words (default: 12; GLiNER2.5 has none)",
        RESULT,
        at_least=1,
    )
    word_splitter: str = option(
        "korean", "words that spans are made of; korean: Kiwi's morphemes, tuned", RESULT, choices=word_splitter_names
    )
    user_dictionary: str | None = option(
        None, "file of words for the Korean splitter, one a line: form, or form<TAB>tag<TAB>score", CONTENT
    )
    continuation_pieces: bool = option(
        False, "tokenization of word parts as in pre-training (##에게, not 에게)", RESULT
    )
    token_pooling: str | None = option(
        None, "state of a word from its pieces (default: the base model's)", RESULT, choices=["first", "mean", "max"]
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass
class ModelPair:
    """The two models of a swap."""

    base_model: str = option("fastino/gliner2-base-v1", "GLiNER2 or GLiNER2.5: Hub id or directory", CONTENT)
    korean_encoder: str = option(
        "team-lucid/deberta-v3-base-korean", "encoder: Hub id or directory; 'none' keeps the base model's own", CONTENT
    )


@dataclass
class SwapArguments(SwapOptions, ModelPair):
    """A swap as the command line describes it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.common_ancestor and self.encoder is None:
            raise SwapError(_NO_SWAP)

    @property
    def encoder(self) -> str | None:
        """The encoder to install; ``None`` to keep the base model's own."""
        return None if self.korean_encoder.lower() == "none" else self.korean_encoder

    @property
    def options(self) -> dict[str, Any]:
        """The options of :func:`swap_encoder`."""
        return {each.name: getattr(self, each.name) for each in fields(SwapOptions)}


@dataclass
class SwapReport:
    """What a swap kept, resized, initialised and changed."""

    base_model: str
    encoder: str
    licences: dict[str, str | None] = field(default_factory=dict)
    """The licence that the card of each model that the weights come from states."""
    common_ancestor: str | None = None
    """The encoder since which the base's learned what was added to the new one."""
    kept: dict[str, str] = field(default_factory=dict)
    """Module name to the SHA-256 of its weights, the same before and after."""
    initialised: dict[str, str] = field(default_factory=dict)
    """Module or token to how it was initialised."""
    changed: dict[str, tuple[str, str]] = field(default_factory=dict)
    """What was changed: its value before and after."""
    parameters: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Module name to its number of parameters, before and after."""


def weight_checksum(module: torch.nn.Module) -> str:
    """The SHA-256 over the names, shapes and bytes of a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_compatibility(base: PretrainedConfig, encoder: PretrainedConfig) -> list[str]:
    """The reasons why heads trained on the states of ``base`` cannot be kept on those of ``encoder``."""
    reasons = []
    if type(base) is not type(encoder):
        reasons.append(f"its config class is {type(encoder).__name__}, the base encoder's {type(base).__name__}")
    width = getattr(encoder, "hidden_size", None)
    if base.hidden_size != width:
        reasons.append(f"its hidden size is {width}, the heads expect {base.hidden_size}")
    return reasons


def swap_encoder(
    base_model: str | Path,
    encoder: str | Path | None,
    *,
    schema: LabelSchema | None = None,
    seed: int = 42,
    base: KoreanExtractor | None = None,
    **options: Any,
) -> tuple[KoreanExtractor, SwapReport]:
    """Load ``base_model`` and replace its encoder with ``encoder``.

    Args:
        base_model: A GLiNER2 of any architecture: Hub id or directory.
        encoder: The encoder to install: Hub id or directory; ``None`` keeps the base model's own.
        schema: Labels and descriptions to save with the model.
        seed: Random seed of the rows of GLiNER2's special tokens, and of new heads.
        base: The base model, if it is loaded already; not changed if an encoder is given.
        options: Those of :class:`SwapOptions`.

    Returns:
        The model in eval mode, and what was done to it.

    Raises:
        LoadError: A model, encoder or tokenizer cannot be loaded.
        SwapError: The encoder does not fit; the message gives the reason and the choices.
    """
    chosen = SwapOptions(**options)
    if chosen.common_ancestor and encoder is None:
        raise SwapError(_NO_SWAP)
    splitter = load_word_splitter(chosen.word_splitter, user_dictionary=chosen.user_dictionary)
    base = base or load_extractor(base_model)
    if encoder is None:
        module, tokenizer = base.encoder, base.processor.tokenizer
    else:
        module, tokenizer = load_encoder(encoder, base.encoder.config, chosen.head_init)
    new_tokens = _add_special_tokens(tokenizer)

    name = base.config.model_name if encoder is None else public_name(encoder)
    changes = {"token_pooling": chosen.token_pooling or base.config.token_pooling, "model_name": name}
    changes |= base.swapped_config(base.config, chosen.max_width)
    config = ExtractorConfig.from_dict({**base.config.to_dict(), **changes})
    rows = module.get_input_embeddings().num_embeddings
    heads = base.task_module_names()
    before = {head: weight_checksum(getattr(base, head)) for head in heads}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _new_model(type(base), config, module.config, tokenizer)
        model.encoder = module
        _fit_embeddings(module, tokenizer.convert_tokens_to_ids(new_tokens), len(tokenizer))
        rows_of = dict.fromkeys(new_tokens, "at random around the mean of the vocabulary's rows")
        if chosen.common_ancestor:
            of_base = _add_task_vector(module, tokenizer, base, chosen.common_ancestor)
            rows_of |= dict.fromkeys(of_base, "with the base model's rows")
    model.processor = KoreanSchemaTransformer(
        tokenizer, splitter, config.token_pooling, chosen.continuation_pieces, config.architecture
    )
    model.configure(
        word_splitter=chosen.word_splitter,
        lower_case=False,
        continuation_pieces=chosen.continuation_pieces,
        user_dictionary=USER_DICTIONARY if chosen.user_dictionary else None,
        **({} if schema is None else {name: getattr(schema, name) for name in ("labels", "descriptions", "tasks")}),
    )

    parents = [each for each in (base_model, encoder, chosen.common_ancestor) if each is not None]
    report = SwapReport(public_name(base_model), "the base model's own" if encoder is None else public_name(encoder))
    report.common_ancestor = chosen.common_ancestor and public_name(chosen.common_ancestor)
    report.licences = {public_name(parent): read_licence(fetch(parent)) for parent in parents}
    for head in heads:
        if chosen.head_init == "keep":
            getattr(model, head).load_state_dict(getattr(base, head).state_dict())
            report.kept[head] = weight_checksum(getattr(model, head))
            if report.kept[head] != before[head]:
                raise SwapError(f"the weights of {head} changed in the swap")
        else:
            report.initialised[head] = "with new weights, as gliner2 does"
        report.parameters[head] = (_count(getattr(base, head)), _count(getattr(model, head)))
    report.initialised |= rows_of
    report.parameters["encoder"] = (_count(base.encoder), _count(module))
    report.changed = _changes(base, model, rows)
    return model.eval(), report


def load_encoder(
    encoder: str | Path, base_config: PretrainedConfig, head_init: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """An encoder that fits the heads trained on an encoder of ``base_config``, and its tokenizer.

    Raises:
        LoadError: It cannot be loaded.
        SwapError: It does not fit, and ``head_init`` is ``keep``; or it is no encoder that can be swapped in.
    """
    directory = fetch(encoder)
    config = load_config(directory)
    reasons = check_compatibility(base_config, config)
    if getattr(config, "is_encoder_decoder", False):
        raise SwapError(f"{encoder}: an encoder-decoder ({type(config).__name__}); only encoders can be swapped in")
    if reasons and head_init == "keep":
        raise SwapError(
            f"{encoder}: the heads cannot be kept: {'; '.join(reasons)}. `--head_init reinit` starts new ones"
        )
    tokenizer = load_encoder_tokenizer(directory)
    module = _load_weights(directory, config, str(encoder))
    with torch.inference_mode():
        ids = torch.tensor([[0, 1, 2]])
        states = module.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    if states.shape != (1, 3, config.hidden_size) or not states.isfinite().all():
        raise SwapError(f"{encoder}: gives no finite state per token (shape {tuple(states.shape)})")
    return module, tokenizer


def _load_weights(directory: Path, config: PretrainedConfig, name: str) -> PreTrainedModel:
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # an unused pre-training head is no news; missing weights are reported below
    try:
        module, info = AutoModel.from_pretrained(
            directory, config=config, trust_remote_code=False, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # damaged files raise whatever their reader raises
        raise LoadError(f"{name}: the weights cannot be loaded: {first_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
    missing = [key for key in info["missing_keys"] if not key.startswith("pooler.")]
    if missing:
        raise LoadError(f"{name}: {len(missing)} weights are missing from its files, for example {min(missing)}")
    return module


def _new_model(
    kind: type[KoreanExtractor], config: ExtractorConfig, encoder_config: PretrainedConfig, tokenizer
) -> KoreanExtractor:
    """A model with new heads on the smallest encoder of this kind, which the caller replaces."""
    shell = copy.deepcopy(encoder_config)
    shell.num_hidden_layers, shell.vocab_size = 1, len(tokenizer)
    return kind(config, encoder_config=shell, tokenizer=tokenizer)


def _add_special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Add GLiNER2's special tokens, and return those that were not there."""
    new_tokens = [token for token in SchemaTransformer.SPECIAL_TOKENS if token not in tokenizer.get_vocab()]
    tokenizer.add_special_tokens({"additional_special_tokens": SchemaTransformer.SPECIAL_TOKENS})
    return new_tokens


def _fit_embeddings(encoder: PreTrainedModel, new_ids: list[int], vocabulary_size: int) -> None:
    """Give every token one row, and new tokens rows drawn around the mean of the others, with their spread.

    An encoder may have more rows than tokens. Then a resize adds no row, and a new token would get one that was never
    trained. So the rows are set here in any case.
    """
    encoder.resize_token_embeddings(vocabulary_size, mean_resizing=False)
    weight = encoder.get_input_embeddings().weight.data
    known = torch.ones(vocabulary_size, dtype=torch.bool)
    known[new_ids] = False
    mean, spread = weight[known].mean(0), weight[known].std(0)
    weight[new_ids] = torch.normal(mean.expand(len(new_ids), -1), spread.expand(len(new_ids), -1))


@torch.no_grad()
def _add_task_vector(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base: KoreanExtractor, ancestor: str
) -> list[str]:
    """Add to ``encoder`` what the base model's encoder has learned since it was ``ancestor``.

    This is task arithmetic (Ilharco et al., 2023): the difference of the weights is the base's task vector.

    Returns:
        The tokens of GLiNER2 that the ancestor lacks. They have no difference, and get the base's rows.

    Raises:
        SwapError: The ancestor cannot be loaded, or both encoders were not trained further from it.
    """
    refused = f"--common_ancestor {ancestor}:"
    try:
        before, of_before = load_encoder(ancestor, base.encoder.config, "reinit")
    except GlinerkoError as error:
        raise SwapError(f"--common_ancestor {error}") from error
    new_tokens = _add_special_tokens(of_before)
    for name, other in (("the base model", base.processor.tokenizer), ("the encoder", tokenizer)):
        if other.get_vocab() != of_before.get_vocab():
            raise SwapError(f"{refused} {name} has other tokens")
    before.resize_token_embeddings(len(tokenizer), mean_resizing=False)

    weights, learned, start = (dict(module.named_parameters()) for module in (encoder, base.encoder, before))
    rows = next(name for name, weight in start.items() if weight is before.get_input_embeddings().weight)
    if rows in learned:  # a base may have more rows than tokens
        learned[rows] = learned[rows][: len(tokenizer)]
    for name, other in (("the base model's encoder", learned), ("the encoder", weights)):
        if {key: weight.shape for key, weight in other.items()} != {key: weight.shape for key, weight in start.items()}:
            raise SwapError(f"{refused} {name} has weights of other shapes")
        if all(torch.equal(other[key], weight) for key, weight in start.items() if key != rows):
            raise SwapError(f"{refused} {name} has the same weights, and has learned nothing since")
    for name, weight in weights.items():
        weight += learned[name] - start[name]
    new_ids = tokenizer.convert_tokens_to_ids(new_tokens)
    weights[rows][new_ids] = learned[rows][new_ids]
    return new_tokens


def _changes(base: KoreanExtractor, model: KoreanExtractor, rows: int) -> dict[str, tuple[str, str]]:
    def describe(extractor: KoreanExtractor) -> dict[str, str]:
        tokenizer = extractor.processor.tokenizer
        return {
            **extractor.limits(),
            "word_splitter": extractor.settings.word_splitter,
            "user_dictionary": extractor.settings.user_dictionary or "none",
            "continuation_pieces": str(extractor.settings.continuation_pieces).lower(),
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
