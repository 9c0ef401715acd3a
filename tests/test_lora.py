from __future__ import annotations

import json

import pytest
import torch
from conftest import split_and_align
from peft.tuners.lora import LoraLayer

from glinerko.common import LoadError
from glinerko.corpus.windows import training_windows, window_from_row
from glinerko.model.extractor import load_extractor
from glinerko.model.lora import add_lora
from glinerko.model.swap import swap_encoder
from glinerko.training.optimizer import freeze_unused, parameter_groups


@pytest.fixture
def adapted(pair, schema):
    model, _ = swap_encoder(pair[0], None, schema=schema)
    return model, add_lora(model, pair[0])


@pytest.fixture
def batch(adapted, sample_rows, schema):
    processor = adapted[0].processor
    annotated = split_and_align(sample_rows.select(range(4)), processor, schema, max_width=12)
    return processor.collate([window_from_row(row) for row in training_windows(annotated, schema)], schema)


def test_adapters_alone_are_trained_and_what_gets_no_gradient_is_named(adapted, batch):
    model, said = adapted
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert not any(name.startswith(("count_pred", "count_embed")) for name in trained)
    assert "The rest is frozen." in said
    untrained = ["classifier", "span_rep.span_rep_layer.out_project"]  # gliner2 reads out_project around its adapter
    assert freeze_unused(model, [batch]) == untrained
    groups = parameter_groups(model, 2e-5, 5e-4, 0.01)
    assert {group["name"] for group in groups} == {"encoder, decay", "heads, decay"}


def test_an_adapter_is_saved_alone_and_loads_like_any_model(adapted, batch, tmp_path, pair):
    model, _ = adapted
    freeze_unused(model, [batch])
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-2, 1e-2, 0.0))
    model.train()
    model(batch)["total_loss"].backward()
    optimizer.step()
    model.eval()
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "adapter_model.safetensors").stat().st_size > 0
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == str(pair[0])

    again, base = load_extractor(tmp_path), load_extractor(pair[0])
    assert not any(isinstance(module, LoraLayer) for module in again.modules())
    ours, theirs = model.span_probabilities(batch), again.span_probabilities(batch)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-5)
    weights = "encoder.encoder.layer.0.attention.self.query_proj.weight"
    assert not torch.equal(again.state_dict()[weights], base.state_dict()[weights])
    again.save_pretrained(tmp_path / "merged")  # whole again
    assert (tmp_path / "merged" / "model.safetensors").exists()


def test_an_adapter_whose_base_is_gone_is_said_clearly(adapted, tmp_path):
    adapted[0].save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "/nowhere/base"}))
    with pytest.raises(LoadError, match="/nowhere/base: no such directory"):
        load_extractor(tmp_path)
    path.write_text("{}")
    with pytest.raises(LoadError, match="names no base_model_name_or_path"):
        load_extractor(tmp_path)
