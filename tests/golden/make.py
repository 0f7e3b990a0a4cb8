"""Make the golden run of the present format and arithmetic: ``python tests/golden/make.py``.

This is done once per format and per version of the arithmetic (`NUMERICS`), before its release. The run is never
remade, because it tests that later versions can read the files of this one.
"""

import sys
from pathlib import Path

from grokscope import Trajectory, measures, training
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.environment import NUMERICS
from grokscope.store.record import FORMAT
from grokscope.training import checkpointer

if __name__ == "__main__":
    checkpointer.SEGMENT_CHECKPOINTS = 2
    config = RunConfig(
        task=TaskConfig(name="subtraction", p=7, train_fraction=0.6, form="a ∘ b ="),
        model=ModelConfig(d_model=12, n_heads=3, d_mlp=16, normalization_type="LN", biases="all"),
        optimizer=OptimizerConfig(lr=1e-2, warmup_steps=4),
        n_steps=40,
        batch_size=8,
        checkpoints="every 10",
        evaluate_every=5,
    )
    run = training.train(config, f"format{FORMAT}-numerics{NUMERICS}", Path(__file__).parent).path
    assert run is not None
    training.densify(run, 12, 13)
    measures.saved("weight_norm", Trajectory.open(run))
    (run / "lock").unlink()
    sys.stdout.write(f"made {run}\n")
