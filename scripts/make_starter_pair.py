"""Build the offline starter pair, a small base model and a small Korean encoder, for a demo without the Hub.

    python scripts/make_starter_pair.py --output_dir outputs/starter

The two directories have exactly the layouts of the real models. They are good for a demo and for tests only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm
from transformers import set_seed

from glinerko.cli import option, parse_arguments, run
from glinerko.common import check_writable
from glinerko.corpus.reading import load_rows
from glinerko.training.starter import HEADS, StarterSize, build_base, build_starter_pair

SAMPLE = Path(__file__).parents[1] / "data" / "sample" / "train.jsonl"


@dataclass
class Arguments:
    output_dir: str = option("outputs/starter", "directory for the two models")
    train_file: str = option(str(SAMPLE), "rows to pre-train on: the encoder on their texts, the base on their labels")
    architecture: str = option("span", "of the base: span (GLiNER2) or boundary (GLiNER2.5)", choices=lambda: HEADS)
    hidden_size: int = option(StarterSize.hidden_size, "width of both encoders", at_least=32, multiple_of=32)
    layers: int = option(StarterSize.layers, "layers of both encoders", at_least=1)
    encoder_steps: int = option(StarterSize.encoder_steps, "pre-training steps of the Korean encoder", at_least=0)
    base_only: bool = option(False, "only the base, without the Korean encoder")
    base_steps: int = option(StarterSize.base_steps, "extraction steps of the base model", at_least=0)
    seed: int = option(42, "random seed", at_least=0)


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_seed(args.seed)
    directory = check_writable(args.output_dir)
    if (directory / "base" / "model.safetensors").is_file():
        print(f"{directory} holds a base model already.")
        return
    rows, _ = load_rows(args.train_file)
    size = StarterSize(args.hidden_size, args.layers, args.encoder_steps, args.base_steps)
    options = {"size": size, "seed": args.seed, "progress": lambda name, steps: tqdm(steps, desc=name)}
    options["architecture"] = args.architecture
    if args.base_only:
        print(f"Base model: {build_base(rows, directory / 'base', **options)}")
        return
    base, encoder = build_starter_pair(rows, directory, **options)
    print(f"Base model: {base}\nKorean encoder: {encoder}")


if __name__ == "__main__":
    run(main)
