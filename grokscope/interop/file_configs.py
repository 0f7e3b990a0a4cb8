"""The config of another program, in a checkpoint file or beside it, as properties of a network and its training.

Programs name the same setting differently. `_NAMES` lists the names, and `_VALUES` the spellings of values.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grokscope.interop.foreign_objects import Inert

_LARGEST_CONFIG = 2**20
_LONGEST = 200
"""The most characters of a value in a config."""
_DEEPEST = 4
"""The most tables inside tables that are read."""
_BESIDE = ("config", "cfg", "model_config", "args", "hparams", "params", "hyperparameters")
"""The names of the .json file beside the weights, apart from the names that repeat those of the weights."""
_NAMES = {
    "n_heads": "n_heads n_head num_heads num_head num_attention_heads attention_heads heads nheads nhead",
    "act_fn": "act_fn act_type activation activation_function activation_fn hidden_act nonlinearity non_linearity",
    "eps": "eps layer_norm_epsilon layer_norm_eps rms_norm_eps norm_eps ln_eps norm_epsilon",
    "attention_dir": "attention_dir",
    "is_causal": "causal is_causal use_causal_mask causal_mask causal_attention",
    "attn_coeff": "attn_coeff",
    "norm_first": "norm_first pre_norm prenorm pre_ln pre_layer_norm",
    "normalization_type": "normalization_type norm_type",
    "n_key_value_heads": "num_key_value_heads n_kv_heads n_key_value_heads",
    "rotary": "rope rotary use_rope use_rotary",
    "rotary_base": "rope_theta rotary_emb_base rotary_base",
    "rotary_pct": "rotary_pct partial_rotary_factor",
    "rotary_dim": "rotary_dim",
    "positional_embedding_type": "positional_embedding_type position_embedding_type pos_type",
    "parallel_attn_mlp": "use_parallel_residual parallel_attn_mlp",
    "use_attn_scale": "use_attn_scale",
    "tied": "tie_word_embeddings tie_embeddings weight_tying tied",
    "model_type": "model_type",
    "p": "p prime mod modulus modulo C P prime_p mod_p modular_base",
    "operation": "fn_name operation operator op binary_op binary_operation math_operator funcs func function",
    "group": "group group_name group_type",
    "group_parameter": "group_parameter group_param group_n",
    "train_fraction": "train_fraction frac_train train_frac training_fraction frac fraction train_ratio",
    "train_percent": "train_data_pct train_pct train_percent",
    "lr": "lr learning_rate",
    "weight_decay": "weight_decay wd",
    "betas": "betas",
}
"""Our name of a property → the names that programs give to it."""
_BY_NAME = {name: ours for ours, names in _NAMES.items() for name in names.split()}
_ACTIVATIONS = {
    **{"gelu_tanh": "gelu_new", "gelu_pytorch_tanh": "gelu_pytorch_tanh", "gelu_fast": "gelu_fast"},
    **{"swish": "silu", "quadratic": "quadratic", "square": "quadratic", "squared": "quadratic", "quad": "quadratic"},
}
_MODEL_TYPES: dict[str, dict[str, Any]] = {
    "gpt2": {"attention_dir": "causal"},
    "gpt_neo": {"attention_dir": "causal", "use_attn_scale": False},
    "gpt_neox": {"attention_dir": "causal", "positional_embedding_type": "rotary"},
    "gptj": {"attention_dir": "causal", "positional_embedding_type": "rotary", "parallel_attn_mlp": True}
    | {"rotary_adjacent_pairs": True},
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "gemma"),
        {"attention_dir": "causal", "positional_embedding_type": "rotary", "normalization_type": "RMS"},
    ),
}
"""What the model type in a config of the package transformers implies."""


def beside(path: Path) -> dict[str, Any]:
    """Return the content of the .json file that describes the weights in `path`; empty without one.

    The file has the name of the weights, or that name with "config" or "cfg" for "model", or one of `_BESIDE`.
    """
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", path.stem)
    own = [stem, *(re.sub(r"model|checkpoint|ckpt|weights", word, stem) for word in ("config", "cfg"))]
    own += [f"{stem}_config", f"{stem}_cfg", f"{stem}.config"]
    for name in dict.fromkeys([*own, *_BESIDE]):
        values = _read_json(path.parent / f"{name}.json")
        if values:
            return values
    return {}


def plain(config: Any) -> dict[str, Any]:
    """Return the numbers and short texts of a config, by their innermost name; empty for anything else.

    A name with different values in several tables is left out.
    """
    values: dict[str, Any] = {}
    conflicting: set[str] = set()
    waiting: list[tuple[Any, int]] = [(config, 0)]
    while waiting:
        table, depth = waiting.pop(0)
        fields = table.fields if isinstance(table, Inert) else table
        if not isinstance(fields, Mapping) or depth > _DEEPEST:
            continue
        for name, value in fields.items():
            if isinstance(value, Mapping) and "value" in value and not isinstance(value["value"], Mapping):
                value = value["value"]  # Weights & Biases stores a description next to each value.
            if isinstance(value, Mapping | Inert):
                waiting.append((value, depth + 1))
            elif isinstance(name, str) and _is_plain(value):
                if name in values and values[name] != value:
                    conflicting.add(name)
                values.setdefault(name, value)
    return {name: value for name, value in values.items() if name not in conflicting}


def properties(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties that a config names, under the names of `_NAMES` and with our spellings of the values."""
    read: dict[str, Any] = {}
    for name, value in values.items():
        ours = _BY_NAME.get(name) or _BY_NAME.get(name.lower())
        if ours and value is not None:
            read.setdefault(ours, value)
    read |= {name: value for name, value in _MODEL_TYPES.get(str(read.pop("model_type", "")), {}).items()}
    if "act_fn" in read:
        read["act_fn"] = activation(read["act_fn"])
    if read.pop("rotary", False) is True or not read.keys().isdisjoint({"rotary_pct", "rotary_dim", "rotary_base"}):
        read.setdefault("positional_embedding_type", "rotary")
    if (is_causal := read.pop("is_causal", None)) is not None and isinstance(is_causal, bool):
        read.setdefault("attention_dir", "causal" if is_causal else "bidirectional")
    percent = read.pop("train_percent", None)
    if isinstance(percent, int | float) and 0 < percent < 100:
        read.setdefault("train_fraction", percent / 100)
    return read


def activation(value: Any) -> str:
    """Return our spelling of an activation function, such as "relu" for "nn.ReLU()"."""
    name = re.sub(r"\(.*\)|<|>|function|class|'|at 0x\w+", "", str(value)).strip().rpartition(".")[2].lower().strip()
    return _ACTIVATIONS.get(name, name)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) == 2 and all(isinstance(item, int | float) for item in value)
    return isinstance(value, str | int | float | bool | None) and len(str(value)) <= _LONGEST


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_CONFIG:
            return {}
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return plain(values) if isinstance(values, Mapping) else {}
