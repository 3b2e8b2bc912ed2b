"""Engines over several devices: arguments laid over a mesh give the same answers, laid over the same devices.

The number of devices is settled when JAX starts, so each case runs in a process of its own, on a CPU that JAX takes
for two.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PREAMBLE = """
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlinf_ppl import models
from rlinf_ppl.inference import exact, smc, stein, svi
from rlinf_ppl.tasks import MountainHike, gallery

jax.config.update("jax_enable_x64", True)
assert jax.device_count() == 2
spread = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec("batch"))
task = gallery.slippery_grid()
keys = jax.random.split(jax.random.key(0), 4)
betas = jnp.array([0.5, 1.0, 2.0, 4.0])


def check(function, batch):
    alone = jax.jit(jax.vmap(function))(jax.device_put(batch, jax.devices()[0]))
    shared = jax.jit(jax.vmap(function))(jax.device_put(batch, spread))
    assert jax.tree.leaves(shared)
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(shared), strict=True):
        assert len(one.sharding.device_set) == 1
        assert {s.device for s in other.addressable_shards} == set(jax.devices())
        assert [s.data.shape[0] for s in other.addressable_shards] == [2, 2]
        np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-12)
"""
CASES = {
    "particles_over_keys": """
program = models.single_agent(task, 6)
check(lambda key: smc.run(program, key, 64).log_evidence, keys)
""",
    "particles_over_keys_and_temperatures": """
program = lambda beta: models.single_agent(task, 6, beta)
check(lambda both: smc.run(program(both[1]), both[0], 64).log_evidence, (keys, betas))
""",
    "stein_particles_over_keys": """
program, place = models.mountain_hike(MountainHike()), {"p": jnp.array([0.3, 0.45])}
check(lambda key: stein.sample(program, key, "a", place, num_particles=8, num_steps=10).values, keys)
""",
    "fits_over_keys": """
def fitted(key):
    found = svi.fit(models.single_agent(task, 6), key, 20)
    return found.policy, found.elbo, found.losses


check(fitted, keys)
""",
    "fits_of_networks_over_keys_and_temperatures": """
def fitted(both):
    program = models.single_agent(gallery.lottery(), 2, both[1])
    guide = svi.networks(program, both[0], width=4, depth=1)
    return svi.fit(program, both[0], 20, guide=guide, loss=svi.ParticleELBO(4, 2), optimizer=optax.adam(0.1)).guide


check(fitted, (keys, betas))
""",
    "exact_solutions_over_temperatures": """
def solved(beta):
    found = exact.solve(models.single_agent(task, 6, beta))
    return found.policy, found.value, found.elbo


check(solved, betas)
""",
    "exact_solutions_without_end_over_temperatures": """
def solved(beta):
    found = exact.solve(models.single_agent(task, None, beta, discount=0.9))
    return found.policy, found.value


check(solved, betas)
""",
    "gradients_over_temperatures": """
check(jax.grad(lambda beta: exact.solve(models.single_agent(task, 6, beta)).elbo), betas)
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_devices_give_the_answers_of_one(case):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREAMBLE + CASES[case]],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
