"""Build the offline starter pair, a small GLiNER2 and a small Korean encoder, for a demo without a Hub.

    python scripts/make_starter_pair.py --output_dir outputs/starter

The two directories have exactly the layouts of the real models. They are good for a demo and for tests, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm
from transformers import set_seed

from glinerko.cli import parse_arguments, run
from glinerko.data import load_rows
from glinerko.starter import StarterSize, build_base, build_starter_pair

SAMPLE = Path(__file__).parents[1] / "data" / "sample" / "train.jsonl"


@dataclass
class Arguments:
    output_dir: str = field(default="outputs/starter", metadata={"help": "where the two models go"})
    train_file: str = field(default=str(SAMPLE), metadata={"help": "rows whose text and gold both are pre-trained on"})
    hidden_size: int = field(default=StarterSize.hidden_size, metadata={"help": "width of both encoders"})
    layers: int = field(default=StarterSize.layers, metadata={"help": "layers of both encoders"})
    encoder_steps: int = field(default=StarterSize.encoder_steps, metadata={"help": "masked language model steps"})
    base_only: bool = field(default=False, metadata={"help": "build the GLiNER2 alone"})
    base_steps: int = field(default=StarterSize.base_steps, metadata={"help": "extraction steps of the base model"})
    seed: int = 42


def main() -> None:
    (args,) = parse_arguments(Arguments, description=__doc__)
    set_seed(args.seed)
    directory = Path(args.output_dir)
    if (directory / "base" / "model.safetensors").is_file():
        print(f"{directory} holds a base model already.")
        return
    rows, _ = load_rows(args.train_file)
    size = StarterSize(args.hidden_size, args.layers, args.encoder_steps, args.base_steps)
    options = {"size": size, "seed": args.seed, "progress": lambda name, steps: tqdm(steps, desc=name)}
    if args.base_only:
        print(f"Base model: {build_base(rows, directory / 'base', **options)}")
        return
    base, encoder = build_starter_pair(rows, directory, **options)
    print(f"Base model: {base}\nKorean encoder: {encoder}")


if __name__ == "__main__":
    run(main)
