"""Export: write checkpoints as folders that HookedTransformer loads without grokscope."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.torch import save

from grokscope._version import __version__
from grokscope.disk import atomic
from grokscope.trajectory import Trajectory

LOADING = """\
import json
import warnings
from pathlib import Path
from safetensors.torch import load_file
from transformer_lens import HookedTransformer, HookedTransformerConfig

warnings.filterwarnings("ignore", message="HookedTransformer is deprecated")
model = HookedTransformer(HookedTransformerConfig(**json.loads(Path("config.json").read_text())))
model.load_state_dict(load_file("model.safetensors"))"""
"""The code that loads a checkpoint from inside its folder. It is silent, so it also runs under `python -W error`."""


def export(trajectory: Trajectory, steps: Iterable[int | np.integer], folder: Path | str) -> list[Path]:
    """Write each checkpoint to `folder`/step-N, in three files.

    - model.safetensors: HookedTransformer's complete state dict, with unprocessed parameters and buffers, so that
      `load_state_dict` accepts it strictly.
    - config.json: the arguments of HookedTransformerConfig. Parameters in float64, which only a trajectory in memory
      can have, also need `dtype=torch.float64`.
    - tokens.json: the meaning of each token, position and answer; the step; the run's config and digests.

    The logits at the last position are the checkpoint's logits. HookedTransformer's own loss is the next-token loss,
    which is a different loss. The first export in a process imports TransformerLens, which takes some seconds.

    Args:
        trajectory: The trajectory whose checkpoints are exported.
        steps: Steps that have a checkpoint.
        folder: The folder to write into. Its other contents are left alone.

    Returns:
        The folders that were written, in the order of `steps`.

    Raises:
        GrokscopeError: A step has no checkpoint (then nothing is written), a folder exists already, or writing fails.
    """
    selected = trajectory.select(steps)
    written = []
    for snapshot in selected:
        path = Path(folder) / f"step-{snapshot.step}"
        state = {name: tensor.contiguous() for name, tensor in snapshot.model.state_dict().items()}
        with atomic.build_folder(path) as building:
            atomic.write_atomic(building / "model.safetensors", save(state))
            atomic.write_atomic(building / "config.json", _json(trajectory.model.hooked_transformer_arguments))
            atomic.write_atomic(building / "tokens.json", _json(_tokens(trajectory, snapshot.step)))
        written.append(path)
    return written


def _tokens(trajectory: Trajectory, step: int) -> dict[str, object]:
    task = trajectory.task
    elements = list(task.group.elements) if task.group else [str(i) for i in range(task.n_elements)]
    return {
        "task": task.formula,
        "tokens": [*elements, *task.signs],
        "answers": elements[: task.d_vocab_out],
        "positions": task.position_names,
        "answer_position": task.answer_position,
        "step": step,
        "run": trajectory.config.to_dict(),
        "config_digest": trajectory.config.digest,
        "parameters_digest": trajectory.select([step]).digest,
        "grokscope": __version__,
    }


def _json(values: object) -> bytes:
    return json.dumps(values, indent=2, ensure_ascii=False).encode()
