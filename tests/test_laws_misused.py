"""Laws, data and proposals that make no sense, or that no trajectory can meet: said, and never a number."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import initialize_model, log_density

from rlinf_ppl import ControlProgram, decide, optimality, truncated
from rlinf_ppl.inference import exact, execution, smc, svi

KEY = jax.random.key(0)


def program(sample, horizon=2):
    """A step that does something with a real state and the time."""

    def step(x, t):
        sample(x, t)
        return {"x": x}

    return ControlProgram(lambda: {"x": 0.5}, step, horizon)


def in_plate(law, data):
    def sample(x, t):
        with numpyro.plate("plate", 3):
            numpyro.sample("y", law(x), obs=data)

    return sample


def observed(law, data):
    return lambda x, t: numpyro.sample("y", law(x), obs=data)


def latent(law):
    return lambda x, t: numpyro.sample("z", law(x))


def alone(x):
    return dist.Normal(x, 1.0)


def three(x):
    return dist.Normal(jnp.zeros(3), 1.0).to_event(1)


@pytest.mark.parametrize(
    "sample, message",
    {
        "a column in a plate": (in_plate(alone, jnp.zeros((3, 1))), r"data of site 'y' have.*\(3, 1\).*has \(3,\)"),
        "all times in a plate": (in_plate(alone, jnp.zeros((2, 3))), r"have shape \(2, 3\).*has \(3,\).*time by t"),
        "one in a plate": (in_plate(alone, 0.0), r"have shape \(\).*has \(3,\)"),
        "two in a plate of three": (in_plate(alone, jnp.zeros(2)), r"have shape \(2,\).*has \(3,\)"),
        "a vector for a number": (observed(alone, jnp.zeros(3)), r"have shape \(3,\).*Normal has \(\).*to_event\(1\)"),
        "a number for a vector": (observed(three, 0.0), r"have shape \(\).*has \(3,\)"),
        "one entry for a vector": (observed(three, jnp.zeros(1)), r"have shape \(1,\).*has \(3,\)"),
        "complex numbers": (observed(alone, 1j), "are complex numbers"),
        "a density in a Delta": (latent(lambda x: dist.Delta(x, -(x**2))), "'z' is a Delta with a log density"),
        "a density that is known": (latent(lambda x: dist.Delta(x, 1.0)), "'z' is a Delta with a log density"),
        "a factor as a variable": (latent(lambda x: dist.Unit(-x)), "'z' is Unit, a factor and no variable"),
        "in a branch": (
            lambda x, t: jax.lax.cond(x > 0, lambda: numpyro.sample("z", alone(x)), lambda: 0.0),
            "'z' stands in a function that JAX traces apart",
        ),
        "in a scan": (
            lambda x, t: jax.lax.scan(lambda c, _: (c + numpyro.sample("z", alone(c)), None), x, None, length=2),
            "'z' stands in a function that JAX traces apart",
        ),
        "in a vmap": (
            lambda x, t: jax.vmap(lambda y: decide("z", alone(y)))(jnp.zeros(3)),
            "'z' stands in a function that JAX traces apart",
        ),
        "optimality in a branch": (
            lambda x, t: jax.lax.cond(x > 0, lambda: optimality(x), lambda: None),
            "'optimality' stands in a function that JAX traces apart",
        ),
    }.values(),
)  # fmt: skip
def test_it_is_said_where_the_program_is_made(sample, message):
    with pytest.raises((TypeError, ValueError), match=message):
        program(sample)


def test_a_law_is_no_state():
    with pytest.raises(TypeError, match="'x' as a Normal distribution; draw from it by numpyro.sample"):
        ControlProgram(lambda: {"x": dist.Normal(0.0, 1.0)}, lambda x: {"x": x}, 1)


def test_errors_of_numpyro_say_where_they_come_from():
    with pytest.raises(ValueError, match="invalid scale") as error:
        program(lambda x, t: (numpyro.sample("b", alone(x)), numpyro.sample("a", dist.Normal(0.0, -1.0))))
    assert error.value.__notes__[-1] == "This is step of a ControlProgram, after its sites ['b']."


def test_a_delta_and_data_of_the_right_shape_pass():
    def sample(x, t):
        point = numpyro.sample("z", dist.Delta(jnp.ones(3) * x, event_dim=1))
        numpyro.sample("v", dist.Normal(point, 1.0).to_event(1), obs=np.zeros(3))
        in_plate(alone, [0.0, 0.0, 0.0])(x, t)
        numpyro.sample("n", dist.Poisson(1.0), obs=2)

    wanted = 2 * (6 * dist.Normal(0.5, 1.0).log_prob(0.0) + dist.Poisson(1.0).log_prob(2))
    np.testing.assert_allclose(smc.run(program(sample), KEY, 10).log_evidence, wanted, rtol=1e-12)


def test_masks_take_nothing_out_of_what_is_drawn():
    def sample(x, t):
        with handlers.mask(mask=False):
            y = numpyro.sample("y", dist.Normal(0.0, 1.0))
        z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).mask(jnp.array([True, False])).to_event(1))
        optimality(-(y**2) - jnp.sum(z**2))

    made = program(sample, 1)
    np.testing.assert_allclose(exact.condition(made).log_evidence, -1.5 * np.log(3), rtol=1e-12)
    given = {"t0/y": jnp.asarray(0.7), "t0/z": jnp.array([0.1, 0.2])}
    density = dist.Normal(0.0, 1.0).log_prob(jnp.array([0.7, 0.1, 0.2]))
    np.testing.assert_allclose(log_density(made.model, (), {}, given)[0], jnp.sum(density) - 0.49 - 0.05, rtol=1e-12)


def test_a_mask_takes_nothing_out_of_the_potential_either():
    def sample(x, t):
        with handlers.mask(mask=False):
            numpyro.sample("g", dist.Gamma(3.0, 1.0))
        with numpyro.plate("plate", 2), handlers.mask(mask=jnp.array([True, False])):
            numpyro.sample("h", dist.Gamma(2.0, 1.0))

    def by_hand():
        numpyro.sample("t0/g", dist.Gamma(3.0, 1.0))
        numpyro.sample("t0/h", dist.Gamma(2.0, 1.0).expand([2]).to_event(1))

    ours, theirs = (initialize_model(KEY, model) for model in (program(sample, 1).model, by_hand))
    at = {"t0/g": jnp.asarray(0.7), "t0/h": jnp.array([-0.3, 0.4])}
    np.testing.assert_allclose(ours.potential_fn(at), theirs.potential_fn(at), rtol=1e-12)


def test_data_beside_a_temperature_are_read_inside_of_a_jit():
    def step(s):
        a = decide("a", dist.Bernoulli(0.5), inverse_temperature=1.5)
        optimality(1.0 * a)
        numpyro.sample("y", dist.Normal(1.0 * s, 1.0), obs=0.0)
        return {"s": a}

    made = ControlProgram(lambda: {"s": 0}, step, 2, sizes={"s": 2})
    np.testing.assert_allclose(jax.jit(lambda: exact.solve(made).elbo)(), exact.solve(made).elbo, rtol=1e-12)


def test_a_program_that_is_made_inside_of_a_jit_has_no_discount():
    def found(y):
        def step(x):
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
            return {"x": numpyro.sample("n", dist.Normal(x, 1.0))}

        return exact.filtered(ControlProgram(lambda: {"x": 0.5}, step, 2)).mean

    np.testing.assert_allclose(jax.jit(found)(1.0), found(1.0), rtol=1e-12)


@pytest.mark.parametrize("horizon, discount", [(2, 1.0), (2, 0.5), (None, 0.5)])
def test_a_decision_that_nothing_depends_on_keeps_its_prior(horizon, discount):
    def step(x):
        return {"x": x + decide("u", dist.Normal(0.3, 2.0))}

    made = ControlProgram(lambda: {"x": 0.0}, step, horizon, discount=discount)
    solution = exact.solve(made)
    assert solution.converged and float(solution.elbo) == 0.0
    np.testing.assert_allclose(solution.policy["u"].offset, jnp.full(solution.policy["u"].offset.shape, 0.3))
    np.testing.assert_allclose(solution.policy["u"].cov, jnp.full(solution.policy["u"].cov.shape, 4.0))


@pytest.mark.parametrize("numbers", [(0.0, 0.0, -5.0), (np.nan, 0.0, 1.0), (0.0, np.inf, 1.0)])
def test_a_gaussian_policy_is_a_law(numbers):
    def step(x):
        u = decide("u", dist.Normal(x, 1.0))
        optimality(-(u**2))
        return {"x": x + u}

    gain, offset, cov = numbers
    policy = {"u": (np.full((1, 1), gain), np.full(1, offset), np.full((1, 1), cov))}
    made = ControlProgram(lambda: {"x": 0.5}, step, 2)
    for answer in (exact.marginals, exact.filtered, exact.elbo):
        with pytest.raises(ValueError, match=r"policy\['u'\] is no law"):
            answer(made, policy)


def choosing(prior):
    def step(x):
        a = decide("a", prior)
        optimality(-0.1 * a)
        return {"x": x + a}

    return ControlProgram(lambda: {"x": 0.0}, step, 2)


@pytest.mark.parametrize(
    "prior, law, over",
    [
        (dist.Gamma(2.0, 1.0), dist.Poisson(2.0), "real numbers"),
        (dist.Gamma(2.0, 1.0), dist.Delta(1.0), "real numbers"),
        (dist.Poisson(2.0), dist.Gamma(2.0, 1.0), "counts"),
        (dist.Poisson(2.0), dist.Delta(2), "counts"),
    ],
)
def test_a_policy_that_is_weighed_has_a_density(prior, law, over):
    policy = {"a": lambda x: law}
    for weigh in (lambda made: smc.run(made, KEY, 10, proposal=policy), lambda made: svi.k_hat(made, KEY, policy)):
        with pytest.raises(ValueError, match=f"it must return a distribution of shape .* over {over}"):
            weigh(choosing(prior))
    if isinstance(law, dist.Delta):
        played = execution.roll_out(choosing(prior), KEY, policy, 5).returns
        np.testing.assert_allclose(played, -0.2 * law.v, rtol=1e-12)
    else:
        with pytest.raises(ValueError, match=f"over {over}"):
            execution.roll_out(choosing(prior), KEY, policy, 5)


def test_a_proposal_is_a_function():
    with pytest.raises(TypeError, match="is a Gamma; give a function that returns it"):
        smc.run(choosing(dist.Gamma(2.0, 1.0)), KEY, 10, proposal={"a": dist.Gamma(1.0, 1.0)})


def test_truncated_keeps_what_the_law_has():
    law = truncated(dist.Binomial(2, 0.3), 5)
    np.testing.assert_allclose(law.probs, [0.49, 0.42, 0.09, 0.0, 0.0, 0.0], rtol=1e-12)
    np.testing.assert_allclose(truncated(dist.DiscreteUniform(1, 3), 2).probs, [0.0, 0.5, 0.5], rtol=1e-12)
    with pytest.raises(ValueError, match="DiscreteUniform gives nothing to the counts up to 1"):
        truncated(dist.DiscreteUniform(2, 5), 1)
    with pytest.raises(ValueError, match="a whole number of at least 0"):
        truncated(dist.Poisson(3.0), -1)


def unmeetable(vectors):
    """Data of probability zero at t = 1."""

    def finite(s, t):
        numpyro.sample("y", dist.Categorical(jnp.array([1.0, 0.0])), obs=jnp.array([0, 1, 0])[t])
        return {"s": numpyro.sample("n", dist.Categorical(jnp.array([0.3, 0.7])))}

    def real(s, t):
        numpyro.sample("y", dist.HalfNormal(1.0), obs=jnp.array([1.0, -1.0, 1.0])[t])
        return {"s": numpyro.sample("n", dist.Normal(s, 1.0))}

    if vectors:
        return ControlProgram(lambda: {"s": 0.5}, real, 3)
    return ControlProgram(lambda: {"s": 0}, finite, 3, sizes={"s": 2})


@pytest.mark.parametrize("vectors", [False, True])
def test_where_nothing_meets_the_data_evidence_is_zero_and_nothing_else_is_answered(vectors):
    made = unmeetable(vectors)
    posterior = exact.condition(made)
    assert posterior.log_evidence == -np.inf and posterior.converged
    values = posterior.value.scalar if vectors else posterior.value[:, 0]
    np.testing.assert_array_equal(np.isneginf(values), [True, True, False, False])
    assert jax.jit(exact.condition)(made).log_evidence == -np.inf
    assert smc.run(made, KEY, 10).log_evidence == -np.inf
    for answer in (
        exact.posterior_marginals,
        lambda made: exact.posterior_sample(made, KEY, 3),
        exact.filtered,
        lambda made: smc.smooth(made, KEY, 10, 3),
        lambda made: smc.particle_gibbs(made, KEY, 10, 3),
        lambda made: exact.solve(made).elbo,
    ):
        with pytest.raises(ValueError, match="probability zero|meets the data"):
            answer(made)
    if not vectors:
        assert np.isnan(jax.jit(exact.posterior_marginals)(made).state).all()
    assert not jax.jit(exact.solve)(made).converged


def test_sampled_trajectories_have_data_in_nats():
    def step(s):
        a = decide("a", dist.Bernoulli(0.5), inverse_temperature=3.0)
        optimality(1.0 * a)
        numpyro.sample("y", dist.Normal(1.0 * s, 1.0), obs=0.0)
        return {"s": a}

    made = ControlProgram(lambda: {"s": 0}, step, 2, sizes={"s": 2})
    for drawn in (exact.posterior_sample(made, KEY, 5), exact.sample(made, KEY, exact.prior_policy(made), 5)):
        np.testing.assert_allclose(drawn["y"], dist.Normal(1.0 * drawn["s"][:, :2], 1.0).log_prob(0.0), rtol=1e-12)
        np.testing.assert_allclose(drawn["optimality"], drawn["a"], rtol=1e-12)


def test_proposals_are_weighed_without_masks_and_by_what_they_are_put_together_from():
    def step(x):
        a = decide("a", dist.Gamma(2.0, 1.0))
        optimality(-0.1 * a)
        return {"x": x + a}

    made = ControlProgram(lambda: {"x": 0.0}, step, 1)
    found = smc.run(made, KEY, 20_000, proposal={"a": lambda: dist.Gamma(2.0, 1.1).mask(False)}).log_evidence
    assert float(found) == pytest.approx(2 * np.log(1 / 1.1), abs=1e-9)
    positive = dist.constraints.positive
    halves = dist.Categorical(probs=jnp.ones(2) / 2)
    others = (
        lambda: dist.MixtureGeneral(halves, [dist.Delta(1.0), dist.Gamma(1.0, 0.5)], support=positive),
        lambda: dist.TransformedDistribution(dist.Poisson(2.0), dist.transforms.AffineTransform(0.5, 1.0)),
        lambda: dist.ImproperUniform(positive, (), ()),
    )
    for other in others:
        with pytest.raises(ValueError, match=r"proposal\['a'\] returned"):
            smc.run(made, KEY, 10, proposal={"a": other})
