"""Give a pretrained GLiNER2 a Korean encoder, fine-tune it, measure it honestly and publish it."""

__version__ = "0.1.0"
