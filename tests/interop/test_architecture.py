"""The architecture in a file: HookedTransformer's own logits are the reference, and what is unknown is asked."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from grokscope import Trajectory
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.interop import conversion
from grokscope.interop.import_run import import_checkpoints
from grokscope.store.record import Record

pytestmark = pytest.mark.filterwarnings("ignore:.*above chance")
CONFIG = RunConfig(task=TaskConfig(p=7, train_fraction=0.6))
"""The task of the files. The architecture of this config is another one than theirs."""


def hooked_transformer(fold: bool = False, **settings: Any) -> Any:
    """Return a HookedTransformer with random weights and biases, for the task of CONFIG."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    common = {"n_layers": 1, "d_model": 16, "d_head": 8, "n_heads": 2, "d_mlp": 24, "n_ctx": 3, "d_vocab": 8}
    values = {**common, "d_vocab_out": 7, "act_fn": "relu", "normalization_type": None, **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = HookedTransformer(HookedTransformerConfig(**values, seed=None, device="cpu"))
        generator = torch.Generator().manual_seed(3)
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) / 4
            parameter.data = noise + (1 if name.endswith(".w") else 0)
        if fold:
            model.process_weights_(center_writing_weights=False, center_unembed=False)
    return model


def logits_of(model: Any, imported: Trajectory) -> tuple[Tensor, Tensor]:
    """Return the logits of HookedTransformer and of the imported run at the answer's position."""
    inputs = imported.task.inputs
    with torch.no_grad():
        return model(inputs)[:, -1], imported.model.logits(imported.last.parameters, inputs)


def notes_of(imported: Trajectory) -> str:
    assert imported.path is not None
    return " ".join((Record.read(imported.path).imported or {})["notes"])


def import_model(model: Any, folder: Path, *, with_config: bool = True, **options: Any) -> Trajectory:
    """Import a HookedTransformer's state dict, with its config in the file or without."""
    without = options.pop("without", ())
    state_dict = {name: value for name, value in model.state_dict().items() if name not in without}
    path = folder / "step_60.pth"
    torch.save({"model": state_dict, "config": model.cfg} if with_config else state_dict, path)
    config = options.pop("config", CONFIG)
    return import_checkpoints([path], config, "run", folder, **options)


@pytest.mark.parametrize(
    ("settings", "fold", "model"),
    [
        ({"act_fn": "gelu"}, False, {"act_fn": "gelu"}),
        ({"normalization_type": "LN"}, False, {"normalization_type": "LN"}),
        ({"normalization_type": "LN", "n_layers": 2, "act_fn": "gelu"}, True, {"normalization_type": "LN"}),
        ({"attention_dir": "bidirectional"}, False, {"n_layers": 1}),
        ({"n_layers": 2, "attention_dir": "bidirectional"}, False, {"attention_dir": "bidirectional"}),
        ({"act_fn": "silu", "gated_mlp": True}, False, {"act_fn": "silu", "gated_mlp": True}),
        ({"use_attn_scale": False}, False, {"use_attn_scale": False}),
        ({"normalization_type": "RMS"}, False, {"normalization_type": "RMS"}),
        ({"normalization_type": "LN", "eps": 1e-3}, False, {"options": '{"eps": 0.001}'}),
        ({"d_head": 4}, False, {"d_head": 4}),
        ({"positional_embedding_type": "rotary", "rotary_dim": 8}, False, {"positions": "rotary"}),
        ({"n_layers": 2, "n_heads": 4, "d_head": 4, "d_mlp": 20}, False, {"n_heads": 4, "d_mlp": 20, "n_layers": 2}),
    ],
    ids=str,
)
def test_architecture_in_the_file_gives_its_logits(
    settings: dict[str, Any], fold: bool, model: dict[str, Any], tmp_path: Path
):
    hooked = hooked_transformer(fold, **settings)
    imported = import_model(hooked, tmp_path)
    torch.testing.assert_close(*logits_of(hooked, imported), rtol=1e-4, atol=1e-4)
    assert {name: getattr(imported.config.model, name) for name in model} == model
    assert imported.config.model.d_model == 16 and imported.config.model.biases == "all"
    assert "model.d_model is 16 in the file, not 128." in notes_of(imported)


