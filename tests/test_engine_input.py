"""What a tired user hands to the engines of particles and networks, and to files of fits, and what is said to it.

Users run without the checks of annotations, so these do.
"""

from functools import cache

import jax
import jax.numpy as jnp
import jaxtyping
import numpyro
import optax
import pytest
from numpyro.distributions import Categorical, MultivariateNormal, Normal

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact, q_learning, smc, svi
from rlinf_ppl.inference.fitting.networks import PolicyFunction
from rlinf_ppl.inference.particles.simulator import as_simulator

KEY = jax.random.key(0)
HALF = jnp.array([0.5, 0.5])
PARTICLES = {"loss": svi.ParticleELBO(4), "optimizer": optax.sgd(0.1)}
CRITIC = {"loss": svi.ActorCritic(4, 4, 8), "optimizer": optax.sgd(0.1)}


@pytest.fixture(autouse=True)
def unchecked_annotations():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def coins(actions=2, remembers=False):
    """A coin a step; one that remembers has its last decision as a second state variable."""

    def initial():
        return {"s": numpyro.sample("s", Categorical(probs=HALF))} | ({"z": 0} if remembers else {})

    def step(s, **memory):
        a = decide("a", Categorical(probs=jnp.full(actions, 1 / actions)))
        optimality(1.0 * a * s * sum(memory.values(), 1))
        s_next = numpyro.sample("s_next", Categorical(probs=HALF))
        return {"s": s_next} | ({"z": a} if remembers else {})

    return ControlProgram(initial, step, 2, sizes={"z": actions} if remembers else None)


def pushed():
    """A real number that is pushed to one of two sides."""

    def step(x):
        side = decide("side", Categorical(probs=HALF))
        push = decide("push", Normal(0.0, 1.0))
        optimality(-((x + push - 2.0 * side) ** 2))
        return {"x": x + push}

    return ControlProgram(lambda: {"x": numpyro.sample("x", Normal(0.0, 1.0))}, step, 2)


def lone():
    """A real number that is pushed."""

    def step(x):
        push = decide("push", Normal(0.0, 1.0))
        optimality(-((x + push) ** 2))
        return {"x": x + push}

    return ControlProgram(lambda: {"x": numpyro.sample("x", Normal(0.0, 1.0))}, step, 2)


@cache
def learned(make, decision):
    """What a fit of networks has as a decision's policy."""
    network = svi.networks(make(), KEY, width=4, depth=1)[decision]
    return PolicyFunction(as_simulator(make(), None, None), decision, network)


@cache
def several():
    return jax.vmap(lambda key: svi.fit(coins(), key, 2))(jax.random.split(KEY, 2))


def particles(program=coins, **aid):
    return lambda: smc.run(program(), KEY, 4, **aid)


def foreign(options, make):
    """A fit that starts from the networks of another program."""
    return lambda: svi.fit(coins(), KEY, 1, guide=svi.networks(make(), KEY), **options)


def asked(**at):
    return lambda: learned(pushed, "push")(**at)


