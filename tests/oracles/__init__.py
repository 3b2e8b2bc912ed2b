"""Truths in plain NumPy that the library is tested against; nothing here imports the library or JAX."""
