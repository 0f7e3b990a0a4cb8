"""Chunks of a trajectory: the arrays do not depend on the size of a chunk."""

import pytest
import torch

from grokscope.measures._chunks import evaluate_in_chunks


@pytest.mark.parametrize("n_checkpoints", [1, 3, 7, 100])
def test_arrays_are_the_same_for_every_chunk_size(plant, n_checkpoints):
    trajectory = plant({step: {"embed.W_E": torch.full((12, 16), float(step))} for step in range(7)})
    lengths = []

    def evaluate(chunk) -> dict[str, torch.Tensor]:
        lengths.append(len(chunk))
        return {"W_E": chunk.parameter("embed.W_E"), "steps": torch.from_numpy(chunk.steps)}

    arrays = evaluate_in_chunks(trajectory, n_checkpoints, evaluate)
    assert torch.equal(arrays["W_E"], trajectory.parameter("embed.W_E"))
    assert arrays["steps"].tolist() == list(range(7))
    assert max(lengths) <= n_checkpoints