WRONG = {
    "key_first": (lambda: smc.run(KEY, coins()), "takes a ControlProgram first.*got PRNGKeyArray"),
    "threshold": (particles(threshold="half"), "threshold must be one number; got 'half'"),
    "twist_by_name": (particles(twist="value"), "twist must be an array, such as a solution's.*got 'value'"),
    "twist_a_solution": (lambda: smc.run(coins(), KEY, 4, twist=exact.solve(coins())), "twist must be .*got Solution"),
    "twist_of_many": (
        particles(twist=lambda s: jnp.zeros(2)),
        r"twist returned an array of shape \(2,\) for one state",
    ),
    "twist_of_text": (particles(twist=lambda s: "s"), "what twist returns must be one number; got 's'"),
    "proposal_by_name": (particles(proposal={"a": "prior"}), r"proposal\['a'\] must be an array.*got 'prior'"),
    "proposal_of_numbers": (
        particles(proposal={"a": lambda s: HALF}),
        r"proposal\['a'\] returned ArrayImpl; it must return a NumPyro distribution",
    ),
    "proposal_of_three": (
        particles(proposal={"a": lambda s: Categorical(probs=jnp.ones(3) / 3)}),
        r"proposal\['a'\] returned a CategoricalProbs .*must return a distribution over the site's 2 values",
    ),
    "proposal_of_reals": (
        particles(proposal={"a": lambda s: Normal()}),
        "returned a Normal .*over the site's 2 values",
    ),
    "proposal_of_coins": (
        particles(pushed, proposal={"push": lambda x: Categorical(probs=HALF)}),
        r"returned a CategoricalProbs .*must return a Gaussian of shape \(\)",
    ),
    "proposal_of_vectors": (
        particles(pushed, proposal={"push": lambda x: MultivariateNormal(jnp.zeros(2), jnp.eye(2))}),
        r"returned a MultivariateNormal of shape \(2,\); it must return a Gaussian of shape \(\)",
    ),
    "proposal_array_on_reals": (
        particles(pushed, proposal={"side": HALF}),
        r"'side' depends on the real numbers \['x'\], so proposal\['side'\] must be a function",
    ),
    "proposal_array_of_reals": (
        particles(pushed, proposal={"push": HALF}),
        r"proposal\['push'\] must be \(gain, offset, cov\), or a function",
    ),
    "proposal_with_a_wide_gain": (
        particles(lone, proposal={"push": (jnp.zeros((1, 5)), jnp.zeros(1), jnp.eye(1))}),
        r"proposal\['push'\].gain has shape \(1, 5\); it must be \(2, 1, 1\)",
    ),
    "twist_array_on_reals": (
        particles(pushed, twist=jnp.zeros(3)),
        r"real numbers, \['x'\], so twist must be a QuadraticValue or a function",
    ),
    "schedule_by_name": (
        lambda: q_learning.learn(coins(), KEY, 10, learning_rate="fast"),
        "learning_rate must be a number or a function; got 'fast'",
    ),
    "asked_by_other_names": (
        asked(s=1.0),
        r"takes \['x', 'side', 't'\] by name; \['x', 'side'\] are missing, and \['s'\] are no variables here",
    ),
    "asked_too_little": (
        asked(x=1.0),
        r"policy\['push'\] takes \['x', 'side', 't'\] by name; \['side'\] are missing\.",
    ),
    "asked_for_many": (
        asked(x=jnp.zeros(3), side=0),
        r"'x' of policy\['push'\] has shape \(3,\); it must be \(\). Use jax.vmap",
    ),
    "asked_too_late": (asked(x=0.0, side=0, t=9), r"'t' of policy\['push'\] is 9; its values are range\(0, 2\)"),
    "asked_elsewhere": (asked(x=0.0, side=7), r"'side' of policy\['push'\] is 7; its values are range\(0, 2\)"),
    "other_scope": (
        foreign(PARTICLES, lambda: coins(remembers=True)),
        r"made for another program: its variables are {'s': 2, 'z': 2, 'a': 2}, and here they are {'s': 2, 'a': 2}",
    ),
    "other_size": (foreign(PARTICLES, lambda: coins(3)), "variables are {'s': 2, 'a': 3}, and here .*svi.networks"),
    "other_scope_of_a_critic": (foreign(CRITIC, lambda: coins(remembers=True)), "was made for another program"),
    "networks_of_a_key": (lambda: svi.networks(KEY, coins()), "takes a ControlProgram first"),
    "features_listed": (lambda: svi.networks(coins(), KEY, features=["s"]), r"features must be a dict.*got \['s'\]"),
    "features_numbered": (
        lambda: svi.networks(coins(), KEY, features={"s": 3}),
        r"features\['s'\] must be a function of s",
    ),
    "activation_by_name": (
        lambda: svi.networks(coins(), KEY, activation="tanh"),
        "activation must be a function.*got 'tanh'",
    ),
    "save_a_solution": (lambda: svi.save(exact.solve(coins()), "x.npz"), "takes a fit, .*got Solution"),
    "save_swapped": (lambda: svi.save("x.npz", several()), "takes a fit, .*got str"),
    "save_several": (lambda: svi.save(several(), "x.npz"), r"\(2,\) fits in one, from vmap; take one of them"),
    "resume_several": (lambda: several().resume(2), r"\(2,\) fits in one, from vmap; take one of them"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_named_and_says_what_to_do(case):
    call, message = WRONG[case]
    with pytest.raises((TypeError, ValueError), match="(?s)" + message):
        call()


def test_one_of_several_fits_can_be_taken():
    one = jax.tree.map(lambda x: x[1], several())
    assert bool(one.resume(2).converged) and float(one.resume(2).elbo) == pytest.approx(
        float(exact.solve(coins()).elbo)
    )


@pytest.mark.slow
def test_a_file_says_what_it_was_made_with(tmp_path):
    tables, nets = tmp_path / "tables.npz", tmp_path / "networks.npz"
    svi.save(svi.fit(coins(remembers=True), KEY, 1), tables)
    fit = svi.fit(coins(), KEY, 1, guide=svi.networks(coins(), KEY, width=4, depth=1), **PARTICLES)
    svi.save(fit, nets)
    with pytest.raises(ValueError, match="another program, or networks and tables are mistaken"):
        svi.load(nets, coins(), **PARTICLES)
    with pytest.raises(ValueError, match=r"guide\['a'\] of shape \(2, 2, 2, 2\), and here it has shape \(2, 2, 2\)"):
        svi.load(tables, coins())
    with pytest.raises(ValueError, match=r"layers\[0\].weight of shape \(4, .*\), and here .*\(8, .*the same width"):
        svi.load(nets, coins(), guide=svi.networks(coins(), KEY, width=8, depth=1), **PARTICLES)
    with pytest.raises(
        ValueError, match="a fit by an optimizer on ParticleELBO.*the same loss, optimizer and schedule"
    ):
        svi.load(nets, pushed(), guide=svi.networks(pushed(), KEY))
    with pytest.raises(FileNotFoundError, match="there is no directory .*nowhere to save a fit in"):
        svi.save(fit, tmp_path / "nowhere" / "fit.npz")


def test_action_values_are_no_estimate_of_an_elbo():
    critic = svi.ActorCritic(4, 4, 8)
    for ask in (lambda: critic.estimate(None, None, KEY), lambda: critic.ascent(None, None)):
        with pytest.raises(NotImplementedError, match="^ActorCritic.* does not say"):
            ask()
