"""One law of every class of NumPyro's that can be drawn from, each a function of a number x near 0.3."""

import inspect

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import transforms

HALF = jnp.array([0.4, 0.6])
THIRDS = jnp.array([0.2, 0.3, 0.5])
PLANE = jnp.array([[1.0, 0.0], [0.4, 0.9]])
COVARIANCE = PLANE @ PLANE.T
RING = jnp.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])

NUMBERS = {
    "AsymmetricLaplace": lambda x: dist.AsymmetricLaplace(x, 1.0, 1.5),
    "AsymmetricLaplaceQuantile": lambda x: dist.AsymmetricLaplaceQuantile(x, 1.0, 0.3),
    "Beta": lambda x: dist.Beta(2.0, 1.0 + x),
    "BetaProportion": lambda x: dist.BetaProportion(x, 5.0),
    "Cauchy": lambda x: dist.Cauchy(x, 1.0),
    "Chi2": lambda x: dist.Chi2(3.0 + x),
    "Dagum": lambda x: dist.Dagum(2.0, 2.0 + x, 1.0),
    "DoublyTruncatedPowerLaw": lambda x: dist.DoublyTruncatedPowerLaw(-1.0 - x, 0.5, 3.0),
    "Exponential": lambda x: dist.Exponential(1.0 + x),
    "FoldedDistribution": lambda x: dist.FoldedDistribution(dist.Normal(x, 1.0)),
    "Gamma": lambda x: dist.Gamma(2.0, 1.0 + x),
    "Gompertz": lambda x: dist.Gompertz(1.0 + x, 1.0),
    "Gumbel": lambda x: dist.Gumbel(x, 1.0),
    "HalfCauchy": lambda x: dist.HalfCauchy(1.0 + x),
    "HalfNormal": lambda x: dist.HalfNormal(1.0 + x),
    "InverseGamma": lambda x: dist.InverseGamma(3.0, 1.0 + x),
    "Kumaraswamy": lambda x: dist.Kumaraswamy(2.0, 1.0 + x),
    "Laplace": lambda x: dist.Laplace(x, 1.0),
    "LeftTruncatedDistribution": lambda x: dist.LeftTruncatedDistribution(dist.Normal(x, 1.0), -0.5),
    "LeftTruncatedGamma": lambda x: dist.LeftTruncatedGamma(dist.Gamma(2.0, 1.0 + x), 0.5),
    "Levy": lambda x: dist.Levy(x, 1.0),
    "LogNormal": lambda x: dist.LogNormal(x, 0.5),
    "LogUniform": lambda x: dist.LogUniform(x, 2.0),
    "Logistic": lambda x: dist.Logistic(x, 1.0),
    "LowerTruncatedPowerLaw": lambda x: dist.LowerTruncatedPowerLaw(-2.0 - x, 0.5),
    "MaskedDistribution": lambda x: dist.MaskedDistribution(dist.Laplace(x, 1.0), True),
    "MixtureGeneral": lambda x: dist.MixtureGeneral(
        dist.Categorical(HALF), [dist.Normal(x, 1.0), dist.Laplace(-x, 1.0)]
    ),
    "MixtureSameFamily": lambda x: dist.MixtureSameFamily(
        dist.Categorical(HALF), dist.Normal(jnp.array([-1.0, 1.0]) + x, jnp.array([0.5, 1.0]))
    ),
    "Normal": lambda x: dist.Normal(x, 1.0),
    "Pareto": lambda x: dist.Pareto(0.5, 2.0 + x),
    "RelaxedBernoulliLogits": lambda x: dist.RelaxedBernoulliLogits(0.7, x),
    "RightTruncatedDistribution": lambda x: dist.RightTruncatedDistribution(dist.Normal(x, 1.0), 0.8),
    "RightTruncatedGamma": lambda x: dist.RightTruncatedGamma(dist.Gamma(2.0, 1.0 + x), 2.0),
    "SoftLaplace": lambda x: dist.SoftLaplace(x, 1.0),
    "StudentT": lambda x: dist.StudentT(3.0, x, 1.0),
    "TransformedDistribution": lambda x: dist.TransformedDistribution(
        dist.Normal(x, 1.0), [transforms.AffineTransform(0.5, -2.0), transforms.SigmoidTransform()]
    ),
    "TwoSidedTruncatedDistribution": lambda x: dist.TruncatedNormal(x, 1.0, low=-1.0, high=1.5),
    "TwoSidedTruncatedGamma": lambda x: dist.TwoSidedTruncatedGamma(dist.Gamma(2.0, 1.0 + x), 0.5, 2.0),
    "Uniform": lambda x: dist.Uniform(x - 1.0, x + 1.0),
    "VonMises": lambda x: dist.VonMises(x, 2.0),
    "Weibull": lambda x: dist.Weibull(1.0 + x, 1.5),
}
COUNTS = {
    "BernoulliLogits": lambda x: dist.BernoulliLogits(x),
    "BernoulliProbs": lambda x: dist.BernoulliProbs(x),
    "BetaBinomial": lambda x: dist.BetaBinomial(2.0, 1.0 + x, 5),
    "BetaNegativeBinomial": lambda x: dist.BetaNegativeBinomial(3.0, 2.0, 2.0 + x),
    "BinomialLogits": lambda x: dist.BinomialLogits(x, 5),
    "BinomialProbs": lambda x: dist.BinomialProbs(x, 5),
    "CategoricalLogits": lambda x: dist.CategoricalLogits(x * jnp.arange(3.0)),
    "CategoricalProbs": lambda x: dist.CategoricalProbs(THIRDS * (1 - x) + x / 3),
    "DiscreteUniform": lambda x: dist.DiscreteUniform(1, 4),
    "GammaPoisson": lambda x: dist.GammaPoisson(2.0, 1.0 + x),
    "GeometricLogits": lambda x: dist.GeometricLogits(x),
    "GeometricProbs": lambda x: dist.GeometricProbs(x),
    "HurdleLogits": lambda x: dist.HurdleLogits(dist.Poisson(1.0 + x), x),
    "HurdlePoisson": lambda x: dist.HurdlePoisson(x, 2.0),
    "HurdleProbs": lambda x: dist.HurdleProbs(dist.Poisson(1.0 + x), x),
    "NegativeBinomial2": lambda x: dist.NegativeBinomial2(1.0 + x, 2.0),
    "NegativeBinomialLogits": lambda x: dist.NegativeBinomialLogits(2.0, x),
    "NegativeBinomialProbs": lambda x: dist.NegativeBinomialProbs(2.0, x),
    "OrderedLogistic": lambda x: dist.OrderedLogistic(x, jnp.array([-0.5, 0.7])),
    "Poisson": lambda x: dist.Poisson(1.0 + x),
    "ZeroInflatedLogits": lambda x: dist.ZeroInflatedLogits(dist.Poisson(1.0 + x), x),
    "ZeroInflatedPoisson": lambda x: dist.ZeroInflatedPoisson(x, 2.0),
    "ZeroInflatedProbs": lambda x: dist.ZeroInflatedProbs(dist.Poisson(1.0 + x), x),
}
ARRAYS = {
    "CAR": lambda x: dist.CAR(x, 0.5, 1.0, RING),
    "CirculantNormal": lambda x: dist.CirculantNormal(x * jnp.ones(3), jnp.array([1.0, 0.2, 0.2])),
    "Delta": lambda x: dist.Delta(x * jnp.ones(2), event_dim=1),
    "Dirichlet": lambda x: dist.Dirichlet(jnp.array([1.0, 2.0, 3.0]) + x),
    "DirichletMultinomial": lambda x: dist.DirichletMultinomial(jnp.array([1.0, 2.0, 3.0]) + x, 4),
    "GaussianCopula": lambda x: dist.GaussianCopula(dist.Laplace(jnp.array([x, -x])), correlation_cholesky=unit_rows()),
    "GaussianCopulaBeta": lambda x: dist.GaussianCopulaBeta(
        jnp.array([2.0, 2.0]), jnp.array([1.0, 2.0]) + x, correlation_cholesky=unit_rows()
    ),
    "GaussianRandomWalk": lambda x: dist.GaussianRandomWalk(1.0 + x, num_steps=3),
    "GaussianStateSpace": lambda x: dist.GaussianStateSpace(3, PLANE * 0.5, scale_tril=PLANE * (1.0 + x)),
    "Independent": lambda x: dist.Laplace(x, 1.0).expand([2]).to_event(1),
    "Independent of counts": lambda x: dist.Bernoulli(jnp.array([0.2, 0.5]) + x / 2).to_event(1),
    "InverseWishart": lambda x: dist.InverseWishart(5.0, scale_tril=PLANE),
    "InverseWishartCholesky": lambda x: dist.InverseWishartCholesky(5.0, scale_tril=PLANE),
    "LKJ": lambda x: dist.LKJ(3, 1.0 + x),
    "LKJCholesky": lambda x: dist.LKJCholesky(3, 1.0 + x),
    "LowRankMultivariateNormal": lambda x: dist.LowRankMultivariateNormal(
        x * jnp.ones(3), jnp.array([[1.0], [0.5], [0.2]]), jnp.ones(3)
    ),
    "MatrixNormal": lambda x: dist.MatrixNormal(x * jnp.ones((2, 2)), PLANE, PLANE),
    "MultinomialLogits": lambda x: dist.MultinomialLogits(x * jnp.arange(3.0), 4),
    "MultinomialProbs": lambda x: dist.MultinomialProbs(THIRDS * (1 - x) + x / 3, 4),
    "MultivariateNormal": lambda x: dist.MultivariateNormal(x * jnp.ones(2), scale_tril=PLANE),
    "MultivariateStudentT": lambda x: dist.MultivariateStudentT(3.0, x * jnp.ones(2), PLANE),
    "ProjectedNormal": lambda x: dist.ProjectedNormal(jnp.array([1.0, x])),
    "SineBivariateVonMises": lambda x: dist.SineBivariateVonMises(x, -x, 2.0, 1.0, correlation=0.5),
    "SineSkewed": lambda x: dist.SineSkewed(dist.VonMises(x * jnp.ones(1), 1.0).to_event(1), jnp.array([0.4])),
    "Wishart": lambda x: dist.Wishart(5.0, scale_tril=PLANE),
    "WishartCholesky": lambda x: dist.WishartCholesky(5.0, scale_tril=PLANE),
    "ZeroSumNormal": lambda x: dist.ZeroSumNormal(1.0 + x, (3,)),
}
# Atoms beside a density: no quadrature over a grid.
HALVES = {
    "HurdleGamma": lambda x: dist.HurdleGamma(x, 2.0, 1.0),
    "HurdleLogNormal": lambda x: dist.HurdleLogNormal(x, 0.0, 0.5),
}
LAWS = NUMBERS | COUNTS | ARRAYS | HALVES
# What nothing can be drawn from, what is a path of its own, a factor, and what scores data that were cut off; and what
# NumPyro draws by a sum that is cut off, while its density is exact.
REFUSED = {"ImproperUniform", "EulerMaruyama", "Unit", "Distribution", "TruncatedPolyaGamma"}
REFUSED |= {"LeftCensoredDistribution", "RightCensoredDistribution", "IntervalCensoredDistribution"}


def unit_rows():
    return jnp.array([[1.0, 0.0], [0.4, 0.84**0.5]])


def public_classes():
    """The names of NumPyro's public classes of distributions."""
    found = ((name, getattr(dist, name)) for name in dist.__all__)
    return {name for name, each in found if inspect.isclass(each) and issubclass(each, dist.Distribution)}
