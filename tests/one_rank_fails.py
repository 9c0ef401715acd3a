"""Runs a script in which the second process alone fails in its third step."""

import os
import runpy
import sys

from glinerko.common import TrainingError
from glinerko.training import optimizer

check_step, steps = optimizer.check_step, []


def check(*arguments):
    steps.append(arguments)
    if os.environ["RANK"] == "1" and len(steps) == 3:
        raise TrainingError("the loss is not finite (document 7: loss nan)")
    check_step(*arguments)


optimizer.check_step = check
sys.argv = sys.argv[1:]
sys.path.insert(0, "scripts")
runpy.run_path(sys.argv[0], run_name="__main__")
