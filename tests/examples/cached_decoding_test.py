"""The example of decoding with a cache: every step is the row of causal attention."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from rankbias import ops

PATH = pathlib.Path(__file__).parents[2] / "examples/cached_decoding.py"
spec = importlib.util.spec_from_file_location("cached_decoding", PATH)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)

STEPS = 20
QUERY, KEY, VALUE = np.float32(np.random.default_rng(0).normal(size=(3, 2, STEPS, 3, 8)))


def test_every_step_is_the_row_of_causal_attention():
  steps = example.decode(example.Cache.empty(2, STEPS, 3, 8), QUERY, KEY, VALUE)
  whole = ops.adaptive_temperature_attention(QUERY, KEY, VALUE, is_causal=True)
  np.testing.assert_allclose(steps, whole, atol=2e-6)
  plain = ops.dot_product_attention(QUERY, KEY, VALUE, is_causal=True)
  assert np.abs(plain - whole).max() > 0.1  # the temperature is not 1


def test_what_is_not_filled_yet_does_not_matter():
  empty = example.Cache.empty(2, STEPS, 3, 8)
  dirty = example.Cache(empty.key + 7, empty.value - 9, empty.length)
  one = tuple(x[:, :1] for x in (QUERY, KEY, VALUE))
  step = jax.jit(example.decode_step)
  for cache in (empty, dirty):
    cache, out = step(cache, *one)
    np.testing.assert_allclose(out, VALUE[:, :1], atol=1e-6)  # the only key has all the weight
    assert cache.length == 1 and cache.length.dtype == jnp.int32


def test_the_script_runs(capsys):
  assert example.main(["--steps=12"]) < 1e-5
  assert capsys.readouterr().out.startswith("12 steps, at most")
