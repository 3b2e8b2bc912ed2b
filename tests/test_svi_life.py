"""The life of a fit: resumed or saved it goes on as if unbroken; restarts, and the tail of its weights."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from game_programs import random_game
from numpyro.distributions import Categorical
from numpyro.infer import psis_diagnostic
from oracles import answers
from programs_more import PAIRS, listed

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.inference.particles import episodes
from rlinf_ppl.inference.particles.simulator import as_simulator
from rlinf_ppl.tasks import MDP, gallery

KEY = jax.random.key(0)
ADAM = optax.adam(0.05)


@cache
def grid():
    return models.single_agent(gallery.slippery_grid(), 20, beta=2.0)


@cache
def lottery():
    return models.single_agent(gallery.lottery(), 3)


@cache
def game():
    return models.quantal_response(random_game(3).task, 3, 1.5, -0.8)


# What is fitted, and how it is fitted and loaded.
WAYS = {
    "natural gradient": (grid, {}, {"step_size": 0.3}),
    "decisions at once": (game, {}, {}),
    "an optimizer": (lottery, {"optimizer": ADAM}, {}),
    "sampled": (lottery, {"optimizer": ADAM, "loss": svi.SampledELBO(10)}, {}),
    "score function": (lottery, {"optimizer": ADAM, "loss": svi.ScoreFunctionELBO(10)}, {}),
}


def same(fit, other):
    for name in ("losses", "elbo", "residual", "guide", "policy", "converged"):
        assert jax.tree.all(jax.tree.map(np.array_equal, getattr(fit, name), getattr(other, name))), name


@pytest.mark.parametrize("way", WAYS)
def test_a_fit_that_is_broken_off_goes_on_as_if_it_were_not(way, tmp_path):
    make, how, settings = WAYS[way]
    unbroken = svi.fit(make(), KEY, 143, tolerance=0.0, **how, **settings)
    broken = svi.fit(make(), KEY, 37, tolerance=0.0, **how, **settings)
    same(broken.resume(6).resume(100), unbroken)
    svi.save(broken, tmp_path / "fit.npz")
    loaded = svi.load(tmp_path / "fit.npz", make(), **how)
    same(loaded, broken)
    same(loaded.resume(106), unbroken)
    assert [path.name for path in tmp_path.iterdir()] == ["fit.npz"]


def test_verdicts_of_a_resumed_fit_come_at_the_same_steps():
    unbroken = svi.fit(lottery(), KEY, 5000, optimizer=optax.adam(0.1))
    assert unbroken.converged
    resumed = svi.fit(lottery(), KEY, 37, optimizer=optax.adam(0.1)).resume(4963)
    same(resumed, unbroken)


def test_a_converged_fit_adds_no_steps():
    fit = svi.fit(lottery(), KEY)
    same(fit.resume(10), fit)


def test_a_key_of_the_old_kind_is_saved_as_well(tmp_path):
    how = {"optimizer": ADAM, "loss": svi.SampledELBO(10)}
    fit = svi.fit(lottery(), jax.random.PRNGKey(0), 5, **how)
    svi.save(fit, tmp_path / "fit")
    same(svi.load(tmp_path / "fit", lottery(), **how).resume(5), fit.resume(5))


def test_restarts_return_the_best(capsys):
    def step(s):
        # Two actions that only pay together with the same one at the next step: several local optima.
        a = decide("a", Categorical(probs=jnp.full(2, 0.5)), 8.0)
        optimality(jnp.where(a == s, jnp.array([1.0, 1.2])[a], -1.0))
        return {"s": a}

    start = jnp.array([0.5, 0.5])
    program = ControlProgram(lambda: {"s": numpyro.sample("s", Categorical(probs=start))}, step, 2)
    settings = {"optimizer": optax.sgd(0.05), "num_steps": 20}
    alone = [svi.fit(program, key, **settings) for key in jax.random.split(KEY, 4)]
    best = svi.fit(program, KEY, num_restarts=4, **settings)
    assert float(best.elbo) == max(float(fit.elbo) for fit in alone) > min(float(fit.elbo) for fit in alone)


# Bad files


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file of a fit by Adam, and its bytes."""
    path = tmp_path_factory.mktemp("fits") / "fit.npz"
    svi.save(svi.fit(lottery(), KEY, 5, optimizer=ADAM), path)
    return path


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        svi.load(tmp_path / "nothing.npz", lottery())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_that_was_cut_short(share, saved, tmp_path):
    whole = saved.read_bytes()
    (tmp_path / "cut").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="cut holds no fit that can be read, or is damaged"):
        svi.load(tmp_path / "cut", lottery(), optimizer=ADAM)


