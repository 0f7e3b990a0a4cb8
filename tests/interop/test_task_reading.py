"""The task and the properties of a network in the config of another program."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from grokscope import tasks
from grokscope.config import TaskConfig
from grokscope.config.run_config import RunConfig, from_dict
from grokscope.errors import GrokscopeError
from grokscope.interop import file_configs, task_reading
from grokscope.interop.import_run import import_checkpoints
from grokscope.model import families


def sized(n_tokens: int, n_answers: int, n_positions: int) -> dict[str, Any]:
    return {
        "embed.W_E": torch.zeros(n_tokens, 4),
        "unembed.W_U": torch.zeros(4, n_answers),
        "pos_embed.W_pos": torch.zeros(n_positions, 4),
    }


@pytest.mark.parametrize(
    ("sizes", "p", "form"),
    [
        ((98, 97, 3), 97, "a b ="),
        ((99, 97, 4), 97, "a ∘ b ="),
        ((99, 97, 5), 97, "a ∘ b ="),
        ((114, 114, 3), 113, "a b ="),
        ((99, 99, 5), 97, "a ∘ b ="),
    ],
)
def test_sizes_give_the_modulus_and_the_form(sizes: tuple[int, int, int], p: int, form: str):
    task, notes = task_reading.read(TaskConfig(), sized(*sizes), {}, ())
    assert (task.p, task.form) == (p, form)
    assert notes == ["The operation is 'addition', which the files do not name; --task.name names another."]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"operation": "x-y"}, {"name": "subtraction"}),
        ({"operation": "lambda x: (x[0]+x[1])%59"}, {"name": "addition"}),
        ({"operation": "mod_mul"}, {"name": "multiplication"}),
        ({"operation": "x / y (mod p)"}, {"name": "division"}),
        ({"group": "AlternatingGroup", "group_parameter": 5}, {"name": "composition", "group": "A5"}),
        ({"p": 59, "train_fraction": 0.8}, {"p": 59, "train_fraction": 0.8}),
    ],
    ids=str,
)
def test_config_names_the_task(facts: dict[str, Any], expected: dict[str, Any]):
    task, _ = task_reading.read(TaskConfig(), sized(60, 59, 3), facts, ())
    assert {name: getattr(task, name) for name in expected} == expected


def test_given_settings_count_before_the_config():
    task, _ = task_reading.read(TaskConfig("subtraction", 7), sized(98, 97, 3), {"p": 5}, {"task.name", "task.p"})
    assert (task.name, task.p) == ("subtraction", 7)
    with pytest.raises(GrokscopeError, match="names the operation 'x\\^3\\+xy'"):
        task_reading.read(TaskConfig(), sized(98, 97, 3), {"operation": "x^3+xy"}, ())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"model": {"n_head": 4}, "data": {"p": 97}}, {"n_heads": 4, "p": 97}),
        ({"num_heads": {"value": 8, "desc": None}}, {"n_heads": 8}),
        ({"act_fn": "<class 'torch.nn.modules.activation.ReLU'>"}, {"act_fn": "relu"}),
        ({"hidden_act": "gelu_new", "causal": False}, {"act_fn": "gelu_new", "attention_dir": "bidirectional"}),
        ({"train_data_pct": 30.0}, {"train_fraction": 0.3}),
        ({"model_type": "gpt_neo"}, {"use_attn_scale": False, "attention_dir": "causal"}),
        ({"rope_theta": 500.0}, {"positional_embedding_type": "rotary", "rotary_base": 500.0}),
        ({"a": {"heads": 2}, "b": {"heads": 4}}, {}),
    ],
    ids=str,
)
def test_config_is_read_under_other_names(values: dict[str, Any], expected: dict[str, Any]):
    assert file_configs.properties(file_configs.plain(values)) == expected


def test_config_beside_is_the_one_with_the_same_name(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"p": 5}))
    (tmp_path / "config_ab12.json").write_text(json.dumps({"p": 7}))
    assert file_configs.beside(tmp_path / "model_ab12.pt") == {"p": 7}
    assert file_configs.beside(tmp_path / "model_other.pt") == {"p": 5}
    assert file_configs.beside(tmp_path / "none" / "model.pt") == {}


@pytest.mark.filterwarnings("ignore:.*above chance")
def test_twice_as_many_tokens_as_answers_are_two_vocabularies(tmp_path: Path):
    config = from_dict(
        {
            "task": {"name": "expression", "expression": "a - b", "sizes": "7 7", "p": 7, "form": "a b"},
            "model": {"d_model": 8, "n_heads": 2, "d_mlp": 12},
        }
    )
    model = families.build(config.model, tasks.build(config.task))
    content = {"model": model.initialize(0), "config": {"func": "lambda x: (x[0]-x[1])%7", "act_fn": "ReLU"}}
    torch.save(content, tmp_path / "step_60.pt")
    run = import_checkpoints([tmp_path / "step_60.pt"], RunConfig(), "run", tmp_path, is_described=False)
    assert run.config.task.sizes == "7 7" and run.config.task.form == "a b"
    for tokens, label in zip(run.task.inputs.tolist(), run.task.labels.tolist(), strict=True):
        assert label == (tokens[0] - (tokens[1] - 7)) % 7
