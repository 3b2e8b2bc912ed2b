"""The coefficients of a polynomial of degree at most 2 from its values alone, in plain NumPy."""

import numpy as np


def monomials(points):
    """All products of at most two coordinates, the constant last: (points, monomials), and each one's two places."""
    whole = np.concatenate([points, np.ones((len(points), 1))], 1)
    places = [(i, j) for i in range(whole.shape[1]) for j in range(i, whole.shape[1])]
    return np.stack([whole[:, i] * whole[:, j] for i, j in places], 1), places


def quadratic(function, size, tolerance=1e-9):
    """The symmetric M of function(z) = [z, 1]' M [z, 1]; fails where the function is none."""
    rng = np.random.default_rng(0)
    matrix = np.zeros((size + 1, size + 1))
    fitted, fresh = rng.normal(size=(40, size)), 3 * rng.normal(size=(10, size))
    design, places = monomials(fitted)
    found = np.linalg.lstsq(design, np.array([function(z) for z in fitted]), rcond=None)[0]
    for (i, j), coefficient in zip(places, found, strict=True):
        matrix[i, j] += coefficient / 2
        matrix[j, i] += coefficient / 2
    scale = max(1.0, np.abs(matrix).max())
    for z in fresh:
        whole = np.append(z, 1.0)
        assert abs(function(z) - whole @ matrix @ whole) < tolerance * scale, "no quadratic"
    return matrix


def affine(function, size):
    """The H of function(z) = H [z, 1]."""
    offset = np.asarray(function(np.zeros(size)))
    columns = [np.asarray(function(z)) - offset for z in np.eye(size)]
    fresh = np.random.default_rng(0).normal(size=size)
    np.testing.assert_allclose(function(fresh), np.stack(columns, 1) @ fresh + offset, rtol=1e-10, atol=1e-10)
    return np.stack([*columns, offset], 1)
