"""The user's own examples, which the run's config contains."""

import torch

from grokscope.config import TaskConfig, own_data
from grokscope.tasks import Task


def data(config: TaskConfig) -> Task:
    """Return the examples of `config.data`: from a .npz, .pt or .csv file, or from `Task.from_arrays`.

    In Python, ``Task.from_arrays(inputs, targets).to_config()`` makes the TaskConfig. On the command line,
    ``--task.name data --task.data @FILE`` reads a file, as does TOML. The run stores the examples in its config.
    """
    arrays = dict(own_data.decode(config.data))
    inputs, labels = (torch.from_numpy(own_data.as_tokens(arrays.pop(name))) for name in ("inputs", "labels"))
    about = {name: array.item() for name, array in arrays.items() if not array.ndim}
    if "is_commutative" in about:
        about["is_commutative"] = bool(about["is_commutative"])
    if "circle" in arrays:
        about["circle"] = torch.from_numpy(own_data.as_tokens(arrays["circle"]))
    if "names" in arrays:
        about["element_names"] = tuple(map(str, arrays["names"].tolist()))
    return Task.from_arrays(inputs, labels, **{"formula": "own data", **about, "name": config.name})
