"""The filter of `particles`, which needs NumPy 1, in a process and an environment of its own.

    .venv-particles/bin/python benchmarks/particles_apart.py MU RHO SIGMA N      data on the first line of its input

For every further line of its input it filters once, and prints the log evidence. It imports nothing of the library.
"""

import sys

import numpy as np
import particles
from particles import state_space_models


def main() -> None:
    """Filters as often as it is asked to."""
    mu, rho, sigma = map(float, sys.argv[1:4])
    model = state_space_models.StochVol(mu=mu, rho=rho, sigma=sigma)
    data = np.array([float(number) for number in sys.stdin.readline().split()])
    for _ in sys.stdin:
        feynman_kac = state_space_models.Bootstrap(ssm=model, data=data[:, None])
        filtered = particles.SMC(fk=feynman_kac, N=int(sys.argv[4]), resampling="systematic", ESSrmin=0.5)
        filtered.run()
        print(filtered.logLt, flush=True)


if __name__ == "__main__":
    main()
