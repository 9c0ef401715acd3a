"""Runs a script as if no more than three windows fitted in memory."""

import runpy
import sys

import torch

from glinerko.training import batches

freeze_unused = batches.freeze_unused


def fit_three(model, given):
    given = list(given)
    if any(len(batch) > 3 for batch in given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return freeze_unused(model, given)


batches.freeze_unused = fit_three
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