def test_a_damaged_file(saved, tmp_path):
    whole = bytearray(saved.read_bytes())
    place = whole.index(b"guide['a'].npy") + 160
    whole[place] ^= 0xFF
    (tmp_path / "damaged").write_bytes(whole)
    with pytest.raises(ValueError, match="damaged"):
        svi.load(tmp_path / "damaged", lottery(), optimizer=ADAM)


def test_damage_anywhere_is_found_or_harmless(saved, tmp_path):
    whole = saved.read_bytes()
    places = np.random.default_rng(0).choice(len(whole), 300, replace=False)
    refused = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            loaded = svi.load(tmp_path / "damaged", lottery(), optimizer=ADAM)
        except ValueError:
            refused += 1
        else:
            same(loaded, svi.load(saved, lottery(), optimizer=ADAM))
    assert refused > 100


@pytest.mark.parametrize("name", ["losses", "elbo", "residual", "tolerance"])
@pytest.mark.parametrize("wrong", [np.zeros((2, 2)), np.asarray("x"), np.asarray(3)])
def test_numbers_of_another_shape_or_type(name, wrong, saved, tmp_path):
    with np.load(saved) as archive:
        np.savez(tmp_path / "fit.npz", **(dict(archive) | {name: wrong}))
    with pytest.raises(ValueError, match=f"is damaged: its {name} has the type"):
        svi.load(tmp_path / "fit.npz", lottery(), optimizer=ADAM)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError):
        svi.load(tmp_path, lottery())


