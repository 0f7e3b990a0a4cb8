"""Configs built from nested plain values."""

from typing import Any

from grokscope.config import (
    MlpConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TaskConfig,
)

# For each field: a wrong value, what the message must say is allowed, and another good value.
FIELDS: dict[str, tuple[Any, str, Any]] = {
    "task.name": ("additon", "addition", "division"),
    "task.p": (1, "from 2 to 2003", 11),
    "task.group": ("S7", "S2 to S6, A3 to A6", "D7"),
    "task.table": (3, "rows of numbers", "0 1; 1 ."),
    "task.train_fraction": (1.0, "between 0 and 1", 0.5),
    "task.form": ("a+b", "'a b =' or 'a ∘ b =' or 'eos a ∘ b = c eos'", "a ∘ b ="),
    "task.outliers": (-1, "from 0", 5),
    "task.random_labels": ("yes", "true or false", True),
    "task.split": ("halves", "'equations' or 'pairs' or 'nanda2023'", "pairs"),
    "task.n_operands": (7, "from 2 to 6", 3),
    "task.zero_divisors": (2, "true or false", False),
    "task.expression": (3, "an expression in the operands", "a - b"),
    "task.sizes": ((7, 11), "a number from 2 to 2003 for each operand", "7 11 13"),
    "task.n_digits": (0, "from 1 to 30", 2),
    "task.base": (1, "from 2 to 1000", 7),
    "task.n_bits": (61, "from 1 to 60", 8),
    "task.n_parity_bits": (0, "from 1 to 60", 2),
    "task.n_tokens": (1, "from 2 to 5000", 50),
    "task.length": (3, "from 4 to 2000", 12),
    "task.n_repeated": (1, "from 2 to 1000", 3),
    "task.n_examples": (1, "from 2 to 10000000", 100),
    "task.data_seed": (-1, "from 0", 1),
    "task.fresh": ("yes", "true or false", True),
    "task.mixture": (5, "two or more tasks", "addition p=5; division p=7"),
    "task.data": (1, "@FILE with a .npz", "x"),
    "task.train_set": ("0xff", "in hexadecimal", "f" * 4 + "0" * 28),
    "model.n_layers": (0, "from 1 to 12", 2),
    "model.d_model": (-4, "from 2 to 4096", 64),
    "model.n_heads": (65, "from 1 to 64", 8),
    "model.d_mlp": (0.5, "from 1 to 16384", 16),
    "model.act_fn": ("tanh", "'relu' or 'gelu'", "gelu"),
    "model.normalization_type": ("BN", "none or 'LN' or 'LNPre'", "LN"),
    "model.positions": ("absolute", "'learned' or 'sinusoidal'", "sinusoidal"),
    "model.biases": ("some", "'all' or 'mlp' or 'none'", "all"),
    "model.init": ("zero", "'normal' or 'torch' or 'nanda2023'", "torch"),
    "model.init_scale": (0.0, "above 0", 2.0),
    "model.d_vocab_out": (1, "from 2 to 1000000, or none", 200),
    "model.family": ("perceptron", "mlp, module, transformer", "mlp"),
    "model.d_head": (0, "from 1 to 4096, or none", 16),
    "model.attn_only": ("yes", "true or false", True),
    "model.attention_dir": ("backward", "'causal' or 'bidirectional'", "bidirectional"),
    "model.attention_alpha": (1.5, "from 0 to 1", 0.0),
    "model.use_attn_scale": (0, "true or false", False),
    "model.gated_mlp": (1, "true or false", True),
    "model.parallel_attn_mlp": ("no", "true or false", True),
    "model.options": ("[1, 2]", "a JSON object", '{"n_key_value_heads": 1}'),
    "model.mlp.operands": ("binary", "'one-hot' or 'embedded' or 'embedded separately'", "embedded"),
    "model.mlp.combination": ("averaged", "'concatenated' or 'summed'", "summed"),
    "model.mlp.d_embed": (0, "from 1 to 4096", 32),
    "model.mlp.n_layers": (0, "from 1 to 12", 2),
    "model.mlp.d_hidden": (0, "from 1 to 16384", 64),
    "model.mlp.act_fn": ("silu", "'relu' or 'gelu' or 'quadratic' or 'tanh'", "quadratic"),
    "model.mlp.biases": ("some", "true or false", True),
    "optimizer.name": ("adamm", "adamw, muon, sgd", "sgd"),
    "optimizer.lr": (-1e-3, "above 0", 1e-2),
    "optimizer.weight_decay": (-1.0, "from 0 to 1000", 0.5),
    "optimizer.decay_by_part": ("embed", "joined by '+'", "embed 0 + biases 0.5"),
    "optimizer.decay_centre": ("mean", "'zero' or 'initialization'", "initialization"),
    "optimizer.betas": ([0.9, 1.0], "from 0 to below 1", [0.8, 0.9]),
    "optimizer.momentum": (1.0, "from 0 to below 1", 0.9),
    "optimizer.muon_momentum": (1.0, "from 0 to below 1", 0.9),
    "optimizer.warmup_steps": (-1, "from 0", 3),
    "optimizer.schedule": ("cosine", "'cosine N'", "linear 900"),
    "optimizer.gradient_filter": ("ema", "none or 'grokfast_ema' or 'grokfast_ma' or 'orthogonal'", "grokfast_ma"),
    "optimizer.filter_alpha": (1.0, "from 0 to below 1", 0.9),
    "optimizer.filter_lambda": (-0.5, "from 0 to 1000", 5.0),
    "optimizer.filter_window": (1001, "from 1 to 1000", 50),
    "optimizer.gradient_clip": (-1.0, "from 0 to 1000000", 1.0),
    "optimizer.norm_clamp": (-1.0, "from 0 to 1000000", 20.0),
    "optimizer.update_noise": (-1.0, "from 0 to 1000", 1.0),
    "optimizer.weight_noise": (1001.0, "from 0 to 1000", 0.01),
    "optimizer.sam_radius": (-0.1, "from 0 to 1000", 0.05),
    "checkpoints": ("evry 100", "every K", "every 7"),
    "max_checkpoints": (1, "from 2", 500),
    "n_steps": (0, "from 1", 1000),
    "stop": ("test_accuracy = 0.99", "joined by 'or'", "test_loss < 1e-5"),
    "batch_size": (0, "from 1, or none", 64),
    "batch_share": (0.0, "above 0 and up to 1", 0.5),
    "evaluate_every": (0, "from 1", 3),
    "loss": ("hinge", "'softmax' or 'stablemax' or 'mse'", "stablemax"),
    "loss_dtype": ("float16", "'float32' or 'float64'", "float32"),
    "matrix_products": ("float16", "'float32' or 'tf32' or 'bfloat16'", "tf32"),
    "residual_dropout": (1.0, "from 0 to below 1", 0.1),
    "device": ("tpu", "'cpu', 'cuda'", "cuda:1"),
    "threads": (0, "'auto' or a whole number", 2),
    "split_seed": (-1, "from 0", 1),
    "init_seed": (1.5, "from 0", 1),
    "initialization": ("weights.pt", "as --init-from writes it", "0" * 64),
    "training_seed": ("one", "from 0", 1),
}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Return {"task.p": 7} as {"task": {"p": 7}}."""
    tables: dict[str, Any] = {}
    for name, value in values.items():
        *path, key = name.split(".")
        table = tables
        for part in path:
            table = table.setdefault(part, {})
        table[key] = value
    return tables


def construct(values: dict[str, Any]) -> RunConfig:
    """Construct a config in Python, without any check, from values by full name."""
    tables = nested(values)
    model = tables.get("model")
    if isinstance(model, dict) and isinstance(model.get("mlp"), dict):
        model["mlp"] = MlpConfig(**model["mlp"])
    for name, kind in (("task", TaskConfig), ("model", ModelConfig), ("optimizer", OptimizerConfig)):
        if isinstance(tables.get(name), dict) and name not in values:
            tables[name] = kind(**tables[name])
    return RunConfig(**tables)
