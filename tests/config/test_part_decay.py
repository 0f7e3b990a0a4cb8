"""Weight decay by part: which parameters a term names."""

import pytest

from grokscope.config import OptimizerConfig, RunConfig, part_decay
from grokscope.errors import GrokscopeError

NAMES = (
    *("embed.W_E", "pos_embed.W_pos", "blocks.0.attn.W_Q", "blocks.0.attn.b_Q", "blocks.0.ln1.w", "blocks.0.ln1.b"),
    *("blocks.0.mlp.W_in", "blocks.0.mlp.b_in", "ln_final.w", "unembed.W_U", "head.weight", "head.bias"),
)


def named(text: str) -> set[str]:
    """Return the parameters whose decay differs from that of the others."""
    return {name for name, decay in part_decay.decays(text, 1.0, NAMES).items() if decay != 1}


@pytest.mark.parametrize(
    ("part", "members"),
    [
        ("embed", {"embed.W_E"}),
        ("unembed", {"unembed.W_U"}),
        ("attn", {"blocks.0.attn.W_Q", "blocks.0.attn.b_Q"}),
        ("biases", {"blocks.0.attn.b_Q", "blocks.0.mlp.b_in", "head.bias"}),
        ("layer_norms", {"blocks.0.ln1.w", "blocks.0.ln1.b", "ln_final.w"}),
        ("W_in", {"blocks.0.mlp.W_in"}),
    ],
)
def test_part_is_a_word_of_a_parameters_name(part: str, members: set[str]):
    assert named(f"{part} 0") == members


def test_last_term_that_applies_decides():
    decays = part_decay.decays("mlp 0.5 + biases 0 + mlp 2e-1 + b_in 3", 1.0, NAMES)
    assert decays["blocks.0.mlp.W_in"] == 0.2 and decays["blocks.0.mlp.b_in"] == 3
    assert decays["blocks.0.attn.b_Q"] == 0 and decays["embed.W_E"] == 1


def test_unknown_part_names_the_parts_of_the_model():
    with pytest.raises(GrokscopeError, match=r"'embd' is not a part.*Allowed for this model: W_E, .*unembed"):
        part_decay.decays("embd 0", 1.0, NAMES)


@pytest.mark.parametrize("text", ["embed", "embed 0 +", "embed -1", "embed 1001", "embed 0 biases 0", 5, "embed nan"])
def test_text_of_another_form_is_a_fault(text: object):
    (fault,) = RunConfig(optimizer=OptimizerConfig(decay_by_part=text)).faults()  # pyright: ignore[reportArgumentType]
    assert fault.startswith("optimizer.decay_by_part: ") and "joined by '+'" in fault


def test_adam_may_only_name_parts_without_decay():
    adam = {"name": "adam", "weight_decay": 0.0}
    assert not RunConfig(optimizer=OptimizerConfig(**adam, decay_by_part="embed 0")).faults()
    (fault,) = RunConfig(optimizer=OptimizerConfig(**adam, decay_by_part="embed 0 + mlp 1")).faults()
    assert "with 'adam', which has no decay" in fault
