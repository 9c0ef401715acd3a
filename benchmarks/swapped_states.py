"""What can be done to a swapped model before it is fine-tuned: distil the old encoder's states, or add a difference.

    python benchmarks/swapped_states.py distil BASE ENCODER TEXTS OUTPUT_DIR [--latin] [--steps 304]
    python benchmarks/swapped_states.py add MODEL ANCESTOR CHILD OUTPUT_DIR [--scale 1.0]

distil: ENCODER is put into BASE with kept heads. It learns to give each word of the texts, and each label of the
prompt, the state that the old encoder gives it. With --latin only words of Latin letters and digits count, and the
prompt. Prints the R² of the states on a tenth of the texts, before and after.
add: the encoder of MODEL gets the difference between two encoders of one ancestor added to its weights.
Then: train_gliner2_korean_encoder.py --base_model OUTPUT_DIR --korean_encoder none ...
"""

import argparse
import re
from functools import partial
from itertools import chain, islice, repeat

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm import tqdm
from transformers import AutoModel, get_scheduler

from glinerko.corpus.processor import words_before
from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.windows import training_windows, window_from_row
from glinerko.model.extractor import load_extractor
from glinerko.model.swap import swap_encoder
from glinerko.training.speed import speed_up

BATCH, LEARNING_RATE = 4, 5e-4
LATIN = re.compile(r"[A-Za-z0-9].*")


def states(model, windows, schema, latin):
    """The states of the prompt's markers and of the words that count, [states, hidden]."""
    batch = model.processor.collate(windows, schema)
    words, prompts = model.processor.extract_embeddings_from_batch(model.encode_tokens(batch), batch.input_ids, batch)
    counted = []
    for index, (first, of_words, of_prompts) in enumerate(zip(words_before(batch), words, prompts, strict=True)):
        places = zip(batch.start_mappings[index], batch.end_mappings[index], strict=True)
        texts = [windows[index].text[start:end] for start, end in places]
        of_text = of_words[first:]
        if latin:
            of_text = of_text[torch.tensor([bool(LATIN.fullmatch(text)) for text in texts], dtype=torch.bool)]
        counted += [of_text, torch.stack(list(chain.from_iterable(of_prompts)))]
    return torch.cat(counted)


@torch.no_grad()
def agreement(old, new, windows, schema, latin):
    """The share of the variance of the old states that the new ones explain."""
    pairs = [[states(model, windows[i : i + BATCH], schema, latin) for model in (old, new)]
             for i in range(0, len(windows), BATCH)]  # fmt: skip
    before, after = (torch.cat(each) for each in zip(*pairs, strict=True))
    return 1 - float((after - before).square().sum() / (before - before.mean(0)).square().sum())


def print_agreement(old, new, windows, schema, when):
    for latin, name in ((False, "all words"), (True, "Latin words")):
        print(f"R² {when}, {name}: {agreement(old, new, windows, schema, latin):.3f}")


def distil(args):
    set_seed(42)
    rows, _ = load_rows(args.texts)
    schema = label_schema(rows)
    old = load_extractor(args.base).eval()
    new, _ = swap_encoder(args.base, args.encoder, schema=schema, token_pooling="mean")
    new.configure(window={"max_length": 512, "window_overlap": 64})
    windows = [window_from_row(row) for row in training_windows(new.align(rows), schema)]
    held_out, windows = windows[::10], [window for i, window in enumerate(windows) if i % 10]
    tell = partial(print_agreement, old, new, held_out, schema)
    tell("before")
    speed_up(new, new.encoder, "auto", Accelerator(cpu=True))
    parameters = list(new.encoder.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.01)
    schedule = get_scheduler("linear", optimizer, args.steps // 10, args.steps)
    batches = chain.from_iterable(torch.randperm(len(windows)).split(BATCH) for _ in repeat(None))
    new.train()
    bar = tqdm(islice(batches, args.steps), total=args.steps)
    for chosen in bar:
        batch = [windows[i] for i in chosen]
        with torch.no_grad():
            target = states(old, batch, schema, args.latin)
        loss = F.mse_loss(states(new, batch, schema, args.latin), target) / target.var(0).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss:.3f}")
    new.eval()
    tell("after")
    new.save_pretrained(args.output_dir)


def weights(path):
    """The weights of an encoder, or of the encoder of a GLiNER2."""
    try:
        return load_extractor(path).encoder.state_dict()
    except Exception:  # no GLiNER2
        return AutoModel.from_pretrained(path, dtype=torch.float32).state_dict()


def add(args):
    model = load_extractor(args.model)
    ancestor, child = weights(args.ancestor), weights(args.child)
    for name, weight in model.encoder.state_dict().items():
        if name in ancestor and weight.is_floating_point():
            rows = min(len(each) for each in (weight, ancestor[name], child[name]))  # special tokens come last
            weight[:rows] += args.scale * (child[name][:rows] - ancestor[name][:rows])
    model.save_pretrained(args.output_dir)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
commands = parser.add_subparsers(required=True)
command = commands.add_parser("distil")
for name in ("base", "encoder", "texts", "output_dir"):
    command.add_argument(name)
command.add_argument("--latin", action="store_true")
command.add_argument("--steps", type=int, default=304)
command.set_defaults(run=distil)
command = commands.add_parser("add")
for name in ("model", "ancestor", "child", "output_dir"):
    command.add_argument(name)
command.add_argument("--scale", type=float, default=1.0)
command.set_defaults(run=add)
args = parser.parse_args()
args.run(args)
