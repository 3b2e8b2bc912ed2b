"""Prints the Python and the versions of what the library rests on, on one line."""

import platform
from importlib.metadata import version

NAMES = "jax jaxlib numpyro equinox numpy arviz xarray typer".split()

print(f"Python {platform.python_version()}:", ", ".join(f"{name} {version(name)}" for name in NAMES), flush=True)
