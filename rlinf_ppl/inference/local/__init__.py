"""Nonlinear systems, one trajectory after the other: the linear-Gaussian program about one, and what comes of it."""
