"""The LSTM's loop: against its formula in a plain loop, and its derivative against autodiff's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.models.recurrence import recur

L, B, U = 7, 3, 5


def plain(gates, kernel, state):
  """The formula, one time after another."""
  h, c = state["h"], state["c"]
  outputs = []
  for inputs in gates:
    i, f, g, o = jnp.split(inputs + h @ kernel, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    outputs.append(h)
  return jnp.stack(outputs), {"h": h, "c": c}


def made(dtype="f8"):
  rng = np.random.default_rng(0)
  shapes = {"gates": (L, B, 4 * U), "kernel": (U, 4 * U), "h": (B, U), "c": (B, U)}
  drawn = {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}
  return drawn["gates"], drawn["kernel"], {"h": drawn["h"], "c": drawn["c"]}


def weighted(run, *args):
  """A number that depends on all outputs and on both parts of the last state."""
  rng = np.random.default_rng(1)
  leaves = jax.tree.leaves(run(*args))
  return sum(jnp.sum(rng.normal(size=leaf.shape) * leaf) for leaf in leaves)


def test_values_and_gradients_are_those_of_the_formula():
  with jax.enable_x64(True):
    args = made()
    for own, theirs in zip(*map(jax.tree.leaves, (recur(*args), plain(*args))), strict=True):
      np.testing.assert_allclose(own, theirs, rtol=1e-13, atol=1e-14)
    every = tuple(range(3))
    own, theirs = (jax.grad(lambda *a, f=f: weighted(f, *a), every)(*args) for f in (recur, plain))
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(theirs), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def test_members_side_by_side_have_each_their_own_gradient():
  args = made("f4")
  two = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), args)
  grad = jax.grad(lambda *a: weighted(recur, *a), (0, 1, 2))
  both = jax.vmap(grad)(*two)
  for member, factor in enumerate((1.0, 0.5)):
    alone = grad(*jax.tree.map(lambda x, k=factor: k * x, args))
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
      np.testing.assert_allclose(a[member], b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_dtypes_are_those_of_the_arguments(dtype):
  gates, kernel, state = made(dtype)
  state["c"] = state["c"].astype("float32")  # cells are wide
  outputs, after = recur(gates, kernel, state)
  assert (outputs.dtype, after["h"].dtype, after["c"].dtype) == (dtype, dtype, "float32")
  found = jax.grad(lambda *a: weighted(recur, *a).astype("float32"), (0, 1, 2))(
    gates, kernel, state
  )
  exact = jax.grad(lambda *a: weighted(plain, *a), (0, 1, 2))(
    *jax.tree.map(lambda x: x.astype("float32"), (gates, kernel, state))
  )
  tolerance = 0.05 if dtype == "bfloat16" else 1e-5
  for own, true, arg in zip(
    *map(jax.tree.leaves, (found, exact, (gates, kernel, state))), strict=True
  ):
    assert own.dtype == arg.dtype
    assert np.linalg.norm(own.astype("f4") - true) < tolerance * np.linalg.norm(true)
