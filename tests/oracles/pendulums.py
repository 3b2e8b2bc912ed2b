"""Chains of links by Lagrange's equations with numbers for derivatives, in plain NumPy."""

import numpy as np


def accelerations(angles, speeds, torques, masses, lengths, centers, inertias, frictions, gravity=9.81):
    """Accelerations of relative angles, the first from the upright: d/dt dL/dspeed - dL/dangle = torque - friction.

    The kinetic energy is T = sum_k m_k |v_k|^2 / 2 + I_k (absolute speed_k)^2 / 2 with v_k the velocity of link k's
    centre, and the potential one V = g sum_k m_k height_k.
    """
    n = len(angles)

    def centers_of(angles):
        phi, joint, places = np.cumsum(angles), np.zeros(2), []
        for k in range(n):
            way = np.array([np.sin(phi[k]), np.cos(phi[k])])
            places.append(joint + centers[k] * way)
            joint = joint + lengths[k] * way
        return np.array(places)

    def jacobian(function, x, h=1e-6):
        return np.stack([(function(x + h * e) - function(x - h * e)) / (2 * h) for e in np.eye(len(x))], -1)

    def mass(angles):
        slopes, below = jacobian(centers_of, angles), np.tril(np.ones((n, n)))
        turning = below.T @ np.diag(inertias) @ below
        return turning + sum(masses[k] * slopes[k].T @ slopes[k] for k in range(n))

    def potential(angles):
        return gravity * np.sum(masses * centers_of(angles)[:, 1])

    changes = jacobian(mass, angles, 1e-5)  # (n, n, angle)
    twisting = np.einsum("ijk,j,k->i", changes, speeds, speeds) - 0.5 * np.einsum("jki,j,k->i", changes, speeds, speeds)
    force = torques - frictions * speeds - twisting - jacobian(potential, angles)
    return np.linalg.solve(mass(angles), force)