@pytest.mark.parametrize("content", [b"hello", b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False"])
def test_a_file_of_another_kind(content, tmp_path):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(ValueError, match="holds no fit that can be read"):
        svi.load(tmp_path / "other", lottery())


def test_an_archive_of_something_else(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="not written by svi.save"):
        svi.load(tmp_path / "other.npz", lottery())


def test_an_array_alone(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ValueError, match="holds no fit that can be read"):
        svi.load(tmp_path / "array.npy", lottery())


def other_numbers():
    return models.single_agent(gallery.lottery(), 3, beta=5.0)


OTHERS = {
    "no optimizer": (lottery, {}, "holds a fit by an optimizer on ExactELBO.*the natural gradient.*same loss"),
    "another loss": (
        lottery,
        {"optimizer": ADAM, "loss": svi.SampledELBO(5)},
        r"to be loaded as one by .*SampledELBO\(5",
    ),
    "a smaller optimizer": (lottery, {"optimizer": optax.sgd(0.1)}, "4 arrays of its optimizer, but this one has 1"),
    "a larger optimizer": (
        lottery,
        {"optimizer": optax.adamw(optax.exponential_decay(1, 1, 1))},
        "4 arrays of its optimizer, but this one has 5",
    ),
    "another program": (grid, {"optimizer": ADAM}, "another program"),
    "another horizon": (lambda: lottery().unroll(4), {"optimizer": ADAM}, "another program"),
    "other numbers": (other_numbers, {"optimizer": ADAM}, "they differ in their numbers"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_file_of_another_fit(case, saved):
    make, how, message = OTHERS[case]
    with pytest.raises(ValueError, match=message):
        svi.load(saved, make(), **how)


def test_a_file_of_another_precision(saved):
    with np.load(saved) as archive:
        arrays = dict(archive)
    arrays["guide['a']"] = arrays["guide['a']"].astype(np.float32)
    np.savez(saved.parent / "single.npz", **arrays)
    with pytest.raises(ValueError, match="holds float32, and JAX runs in float64 here; set jax_enable_x64"):
        svi.load(saved.parent / "single.npz", lottery(), optimizer=ADAM)


# Importance weights


@pytest.mark.parametrize("name", ["discounted_final", "tempered", "zeros"])
def test_the_mean_weight_is_the_evidence(name):
    program = PAIRS[name].control()
    simulator = as_simulator(program, exact.solve(program), None)
    weights = np.exp(episodes.log_weights(simulator, KEY, 40000)[0])
    error = weights.std() / np.sqrt(len(weights))
    assert abs(weights.mean() - np.exp(answers.log_evidence(listed(name)))) < 5 * error


def walk_of(reward):
    """Ten steps of a fair coin that pays a reward for heads, among three states by chance."""
    rng = np.random.default_rng(2)
    transition = rng.dirichlet(np.ones(3), size=(3, 2))
    table = reward * rng.normal(size=(3, 2))
    return models.single_agent(MDP(transition, table, np.full(3, 1 / 3)), 10)


@pytest.mark.slow
def test_a_policy_near_the_posterior_has_a_light_tail():
    program = walk_of(1.0)
    fitted = svi.k_hat(program, KEY, exact.solve(program).policy, 4000)
    prior = svi.k_hat(walk_of(4.0), KEY, exact.prior_policy(walk_of(4.0)), 4000)
    assert fitted < 0.5 < 0.7 < prior


@pytest.mark.slow
def test_k_hat_is_numpyros_on_the_unrolled_program():
    program = walk_of(3.0)
    policy = exact.prior_policy(program)
    params = {"a_logits": jnp.zeros((10, 3, 2))}
    keys = jax.random.split(KEY, 8)
    ours = [svi.k_hat(program, key, policy, 4000) for key in keys]
    theirs = [psis_diagnostic(key, params, program.model, program.guide, num_particles=4000) for key in keys]
    error = np.sqrt((np.var(ours) + np.var(theirs)) / 7)
    assert abs(np.mean(ours) - np.mean(theirs)) < 4 * error and error < 0.1


@pytest.mark.parametrize("double", [True, False])
def test_a_hopeless_policy_is_found_out_in_either_precision(double):
    """Weights that lie hundreds of nats apart: in single precision the tail's own exponentials vanish."""
    with jax.enable_x64(double):
        program = walk_of(300.0)
        assert svi.k_hat(program, KEY, exact.prior_policy(program)) > 1


def test_weights_that_are_all_the_same_have_no_tail():
    def step(s):
        a = decide("a", Categorical(probs=jnp.full(2, 0.5)))
        optimality(1.0 * a + 0.3 * s)
        return {"s": a}

    program = ControlProgram(lambda: {"s": jnp.int32(0)}, step, 4, sizes={"s": 2})
    assert svi.k_hat(program, KEY, exact.solve(program).policy) == -np.inf


def test_a_policy_that_only_does_what_the_model_forbids():
    def step(s):
        a = decide("a", Categorical(probs=jnp.array([0.0, 1.0])))
        optimality(1.0 * a)
        return {"s": a}

    program = ControlProgram(lambda: {"s": jnp.int32(0)}, step, 2, sizes={"s": 2})
    assert svi.k_hat(program, KEY, {"a": jnp.array([1.0, 0.0])}) == np.inf


@pytest.mark.parametrize(
    "make, number, message",
    [
        (lottery, 10, "num_samples must be at least 25"),
        (
            lambda: models.single_agent(gallery.lottery(), None, discount=0.9),
            100,
            "infinite horizon has no trajectories",
        ),
        (game, 100, "no joint model"),
    ],
)
def test_programs_and_numbers_without_a_k_hat(make, number, message):
    with pytest.raises(ValueError, match=message):
        svi.k_hat(make(), KEY, exact.prior_policy(make()), number)
