"""Prints those of the given XLA flags that the installed jaxlib knows: it ends the process where it does not.

Usage: python scripts/known_flags.py --xla_one=1 --xla_other=2
"""

import os
import subprocess
import sys
from collections.abc import Sequence

# Where XLA reads its flags; all of JAX would take five times as long to start.
START = "from jaxlib import xla_client; xla_client.make_cpu_client()"


def are_known(flags: Sequence[str]) -> bool:
    """Whether JAX starts with these flags, asked in a process of its own."""
    settings = os.environ | {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
    return subprocess.run([sys.executable, "-c", START], env=settings, capture_output=True).returncode == 0


if __name__ == "__main__":
    asked = sys.argv[1:]
    print(*(asked if are_known(asked) else [flag for flag in asked if are_known([flag])]))
