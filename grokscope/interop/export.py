"""Export: write checkpoints as folders that TransformerLens 3.9 and 4 load without grokscope."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.torch import save
from torch import Tensor

from grokscope._version import __version__
from grokscope.disk import atomic
from grokscope.errors import GrokscopeError
from grokscope.model import bridge
from grokscope.snapshot import Snapshot
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
"""The code for TransformerLens 3.9, inside the folder of a checkpoint. It also runs under `python -W error`."""
LOADING_4 = """\
import json
from pathlib import Path
from safetensors.torch import load_file
from transformer_lens import TransformerBridge, TransformerBridgeConfig
from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

config = TransformerBridgeConfig(**json.loads(Path("config.json").read_text()))
model = TransformerBridge.boot_native(config)
model.load_state_dict(convert_tl_checkpoint(load_file("model.safetensors"), config))"""
"""The code for TransformerLens 4, inside the folder of a checkpoint."""
_README = f"""\
# A checkpoint for TransformerLens

tokens.json has the meaning of each token, position and answer. The answer is at the last position,
`model(tokens)[:, -1]`. Load the checkpoint from inside this folder.

TransformerLens 3.9, as a HookedTransformer:

```python
{LOADING}
```

TransformerLens 4, as a TransformerBridge:

```python
{LOADING_4}
```
"""


def export(trajectory: Trajectory, steps: Iterable[int | np.integer], folder: Path | str) -> list[Path]:
    """Write each checkpoint to `folder`/step-N, in four files.

    - model.safetensors: HookedTransformer's complete state dict, with unprocessed parameters and buffers, so that
      `load_state_dict` accepts it strictly.
    - config.json: the arguments of HookedTransformerConfig. Parameters in float64, which only a trajectory in memory
      can have, also need `dtype=torch.float64`.
    - tokens.json: the meaning of each token, position and answer; the step; the run's config and digests.
    - README.md: the code that loads the checkpoint in TransformerLens 3.9, and in TransformerLens 4.

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
    selected, model = trajectory.select(steps), trajectory.config.model
    if model.act_fn == "quadratic" or model.attention_alpha != 1:
        raise GrokscopeError(
            "The arguments of HookedTransformerConfig cannot express constant attention or the quadratic activation, "
            "so the exported files would describe another network. `Snapshot.model` has both."
        )
    written = []
    for snapshot in selected:
        path = Path(folder) / f"step-{snapshot.step}"
        state = {name: tensor.contiguous() for name, tensor in _state_dict(trajectory, snapshot).items()}
        with atomic.build_folder(path) as building:
            atomic.write_atomic(building / "model.safetensors", save(state))
            atomic.write_atomic(building / "config.json", _json(trajectory.model.hooked_transformer_arguments))
            atomic.write_atomic(building / "tokens.json", _json(_tokens(trajectory, snapshot.step)))
            atomic.write_atomic(building / "README.md", _README.encode())
        written.append(path)
    return written


def _state_dict(trajectory: Trajectory, snapshot: Snapshot) -> dict[str, Tensor]:
    """Return HookedTransformer's state dict, after a check that TransformerLens has the architecture."""
    model = snapshot.model
    if bridge.is_needed():
        return bridge.state_dict(trajectory.model.hooked_transformer_arguments, snapshot.parameters)
    return model.state_dict()


def _tokens(trajectory: Trajectory, step: int) -> dict[str, object]:
    task = trajectory.task
    tokens = [*task.names, *task.signs]
    return {
        "task": task.formula,
        "tokens": tokens,
        "answers": list(task.answer_names) or tokens[: task.d_vocab_out],
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
