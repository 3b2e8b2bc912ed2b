"""Particles that take the steps of any program: their laws, moves, filters and histories."""
