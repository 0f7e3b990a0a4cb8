"""Export: checkpoints as folders that HookedTransformer loads without grokscope."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.torch import save

from grokscope._version import __version__
from grokscope.disk import atomic
from grokscope.trajectory import Trajectory

LOADING = """\
model = HookedTransformer(HookedTransformerConfig(**json.load(open("config.json"))))
model.load_state_dict(load_file("model.safetensors"))"""
"""How a checkpoint's folder is loaded, in the folder; `load_file` is safetensors.torch's."""


def export(trajectory: Trajectory, steps: Iterable[int | np.integer], folder: Path | str) -> list[Path]:
    """Write a folder for each step, `folder`/step-N, and return them; what else lies in `folder` stays.

    - model.safetensors: HookedTransformer's whole state dict in its names and shapes, parameters unprocessed, and
      its buffers, so that it loads strictly;
    - config.json: the arguments of HookedTransformerConfig. Parameters in float64, which only a trajectory in memory
      can have, need `dtype=torch.float64` besides;
    - tokens.json: what each token, position and answer stands for, and the step, config and digest of the run.

    The logits at the last position are the checkpoint's own; the loss is not HookedTransformer's next-token loss.
    Raise GrokscopeError for a step without a checkpoint before anything is written, for a folder that exists, and for
    an I/O error. Costs an import of TransformerLens, some seconds.
    """
    chosen = trajectory.select(steps)
    written = []
    for snapshot in chosen:
        path = Path(folder) / f"step-{snapshot.step}"
        state = {name: tensor.contiguous() for name, tensor in snapshot.model.state_dict().items()}
        with atomic.building(path) as place:
            atomic.write_atomic(place / "model.safetensors", save(state))
            atomic.write_atomic(place / "config.json", _json(trajectory.model.hooked_transformer_arguments))
            atomic.write_atomic(place / "tokens.json", _json(_tokens(trajectory, snapshot.step)))
        written.append(path)
    return written


def _tokens(trajectory: Trajectory, step: int) -> dict[str, object]:
    task = trajectory.task
    elements = list(task.group.elements) if task.group else [str(i) for i in range(task.n_elements)]
    positions = trajectory.config.task.form.split()
    signs = ["=", "∘"][: task.d_vocab - task.n_elements]
    return {
        "task": task.formula,
        "tokens": elements + signs,
        "answers": elements[: task.d_vocab_out],
        "positions": positions,
        "answer_position": len(positions) - 1,
        "step": step,
        "run": trajectory.config.to_dict(),
        "config_digest": trajectory.config.digest,
        "parameters_digest": trajectory.select([step]).digest,
        "grokscope": __version__,
    }


def _json(values: object) -> bytes:
    return json.dumps(values, indent=2, ensure_ascii=False).encode()
