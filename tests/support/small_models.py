"""Small models with random parameters."""

import torch

from grokscope import tasks
from grokscope.config import ModelConfig, TaskConfig
from grokscope.model import families


def small_model(
    form: str = "a b =", *, p: int = 5, d_model: int = 8, n_heads: int = 2, d_mlp: int = 12, **settings
) -> tuple[families.Model, tasks.Task]:
    """Return a small model for addition mod p, and the task."""
    task = tasks.build(TaskConfig(p=p, form=form))
    config = ModelConfig(d_model=d_model, n_heads=n_heads, d_mlp=d_mlp, **settings)
    return families.build(config, task), task


def random_parameters(model: families.Model, seed: int = 0, scale: float = 0.5) -> dict[str, torch.Tensor]:
    """Return float64 parameters without zeros or ones, so that every parameter affects the logits."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) * scale + (name.endswith(".w"))
        for name, shape in model.shapes.items()
    }
