"""The contract of every map inside programs: dtypes, axes, masks, eager, vmap, scan, sharded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

pytestmark = pytest.mark.slow

EPS = np.finfo(np.float32).eps


def test_dtypes(member, arrays, compiled_quickly):
  z, mask, cotangent, _ = arrays
  z = member.admissible(z)

  pairs = [[jnp.asarray(x, t) for x in (z, cotangent)] for t in (jnp.float16, jnp.bfloat16)]
  halves = compiled_quickly(lambda pairs: [member.pull(z, mask, c)[:2] for z, c in pairs])(pairs)
  for pair, results in zip(pairs, halves, strict=True):
    z_pair, c_pair = (x.astype(jnp.float32) for x in pair)
    y, dz, _ = member.pulled(z_pair, mask, c_pair)
    # Computed in float32, rounded once: half a unit in the last place, and where numbers end. A
    # logarithm of 16 is rounded by 16 halves of a unit, and weights and gradients follow it.
    limits = jnp.finfo(pair[0].dtype)
    unit, least = float(limits.eps) / 2, float(limits.smallest_subnormal)
    unit *= 1 if member.has("rounded") else 16
    for ours, exact, loose in zip(results, (y, dz), (0, 8 * member.tolerance(z)), strict=True):
      loose += 0 if member.has("rounded") else unit
      np.testing.assert_allclose(jnp.float32(ours), exact, rtol=unit + 16 * EPS, atol=least + loose)
  assert jax.eval_shape(lambda z: member(z, mask), np.int32(z)).dtype == jnp.float32
  for dtype in (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64):
    with jax.enable_x64(dtype == jnp.float64):
      y, dz, _ = jax.eval_shape(member.pull, jnp.asarray(z, dtype), mask, cotangent)
      assert y.dtype == dz.dtype == dtype and y.shape == dz.shape == z.shape


def test_any_axis(member, arrays, compiled_quickly):
  """Rows of 8 as an axis of 8 or as two of 2 and 4, at any place, as in the last axis."""
  z, mask, cotangent, _ = arrays
  z = member.admissible(z)
  expected, *_ = member.pulled(z, mask, cotangent)
  orders = {0: (1, 0), (-1, 0): (1, 0, 2)}

  def placed(x, order):
    split = (2, 4) if x.shape[1] == 8 else (1, 1)
    return (x if len(order) == 2 else x.reshape(4, *split)).transpose(order)

  def own(change):
    return {k: change(v) if np.ndim(v) == 2 else v for k, v in member.own.items()}

  def everywhere(z, where):
    for axis, order in orders.items():
      others = own(lambda v, order=order: placed(v, order))
      y = member(placed(z, order), placed(where, order), axis=axis, **others)
      yield y.transpose(np.argsort(order)).reshape(4, 8)

  def whole(z, where):
    return member(z, where, axis=None, **own(lambda v: v[:1])).reshape(8)

  @compiled_quickly
  def everything(z, where):
    every = list(everywhere(z, where))
    return every, whole(z[0].reshape(2, 4), where[0].reshape(2, 4))

  every, one_row = everything(z, mask)
  for y in every:
    np.testing.assert_allclose(y, expected, atol=member.tolerance(z), rtol=0)
  np.testing.assert_allclose(one_row, expected[0], atol=member.tolerance(z), rtol=0)


def test_eager_vmap_and_scan(member, arrays, compiled_quickly):
  z, mask, cotangent, _ = arrays
  z = member.admissible(z)
  expected, *_ = member.pulled(z, mask, cotangent)
  own = {k: v for k, v in member.own.items() if np.ndim(v) == 2}

  def row(z, where, own):
    return member(z, where, **own)

  @compiled_quickly
  def both(*rows):
    scanned = jax.lax.scan(lambda _, one: (None, row(*one)), None, rows)
    return jax.vmap(row)(*rows), scanned[1]

  for y in (member(z, mask), *both(z, mask, own)):
    np.testing.assert_allclose(y, expected, atol=member.tolerance(z), rtol=0)


def test_gradients_on_another_axis_under_vmap_and_in_scan(member, arrays, compiled_quickly):
  z, mask, cotangent, _ = arrays
  z = member.admissible(z)
  own = {k: jnp.asarray(v) for k, v in member.own.items() if np.ndim(v) == 2}
  wrt = [k for k in member.wrt.split() if k in own]

  def pull(z, where, cotangent, own, **options):
    def f(z, some):
      return member(z, where, **{**own, **some}, **options)

    return jax.vjp(f, z, {k: own[k] for k in wrt})[1](cotangent)

  @compiled_quickly
  def everywhere(*inputs):
    first = pull(*jax.tree.map(jnp.transpose, inputs), axis=0)
    _, scanned = jax.lax.scan(lambda _, row: (None, pull(*row)), None, inputs)
    return jax.tree.map(jnp.transpose, first), jax.vmap(pull)(*inputs), scanned

  _, dz, d_own = member.pulled(z, mask, cotangent)
  for found in everywhere(z, mask, cotangent, own):
    for ours, theirs in zip(jax.tree.leaves(found), [dz, *(d_own[k] for k in wrt)], strict=True):
      np.testing.assert_allclose(ours, theirs, atol=8 * member.tolerance(z), rtol=8 * EPS)


def test_a_mask_that_broadcasts(member, arrays, compiled_quickly):
  """One for all rows, one number a row, and one for everything."""
  z, mask, cotangent, _ = arrays
  z = member.admissible(z)
  masks = [mask[0], mask[1], mask[:, 3:4], np.bool_(True)]

  @compiled_quickly
  def narrow(z, masks):
    return [member(z, where) for where in masks]

  for y, where in zip(narrow(z, masks), masks, strict=True):
    expected, *_ = member.pulled(z, np.broadcast_to(where, z.shape), cotangent)
    np.testing.assert_allclose(y, expected, atol=member.tolerance(z), rtol=0)


@pytest.mark.parametrize("spec", [("x", None), (None, "x")])
def test_sharded(member, arrays, compiled_quickly, spec):
  """Over the rows and over the axis that is normalised; there the gradients too."""
  z, mask, cotangent, _ = arrays
  inputs = member.admissible(z), mask, cotangent
  expected = member.pulled(*inputs)
  sharding = NamedSharding(Mesh(np.array(jax.devices()), "x"), PartitionSpec(*spec))
  inputs = jax.device_put(inputs, sharding)
  if spec[0] == "x":
    parts, expected = compiled_quickly(member)(*inputs[:2]), expected[0]
  else:
    parts = compiled_quickly(member.pull)(*inputs)
  assert len(jax.tree.leaves(parts)[0].sharding.device_set) == 4
  for ours, theirs in zip(*map(jax.tree.leaves, (parts, expected)), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=8 * member.tolerance(z), rtol=0)
