"""The descriptions of the key frequencies, which several measures have among their constants."""

from grokscope.variable import Variable

_RULES = {
    "": "consensus of the rules",
    "_embedding": "by W_E",
    "_neuron_logits": "by W_L",
    "_neurons": "by the neurons",
    "_removal": "confirmed by removal",
}
KEY_FREQUENCY_VARIABLES = {
    f"key_frequencies{suffix}": Variable(
        "frequency" if not suffix else f"key frequency, {rule}",
        dims=(f"key_frequency{suffix}",),
        role="coordinate",
    )
    for suffix, rule in _RULES.items()
}
