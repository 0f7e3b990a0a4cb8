"""What induction heads look at, on hand-made sequences and patterns."""

from pathlib import Path

import torch

import grokscope
from grokscope import measures
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.measures._head_scores import matching_positions, prefix_matching, previous_token

INPUTS = torch.tensor([[9, 1, 2, 3, 1, 2]])
LABELS = torch.tensor([[-100, -100, -100, -100, 2, -100]])


def test_matching_position_follows_the_earlier_occurrence():
    assert matching_positions(INPUTS, LABELS).nonzero().tolist() == [[0, 4, 2]]
    # Without a target there is no query, and a first occurrence has no earlier one.
    every = torch.zeros_like(INPUTS)
    assert matching_positions(INPUTS, every).nonzero().tolist() == [[0, 4, 2], [0, 5, 3]]


def test_scores_of_hand_made_heads_are_exact():
    uniform = torch.ones(6, 6, dtype=torch.float64).tril() / torch.arange(1, 7)[:, None]
    induction, previous = uniform.clone(), torch.eye(6, dtype=torch.float64).roll(-1, 1).tril()
    induction[4] = torch.eye(6, dtype=torch.float64)[2]
    pattern = torch.stack([uniform, induction, previous])[None]
    scores = prefix_matching(pattern, matching_positions(INPUTS, LABELS))
    torch.testing.assert_close(scores, torch.tensor([1 / 5, 1.0, 0.0], dtype=torch.float64))
    expected = sum(1 / (q + 1) for q in range(1, 6)) / 5
    torch.testing.assert_close(previous_token(pattern)[[0, 2]], torch.tensor([expected, 1.0], dtype=torch.float64))


def test_attention_of_sequences_agrees_with_hooked_transformer(tmp_path: Path):
    task = TaskConfig(name="induction", n_tokens=12, length=10, n_repeated=3, n_examples=30)
    model = ModelConfig(d_model=8, n_heads=2, d_mlp=8, n_layers=2)
    config = RunConfig(task=task, model=model, n_steps=2, checkpoints="every 2", evaluate_every=2)
    trajectory = grokscope.train(config, root=tmp_path, progress=False)
    series = measures.evaluate("attention", trajectory)
    inputs, labels = trajectory.task.inputs, trajectory.task.labels
    _, cache = trajectory.last.model.run_with_cache(inputs)
    matching = matching_positions(inputs, labels)
    for layer in range(2):
        pattern = cache["pattern", layer].double()
        expected = prefix_matching(pattern, matching).tolist(), previous_token(pattern).tolist()
        own = (series[name][-1, 2 * layer : 2 * layer + 2].tolist() for name in ("prefix_matching", "previous_token"))
        for values, exact in zip(own, expected, strict=True):
            torch.testing.assert_close(values, exact, rtol=1e-4, atol=1e-6)
    assert series["best_prefix_matching"][-1] == series["prefix_matching"][-1].max()
    assert series.words("heads") == ["layer 0 head 0", "layer 0 head 1", "layer 1 head 0", "layer 1 head 1"]
