"""Functions of named finite variables, and what the elimination asks of them.

A message of the elimination is a `Table`: an array whose axes carry the names of variables. A `Conditional` is the law
p(x | parents) of one site; a message can be averaged over x, averaged in the exponent, and tilt the law. This is the
algebra of programs whose variables have finitely many values.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from rlinf_ppl.algebra.equilibrium import Player, equilibrium
from rlinf_ppl.algebra.messages import Law, Whole
from rlinf_ppl.algebra.numerics import select_form, tilted_offset
from rlinf_ppl.algebra.regularizers import Regularizer, kl

# How far the sum of a row may be from one: more than the rounding of thousands of entries in float32. Known rows that
# are off by more than a few last digits are rescaled, as an error in a sum counts once for every step.
ROW_TOLERANCE = 1e-5
ROW_DIGITS = 4


class Table(Whole["Table", "Conditional"]):
    """A function of named finite variables.

    Attributes:
        axes: the variables' names, one for each dimension of `array`; a leading "t" is the time index.
        array: the values, indexed by position in the variables' supports.
    """

    axes: tuple[str, ...] = eqx.field(static=True)
    array: Array

    def aligned(self, axes: tuple[str, ...]) -> Array:
        """The array with one dimension for each name of `axes`, of size 1 where the table does not vary."""
        array = jnp.transpose(self.array, [self.axes.index(name) for name in axes if name in self.axes])
        return jnp.expand_dims(array, [i for i, name in enumerate(axes) if name not in self.axes])

    @property
    def constant(self) -> Array:
        """The value of a function of nothing."""
        return self.array

    def filled(self, value: Array) -> "Table":
        """A function of nothing with another value."""
        return Table((), value)

    def over(self, axes: tuple[str, ...], sizes: dict[str, int]) -> "Table":
        """The same function, broadcast over all of `axes`."""
        return Table(axes, jnp.broadcast_to(self.aligned(axes), [sizes[name] for name in axes]))

    def expectation(self, weights: Array) -> Array:
        """The mean of the table under weights; what is never met counts nothing, and may be infinite."""
        met = weights > 0
        return jnp.sum(jnp.where(met, weights * jnp.where(met, self.array, 0.0), 0.0))

    @property
    def monotone(self) -> bool:
        """A larger function has a larger array."""
        return True

    def __add__(self, other: "Table") -> "Table":
        axes = union(self.axes, other.axes)
        return Table(axes, self.aligned(axes) + other.aligned(axes))

    def __sub__(self, other: "Table") -> "Table":
        return self + Table(other.axes, -other.array)

    def divided(self, divisor: "Table | None") -> "Table":
        """The table divided by a scalar (None: by 1); what is zero up to rounding is zero also when divided by 0."""
        if divisor is None:
            return self
        rounding = 8 * jnp.finfo(self.array.dtype).eps
        zero = (divisor.array == 0) & (jnp.abs(self.array) <= rounding)
        return Table(self.axes, jnp.where(zero, 0.0, self.array / jnp.where(zero, 1.0, divisor.array)))

    def mean(self, law: "Conditional") -> "Table":
        """E[w | parents]: the message averaged over a variable."""
        if law.name not in self.axes:
            return self
        return contract(law.table, self, law.name)

    def log_mean(self, law: "Conditional", tau: "Table | None") -> "Table":
        """(1 / tau) log E[exp(tau w) | parents]: the message averaged over a variable in the exponent.

        The exponentials are shifted by one peak for all rows, so that the law is read once, by a matrix product. A row
        that sees only values far below the peak underflows; then every row is shifted by its own peak instead.
        """
        if law.name not in self.axes:
            return self
        scale = None if tau is None else tau.array
        axes = (*(name for name in self.axes if name != law.name), law.name)
        values = self.aligned(axes)
        steep, sign = (1.0, 1.0) if scale is None else (scale, jnp.where(scale < 0, -1.0, 1.0))
        best = sign * lax.stop_gradient(jnp.max(sign * values, -1, keepdims=True))
        # The difference comes first, as in `soft_maximum`.
        total = contract(law.table, Table(axes, jnp.exp(steep * (values - best))), law.name)
        enough = jnp.finfo(values.dtype).tiny / jnp.finfo(values.dtype).eps
        safe = jnp.where(total.array > enough, total.array, 1.0)
        peak = Table(axes[:-1], best[..., 0]).aligned(total.axes)
        value = jnp.log(safe) + peak
        if scale is not None:
            centre = lax.stop_gradient(jnp.mean(values, -1, keepdims=True))
            excess = contract(law.table, Table(axes, tilted_offset(values - centre, scale)), law.name)
            reach = jnp.abs(scale) * jnp.max(jnp.abs(lax.stop_gradient(values - centre)), -1)
            reach, middle = (Table(axes[:-1], each).aligned(total.axes) for each in (reach, centre[..., 0]))
            value = select_form(scale, reach, middle, excess.aligned(total.axes), peak, jnp.log(safe))
        # Recomputed in reverse mode, so that the rare branch leaves no residuals of the law's size at every time step.
        by_row = jax.checkpoint(lambda law, w, tau: w.tilt(law, tau)[0].aligned(total.axes))
        result = lax.cond(
            jnp.all(total.array > enough), lambda law, w, tau: value, by_row, law, Table(axes, values), tau
        )
        return Table(total.axes, result)

    def tilt(self, law: "Conditional", tau: "Table | None" = None) -> "tuple[Table, Conditional]":
        """The message (1 / tau) log Z and the law q = p exp(tau w) / Z: a soft maximum of w over a variable.

        So with the regularizer of inference; with another one the maximum of <q, w> - Omega(q) / tau.
        """
        if law.name not in self.axes and law.regularizer == kl:
            return self, law
        scope = tuple(name for name in union(law.table.axes, self.axes) if name != law.name)
        axes = (*scope, law.name)
        p, w = law.table.aligned(axes), self.aligned(axes)
        q, value = law.regularizer.maximum(p, w, None if tau is None else tau.array)
        return Table(scope, value), Conditional(law.name, Table(axes, q))

    def equilibrium(
        self, laws: "tuple[Conditional, ...]", taus: "tuple[Table | None, ...]"
    ) -> "tuple[Table, tuple[Conditional, ...], Array]":
        """The value and the laws of decisions that do not see each other, and how far they are from their replies."""
        names = tuple(law.name for law in laws)
        scope = tuple(n for n in union(*(law.table.axes for law in laws), self.axes) if n not in names)
        sizes = dict(zip(self.axes, self.array.shape, strict=True))
        for law in laws:
            sizes |= dict(zip(law.table.axes, law.table.array.shape, strict=True))
        w = self.over((*scope, *names), sizes).array
        priors = [law.table.over((*scope, law.name), sizes).array for law in laws]

        def one(w: Array, *priors: Array) -> tuple[tuple[Array, ...], Array, Array]:
            players = (
                Player(p, None if tau is None else tau.array, law.regularizer)
                for p, tau, law in zip(priors, taus, laws, strict=True)
            )
            return equilibrium(w, tuple(players))

        for _ in scope:
            one = jax.vmap(one)
        q, value, residual = one(w, *priors)
        found = (Conditional(law.name, Table((*scope, law.name), own)) for law, own in zip(laws, q, strict=True))
        return Table(scope, value), tuple(found), jnp.max(residual)

    def gated(self, name: str) -> "Table":
        """0 where the Bernoulli variable `name` is 0, this function where it is 1."""
        return Table((name, *self.axes), jnp.stack([jnp.zeros_like(self.array), self.array]))

    def rows(self, positions: dict[str, Array]) -> Array:
        """The table at given positions of its leading axes, one row a particle.

        Args:
            positions: for at least the leading axes the positions, each of shape (n,); others are ignored.

        Returns:
            Shape (n, remaining axes); n is 1 where no axis is given.
        """
        index = tuple(positions[name] for name in self.axes if name in positions)
        return self.array[index] if index else self.array[None]

    def rows_for(self, name: str, positions: dict[str, Array]) -> Array:
        """`rows` with the axis of a variable that has no position yet as the last one, shape (n, K)."""
        axes = (*(axis for axis in self.axes if axis != name), name)
        return Table(axes, self.aligned(axes)).rows(positions)


class Conditional(Law[Table]):
    """The law p(name | parents) of a site as a table of probabilities whose last axis is the site's own.

    Attributes:
        name: the site.
        table: the probabilities.
        regularizer: what a decision pays for leaving this law.
    """

    name: str = eqx.field(static=True)
    table: Table
    regularizer: Regularizer = eqx.field(static=True, default=kl)

    @property
    def normals(self) -> int:
        """How many normals a draw takes: none, but a uniform."""
        return 0

    def draw(self, noise: Array, at: dict[str, Array], message: Table | None, tau: Array | float) -> Array:
        """Positions (n,) drawn from the law, or from the law tilted by exp(tau message), by uniforms (n,).

        Each is the first one whose cumulated probability exceeds a uniform: one random number a particle, not one an
        alternative. What has probability 0 is never drawn, whatever the rounding of the sums.
        """
        p = self.table.rows(at)
        if message is not None and self.name in message.axes:
            p = jax.nn.softmax(jnp.log(p) + tau * message.rows_for(self.name, at))
        cumulated = jnp.cumsum(p, -1)
        return jnp.argmax((cumulated > noise[:, None] * cumulated[:, -1:]) & (p > 0), -1)

    def cost(self, q: "Conditional") -> Table:
        """What it costs in nats to follow q instead of this law, a function of what either depends on."""
        scope = tuple(name for name in union(self.table.axes, q.table.axes) if name != self.name)
        axes = (*scope, self.name)
        if self.regularizer.cost is None:
            raise ValueError(
                f"the regularizer {self.regularizer.name!r} of {self.name!r} has a conjugate only; to evaluate "
                "policies that are given, give from_conjugate its cost as well."
            )
        return Table(scope, self.regularizer.cost(q.table.aligned(axes), self.table.aligned(axes)))

    def tilted(self, theta: Table) -> "tuple[Conditional, Table, Table]":
        """The law tilted by exp(theta), log Z of it, and what it costs in nats to follow it instead."""
        log_z, q = theta.tilt(self)
        # The difference of two numbers next to 0 is what rounding leaves of them; the cost itself has all digits.
        return q, log_z, self.cost(q) if self.regularizer == kl else theta.mean(q) - log_z


def most_rounding(p: Array) -> float:
    """How far the sums of rows of probabilities are off one by rounding."""
    return ROW_DIGITS * p.shape[-1] ** 0.5 * float(jnp.finfo(p.dtype).eps)


def union(*axes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of all tuples in order of first appearance."""
    return tuple(dict.fromkeys(name for names in axes for name in names))


def contract(p: Table, w: Table, name: str) -> Table:
    """The sum of p w over one variable.

    A product over shared variables is a sum of products that XLA fuses, and so is one of two vectors, whose entries a
    matrix product would add one by one; without shared variables it is a matrix product, which reads a large p at the
    memory's speed.
    """
    scope = tuple(axis for axis in union(p.axes, w.axes) if axis != name)
    if not scope or set(p.axes) & set(w.axes) - {name}:
        axes = (*scope, name)
        return Table(scope, jnp.sum(p.aligned(axes) * w.aligned(axes), -1))
    return Table(scope, jnp.tensordot(p.array, w.array, axes=([p.axes.index(name)], [w.axes.index(name)])))
