"""Random streams: each a function of (purpose, seed, index) alone, so there is nothing to save or to restore.

Nothing here touches a global generator.
"""

import hashlib

import numpy as np
import torch


def key(purpose: str, seed: int, index: int | str) -> bytes:
    """Return 32 bytes that the arguments decide, every one of them."""
    return hashlib.sha256(f"{purpose}/{seed}/{index}".encode()).digest()


def integers(purpose: str, seed: int, index: int, n: int) -> np.ndarray:
    """Return n random 64-bit numbers: NumPy's Philox generator, whose raw stream never changes."""
    return np.random.Philox(key=np.frombuffer(key(purpose, seed, index)[:16], np.uint64)).random_raw(n)


def permutation(purpose: str, seed: int, index: int, n: int) -> np.ndarray:
    """Return a random order of 0 … n − 1, in every version of NumPy the same."""
    return np.argsort(integers(purpose, seed, index, n), kind="stable")


def generator(purpose: str, seed: int, index: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh torch generator; its numbers also depend on torch's version and the device.

    torch's generator on the CPU takes in 32 bits of its seed, so of 100,000 steps about one pair shares its numbers.
    """
    return torch.Generator(device).manual_seed(int.from_bytes(key(purpose, seed, index)[:7], "big"))