def test_folded_layer_norm_is_seen_in_the_weights(tmp_path: Path):
    hooked = hooked_transformer(True, normalization_type="LN")
    imported = import_model(hooked, tmp_path, with_config=False)
    torch.testing.assert_close(*logits_of(hooked, imported), rtol=1e-4, atol=1e-4)
    assert "LayerNorm was folded into the weights" in notes_of(imported)


def test_config_beside_the_file_is_read(tmp_path: Path):
    hooked = hooked_transformer(act_fn="gelu")
    values = {name: value for name, value in vars(hooked.cfg).items() if isinstance(value, str | int | None)}
    (tmp_path / "config.json").write_text(json.dumps(values))
    imported = import_model(hooked, tmp_path, with_config=False)
    assert imported.config.model.act_fn == "gelu"
    torch.testing.assert_close(*logits_of(hooked, imported), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"positional_embedding_type": "shortformer"},
            "positional_embedding_type = 'shortformer'.*allowed: 'standard'",
        ),
        ({"attn_scores_soft_cap": 5.0}, r"attn_scores_soft_cap = 5\.0.*; allowed: -1\.0\."),
        ({"d_head": 5000}, "d_head = 5000.*; allowed: a whole number from 1 to 4096"),
    ],
    ids=str,
)
def test_other_function_is_refused_in_one_sentence(settings: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(GrokscopeError, match=f"step_60.pth: it.* {message}"):
        import_model(hooked_transformer(**settings), tmp_path)
    assert not (tmp_path / "run").exists()


def test_two_layers_without_mask_need_causal(tmp_path: Path):
    hooked = hooked_transformer(n_layers=2)
    buffers = {f"blocks.{layer}.attn.{name}" for layer in range(2) for name in ("mask", "IGNORE")}
    with pytest.raises(GrokscopeError, match=r"direction of attention.*--model\.attention-dir"):
        import_model(hooked, tmp_path, with_config=False, without=buffers, is_described=False)
    imported = import_model(hooked, tmp_path, with_config=False, without=buffers, is_causal=True)
    torch.testing.assert_close(*logits_of(hooked, imported), rtol=1e-4, atol=1e-4)


def test_given_setting_that_the_file_contradicts_is_refused(tmp_path: Path):
    config = dataclasses.replace(CONFIG, model=ModelConfig(act_fn="relu"))
    with pytest.raises(GrokscopeError, match=r"model\.act_fn: 'relu' was given, but the file has 'gelu'"):
        import_model(hooked_transformer(act_fn="gelu"), tmp_path, config=config, given={"model.act_fn"})


def test_unnamed_activation_is_asked_if_another_fits_better(tmp_path: Path):
    hooked = hooked_transformer(act_fn="gelu")
    wrong = Trajectory.from_state_dicts(
        dataclasses.replace(CONFIG, model=ModelConfig(d_model=16, n_heads=2, d_mlp=24, act_fn="gelu")),
        {60: hooked.state_dict()},
    )
    # A model that answers its own task: the answers of the gelu model, as a table.
    answers = wrong.model.logits(wrong.last.parameters, wrong.task.inputs).argmax(-1).reshape(7, 7)
    table = "\n".join(" ".join(map(str, row)) for row in answers.tolist())
    config = dataclasses.replace(CONFIG, task=TaskConfig("table", table=table, train_fraction=0.6))
    with pytest.raises(
        GrokscopeError, match=r"is 100\.0% with 'gelu' and .*Add --model\.act-fn gelu or --model\.act-fn relu"
    ):
        import_model(hooked, tmp_path, with_config=False, config=config)
    gelu = dataclasses.replace(config, model=ModelConfig(act_fn="gelu"))
    assert import_model(hooked, tmp_path, with_config=False, config=gelu).log["accuracy"][-1] == 1
    stated = import_checkpoints([tmp_path / "step_60.pth"], config, "stated", tmp_path, given={"model.act_fn"})
    assert stated.config.model.act_fn == "relu"


@pytest.mark.parametrize(
    ("present", "given", "expected"),
    [
        ({"blocks.0.mlp.b_in": 0.0, "blocks.0.attn.b_O": 0.0}, "mlp", "mlp"),
        ({"blocks.0.mlp.b_in": 0.0, "blocks.0.attn.b_O": 0.1}, "mlp", "all"),
        ({"blocks.0.mlp.b_in": 0.1, "blocks.0.attn.b_O": 0.0}, "none", "mlp"),
        ({"blocks.0.mlp.b_in": 0.1}, "all", "mlp"),
        ({}, "all", "none"),
        ({"unembed.b_U": 0.0}, "all", "all"),
    ],
    ids=str,
)
def test_biases_are_those_in_the_file(present: dict[str, float], given: str, expected: str):
    parameters = {name: torch.tensor([value]) for name, value in present.items()}
    assert conversion.biases(parameters, given) == expected


def test_missing_biases_are_zero_and_never_mentioned(tmp_path: Path):
    hooked = hooked_transformer()
    path = tmp_path / "step_60.pt"
    without_biases = {name: value for name, value in hooked.state_dict().items() if ".b_" not in name}
    torch.save(without_biases, path)
    imported = import_checkpoints([path], CONFIG, "run", tmp_path)
    assert imported.config.model.biases == "none"
    with pytest.raises(GrokscopeError) as refusal:
        import_checkpoints([path], dataclasses.replace(CONFIG, task=TaskConfig(p=11)), "other", tmp_path)
    assert "W_U has shape (16, 7); allowed: (16, 11)" in str(refusal.value) and "b_" not in str(refusal.value)


def test_copies_of_parameters_are_left_out(tmp_path: Path):
    state_dict = hooked_transformer().state_dict()
    path = tmp_path / "step_60.pt"
    torch.save({**state_dict, "x_embed": state_dict["embed.W_E"], "y_embed": state_dict["embed.W_E"].T}, path)
    imported = import_checkpoints([path], CONFIG, "run", tmp_path)
    assert "x_embed was left out, because it copies embed.W_E." in notes_of(imported)
    assert "y_embed was left out" in notes_of(imported)
    torch.save({**state_dict, "probe": torch.ones(3)}, path)
    with pytest.raises(GrokscopeError, match=r"step 60: probe is unknown\n.*--leave-out probe leaves out"):
        import_checkpoints([path], CONFIG, "other", tmp_path)
    imported = import_checkpoints([path], CONFIG, "other", tmp_path, leave_out=["probe"])
    assert "probe was left out." in notes_of(imported)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.model."])
def test_common_prefix_of_names_is_dropped(prefix: str, tmp_path: Path):
    path = tmp_path / "step_60.pt"
    torch.save({prefix + name: value for name, value in hooked_transformer().state_dict().items()}, path)
    assert import_checkpoints([path], CONFIG, "run", tmp_path).steps.tolist() == [60]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"W_x": torch.zeros(7, 4), "W_y": torch.zeros(5, 6)}, "it contains W_x, W_y. Allowed: the names of"),
        ({"tok_emb.weight": torch.zeros(8, 4)}, "it contains tok_emb.weight. Allowed: the names of"),
        (
            {"embed.W_E": torch.zeros(7, 4), "pos_embed.W_pos": torch.zeros(2, 4)},
            "it has positions for 2 tokens; allowed: 3, one for each token of 'a b ='",
        ),
    ],
    ids=["no chain", "nanoGPT", "two tokens"],
)
def test_other_kinds_of_model_are_refused(parameters: dict[str, Tensor], message: str, tmp_path: Path):
    path = tmp_path / "step_60.pt"
    torch.save(parameters, path)
    with pytest.raises(GrokscopeError, match=message) as refusal:
        import_checkpoints([path], CONFIG, "run", tmp_path)
    assert "\n" not in str(refusal.value)


def test_mask_that_hides_the_answer_is_refused(tmp_path: Path):
    state_dict = hooked_transformer().state_dict()
    path = tmp_path / "step_60.pt"
    torch.save({**state_dict, "blocks.0.attn.mask": torch.eye(3)}, path)
    with pytest.raises(GrokscopeError, match=r"blocks\.0\.attn\.mask is neither causal nor all ones"):
        import_checkpoints([path], CONFIG, "run", tmp_path)
