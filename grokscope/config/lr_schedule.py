"""The schedule of the learning rate: the factor on `optimizer.lr` at each update, as one string.

==================  ==================================================================================
``constant``        1 after the warm-up
``linear N``        from 1 at the end of the warm-up, in a straight line to 0 at update N
``cosine N``        from 1 at the end of the warm-up, along half a cosine to 0 at update N
``inverse_sqrt``    √(w / u) at update u, where w is the length of the warm-up, at least 1
==================  ==================================================================================

N is part of the schedule, because a run can be made longer afterwards, and its past updates must not change.
"""

import math
import re

FORMS = "'constant', 'linear N', 'cosine N' or 'inverse_sqrt', where the learning rate reaches 0 at update N"
_SCHEDULE = re.compile(r"(constant|inverse_sqrt)|(linear|cosine) ([1-9][0-9]{0,9})")


def is_schedule(text: object) -> bool:
    """Return whether a value is a schedule; `last_update` and `factor` accept it then."""
    return isinstance(text, str) and _SCHEDULE.fullmatch(text) is not None


def last_update(text: str) -> int | None:
    """Return the update N at which the learning rate reaches 0; None for a schedule that never does."""
    words = text.split()
    return int(words[1]) if len(words) > 1 else None


def factor(text: str, warmup_steps: int, u: int) -> float:
    """Return the factor on the learning rate of update number `u` = 0, 1, …

    - During the warm-up, u < w: u / w.
    - "linear N": (N − u) / (N − w), and 0 from update N on.
    - "cosine N": (1 + cos(π (u − w) / (N − w))) / 2, and 0 from update N on (Loshchilov & Hutter 2017, equation 5,
      without restarts).
    - "inverse_sqrt": √(max(w, 1) / u) (Vaswani et al. 2017, equation 3).

    Args:
        text: The schedule.
        warmup_steps: The length w of the warm-up; 0 for none.
        u: The number of the update.

    References:
        Loshchilov & Hutter 2017, "SGDR"; Vaswani et al. 2017, "Attention is all you need".
    """
    if u < warmup_steps:
        return u / warmup_steps
    end, kind = last_update(text), text.split()[0]
    if end is not None and u >= end:
        return 0.0
    if kind == "linear" and end is not None:
        return (end - u) / (end - warmup_steps)
    if kind == "cosine" and end is not None:
        return (1 + math.cos(math.pi * (u - warmup_steps) / (end - warmup_steps))) / 2
    if kind == "inverse_sqrt":
        return math.sqrt(max(warmup_steps, 1) / max(u, 1))
    return 1.0
