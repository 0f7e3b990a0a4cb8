"""The memory that a training needs, estimated before its first step."""

from pathlib import Path

from grokscope.errors import GrokscopeError
from grokscope.training.loop import Setup

_MEMORY, _LIMIT = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")


def estimate_memory(setup: Setup) -> int:
    """Return about how many bytes the largest tensors of an update take at the same time.

    For a batch of B equations these are the logits, their log-softmax and its gradient (B · d_vocab_out each), and in
    each layer the neurons before and after the activation and their gradient (B · d_mlp each). For sequences, B
    counts positions. Evaluation runs in parts and needs less.
    """
    model, n_batch = setup.model, setup.dataset.batch_size
    loss_bytes = 8 if setup.config.loss_dtype == "float64" else 4
    n_positions = setup.dataset.task.n_ctx if setup.dataset.task.is_sequence else 1
    n_bytes_of_logits = (4 + 2 * loss_bytes) * setup.model.d_vocab_out
    return n_positions * n_batch * (n_bytes_of_logits + 3 * 4 * model.n_activations)


def require_memory(setup: Setup) -> None:
    """Raise GrokscopeError if an update cannot fit in the memory that is available on this machine's CPU."""
    n_bytes, available = estimate_memory(setup), available_memory()
    if setup.device.type == "cpu" and available is not None and n_bytes > available:
        raise GrokscopeError(
            f"An update with {setup.dataset.batch_size:,} equations needs about {n_bytes / 1e9:,.1f} GB of memory, "
            f"and {available / 1e9:,.1f} GB are available. Set batch_size, or use a smaller task.p, model.d_mlp or "
            f"task.train_fraction."
        )


def available_memory() -> int | None:
    """Return the free memory and swap in bytes, at most the container's limit; None on a system without /proc."""
    try:
        fields = dict(line.split(":") for line in _MEMORY.read_text().splitlines())
        available = sum(1024 * int(fields[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
    except (OSError, ValueError, KeyError):
        return None
    try:
        return min(available, int(_LIMIT.read_text()))
    except (OSError, ValueError):  # Without a limit, the file is absent or contains "max".
        return available
