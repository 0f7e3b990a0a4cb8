"""The fixtures of small sweeps."""

from support.sweeps import grokscope as grokscope
from support.sweeps import install_probe as install_probe
from support.sweeps import make_probe as make_probe
from support.sweeps import partial_sweep as partial_sweep
from support.sweeps import two_cells as two_cells
from support.sweeps import uninterrupted as uninterrupted
from support.sweeps import wait_until as wait_until
from support.sweeps import write_sweep as write_sweep
