"""Systematic resampling as a plain loop over points."""

import numpy as np


def ancestors(u, weights):
    """For each point (u + j) / N the particle whose share of the cumulated weights it falls into."""
    n, found, i, reached = len(weights), [], 0, weights[0]
    for j in range(n):
        while (u + j) / n >= reached and i < n - 1:
            i += 1
            reached += weights[i]
        found.append(i)
    return np.array(found)
