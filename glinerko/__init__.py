"""Give a pretrained GLiNER2 a Korean encoder, fine-tune it, measure it honestly and publish it."""

__version__ = "0.1.0"  # before the imports: the caches of data ask for it

from glinerko.hub import load_extractor
from glinerko.swap import swap_encoder
from glinerko.words import KoreanWordSplitter

__all__ = ["KoreanWordSplitter", "__version__", "load_extractor", "swap_encoder"]
