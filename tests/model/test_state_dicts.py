"""State dicts from outside: one sentence for a prefix that all names share."""

import pytest

from grokscope import Trajectory
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.model import families
from grokscope.tasks import build


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module."])
def test_prefix_of_all_names_is_one_fault(tiny_config: RunConfig, prefix: str):
    parameters = families.build(tiny_config.model, build(tiny_config.task)).initialize(0)
    prefixed = {prefix + name: tensor for name, tensor in parameters.items()}
    with pytest.raises(GrokscopeError) as refusal:
        Trajectory.from_state_dicts(tiny_config, {0: prefixed})
    _, fault = str(refusal.value).splitlines()
    assert fault.strip() == f"step 0: all names begin with {prefix}, which a wrapper of the model adds; remove it"
    del prefixed[prefix + "embed.W_E"]
    with pytest.raises(GrokscopeError, match=f"all names begin with {prefix}"):
        Trajectory.from_state_dicts(tiny_config, {0: prefixed})


def test_missing_names_without_a_prefix_are_listed(tiny_config: RunConfig):
    parameters = families.build(tiny_config.model, build(tiny_config.task)).initialize(0)
    del parameters["embed.W_E"]
    with pytest.raises(GrokscopeError, match=r"step 0: embed\.W_E is missing$"):
        Trajectory.from_state_dicts(tiny_config, {0: parameters})
