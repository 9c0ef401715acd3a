"""Runs a script on CPU processes under the FSDP configuration of a file, which Accelerate uses on accelerators alone."""

import os
import runpy
import sys
from pathlib import Path

import yaml
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

config = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
os.environ |= {name.upper(): str(value).lower() for name, value in config["fsdp_config"].items()}
os.environ |= {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": config["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"],
}
prepare_state = AcceleratorState.__init__


def sharded(self, *args, fsdp_plugin=None, **options):
    prepare_state(self, *args, **options)
    if fsdp_plugin is not None:
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP


AcceleratorState.__init__ = sharded
sys.argv = sys.argv[2:]
sys.path.insert(0, "scripts")
runpy.run_path(sys.argv[0], run_name="__main__")
