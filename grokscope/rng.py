"""Random streams. Each is a function of (purpose, seed, index) alone, so a run need not save any generator state.

No function reads or changes a global generator.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def key(purpose: str, seed: int, index: int | str) -> bytes:
    """Return the 32-byte SHA-256 key of a stream. It depends on every argument and on nothing else."""
    return hashlib.sha256(f"{purpose}/{seed}/{index}".encode()).digest()


def integers(purpose: str, seed: int, index: int, n: int) -> np.ndarray:
    """Return n random 64-bit integers from the raw stream of NumPy's Philox, the same in every version of NumPy."""
    return np.random.Philox(key=np.frombuffer(key(purpose, seed, index)[:16], np.uint64)).random_raw(n)


def permutation(purpose: str, seed: int, index: int, n: int) -> np.ndarray:
    """Return a random permutation of 0 … n − 1, the same in every version of NumPy."""
    return np.argsort(integers(purpose, seed, index, n), kind="stable")


def generator(purpose: str, seed: int, index: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new torch generator. Its numbers also depend on the version of torch and on the device.

    On the CPU torch uses only 32 bits of a seed. Of 100,000 steps, about one pair therefore has the same numbers.
    """
    return torch.Generator(device).manual_seed(int.from_bytes(key(purpose, seed, index)[:7], "big"))


@contextmanager
def unchanged_global_generator() -> Iterator[None]:
    """Restore the state of Python's global generator after the block, because other packages may draw from it."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
