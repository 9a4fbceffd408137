"""Spectra of several batches at once end: batched LAPACK calls can wait for each other for ever."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.rank import lapack

PROGRAM = """
import jax, numpy as np
from rankbias import rank

@jax.jit
@jax.vmap
def spectra(layers):
  return [rank.singular_values(layer, method={method!r}) for layer in layers]

x = np.random.default_rng(0).normal(size=(6, 8, 96, 64)).astype(np.float32)
for _ in range(5):
  jax.block_until_ready(spectra(x))
"""


@pytest.mark.parametrize("method", ["gram", "qr", "svd"])
def test_independent_batches_do_not_deadlock(method):
  program = PROGRAM.format(method=method)
  subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("name", ["eigh", "tridiagonal", "svd", "svdvals", "triangle"])
def test_vmap_is_a_loop_over_the_same_function(name):
  factorise = getattr(lapack, name)
  x = np.random.default_rng(1).normal(size=(2, 3, 5, 5)).astype(np.float32)
  x = jnp.asarray(x + x.swapaxes(-1, -2))
  batched = jax.jit(jax.vmap(jax.vmap(factorise)))(x)
  for i, j in np.ndindex(2, 3):
    jax.tree.map(
      lambda a, b, i=i, j=j: np.testing.assert_allclose(a[i, j], b, rtol=1e-5, atol=1e-5),
      batched,
      factorise(x[i, j]),
    )
