"""The message for options out of range."""

import pytest

from grokscope.errors import GrokscopeError
from grokscope.measures._ranges import check_ranges


def test_every_option_out_of_range_is_named_and_no_other():
    with pytest.raises(GrokscopeError) as refused:
        check_ranges(("n", 0, False, "from 1"), ("width", 0.1, True, "above 0"), ("rho", -1.0, False, "above 0"))
    assert str(refused.value) == "n: 0. Allowed: from 1. rho: -1.0. Allowed: above 0."


def test_options_in_range_pass():
    check_ranges(("n", 1, True, "from 1"))
