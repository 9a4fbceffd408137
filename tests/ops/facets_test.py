"""Partitioned and multi-facet softmax: the authors' ten settings, the formula, rank, refusals."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "multi_facet_softmax.npz")
PARTITIONS = {"mfs_multi_partition_even": 4, "mfs_even_last": 4, "mfs_mfs_full": 4}
MAPS = {"mfs_sigsoftmax_single": True, "mfs_moss_dynamic": True}
SETTINGS = sorted({key.split("/")[0] for key in GOLDEN.files if key.startswith("mfs_")})


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64(True):
    yield


def log_probs(setting, last, dtype):
  """The log-probabilities of one setting, given the last hidden layer; the others are stored."""

  def parameter(name):
    key = f"{setting}/param_{name}"
    return jnp.asarray(GOLDEN[key], dtype) if key in GOLDEN else None

  q = last
  if parameter("MLP_linear.weight") is not None:
    layers = [last, *(jnp.asarray(GOLDEN[f"inputs/hidden_layer{i}"], dtype) for i in (2, 1))]
    x = jnp.matmul(ops.shifted_windows(jnp.stack(layers), 2), parameter("MLP_linear.weight").T)
    q = jnp.concatenate([q, jax.nn.gelu(x + parameter("MLP_linear.bias")[None, None])], -1)
  count = sum(key.startswith(f"{setting}/param_project_arr") for key in GOLDEN.files)
  facets = [jnp.matmul(q, parameter(f"project_arr.{i}.weight").T) for i in range(count)]
  kernel = parameter("lm_head.weight").T
  parts = PARTITIONS.get(setting, 0)
  softmaxes = count - parts + (parts > 0)
  prior = jnp.zeros((*q.shape[:-1], softmaxes), dtype)
  if setting == "mfs_mos_static":
    prior = jnp.broadcast_to(parameter("weight_global"), prior.shape)
  elif parameter("weight_facet_decoder.weight") is not None:
    prior = jnp.matmul(q, parameter("weight_facet_decoder.weight").T)
    prior += parameter("weight_facet_decoder.bias")[None, None]
  if not parts:
    sigsoftmax = (lambda z: z + jax.nn.log_sigmoid(z)) if setting in MAPS else None
    return ops.mixture_log_probs(prior, jnp.stack(facets, -2), kernel, logit_map=sigsoftmax)
  # The plain softmaxes of the origin take the last facets backwards.
  plain = jnp.stack([*facets[parts:][::-1], q[..., :6]], -2)[..., : count - parts, :]
  return ops.multi_facet_log_probs(prior, jnp.stack(facets[:parts], -2), plain, kernel)


@pytest.mark.parametrize(
  ("setting", "bits", "loose"),
  [*((setting, "f64", 1e-9) for setting in SETTINGS), ("mfs_mfs_full", "f32", 1e-5)],
)
def test_the_settings_of_the_authors(setting, bits, loose):
  dtype = f"float{bits[1:]}"
  labels = GOLDEN["inputs/input_ids"][:, 1:]

  @jax.jit
  def everything(last):
    def loss(last):
      p = jnp.exp(log_probs(setting, last, dtype))
      right = jnp.take_along_axis(p[:, :-1], labels[..., None], -1)
      return -jnp.log(right + 1e-8).mean(), p

    return jax.value_and_grad(loss, has_aux=True)(last)

  (loss, p), gradient = everything(jnp.asarray(GOLDEN["inputs/hidden_layer3"], dtype))
  theirs = GOLDEN[f"{setting}/{bits}/loss_shifted_mean_log_p_plus_1e_8"]
  np.testing.assert_allclose(loss, theirs, rtol=loose)
  np.testing.assert_allclose(p, GOLDEN[f"{setting}/{bits}/prob"], atol=loose)
  np.testing.assert_allclose(gradient, GOLDEN[f"{setting}/{bits}/grad_last_hidden"], atol=loose)


def test_there_are_ten_settings():
  assert len(SETTINGS) == 10


@pytest.mark.parametrize("parts", [1, 3, 4, 9])
def test_every_class_meets_its_own_facet(parts):
  rng = np.random.default_rng(0)
  facets, kernel, bias = rng.normal(size=(5, parts, 2)), rng.normal(size=(2, 7)), rng.normal(size=7)
  expected = [[f[v % parts] @ kernel[:, v] + bias[v] for v in range(7)] for f in facets]
  np.testing.assert_allclose(ops.partitioned_logits(facets, kernel, bias), expected, rtol=1e-12)


def test_the_rank_of_partitioned_logits_is_at_most_parts_times_width():
  rng = np.random.default_rng(1)
  facets, kernel = rng.normal(size=(60, 4, 3)), rng.normal(size=(3, 50))
  assert np.linalg.matrix_rank(ops.partitioned_logits(facets, kernel)) == 12
  same = np.repeat(facets[:, :1], 4, 1)
  assert np.linalg.matrix_rank(ops.partitioned_logits(same, kernel)) == 3


def test_multi_facet_temperature_bias_and_dtype():
  rng = np.random.default_rng(2)
  prior, parts, plain = rng.normal(size=3), rng.normal(size=(4, 2)), rng.normal(size=(2, 2))
  kernel, bias = rng.normal(size=(2, 7)), rng.normal(size=7)
  logits = [ops.partitioned_logits(parts, kernel, bias), *(plain @ kernel + bias[None])]
  expected = jax.nn.softmax(prior) @ np.stack([jax.nn.softmax(z / 3.0) for z in logits])
  out = ops.multi_facet_log_probs(prior, parts, plain, kernel, bias, temperature=3.0)
  np.testing.assert_allclose(jnp.exp(out), expected, rtol=1e-12)
  halves = [jnp.asarray(x, jnp.bfloat16) for x in (prior, parts, plain, kernel, bias)]
  assert ops.multi_facet_log_probs(*halves).dtype == jnp.bfloat16


def test_windows_look_back_and_start_with_zeros():
  layers = jnp.asarray(np.arange(12.0).reshape(2, 3, 2))
  x = ops.shifted_windows(layers, 1)
  np.testing.assert_array_equal(x[0], [0, 1, 0, 0, 6, 7, 0, 0])
  np.testing.assert_array_equal(x[2], [4, 5, 2, 3, 10, 11, 8, 9])
  np.testing.assert_array_equal(ops.shifted_windows(layers, 5)[:, 10:12], 0)


def test_what_does_not_fit_is_refused():
  ones = jnp.ones
  with pytest.raises(ValueError, match=r"prior_logits of shape \(2,\) does not fit facets"):
    ops.multi_facet_log_probs(ones(2), ones((4, 3)), ones((2, 3)), ones((3, 7)))
  with pytest.raises(ValueError, match=r"kernel of shape \(2, 7\) does not fit facets"):
    ops.partitioned_logits(ones((4, 3)), ones((2, 7)))
  with pytest.raises(ValueError, match=r"facets of shape \(5, 0, 3\) hold no part"):
    ops.partitioned_logits(ones((5, 0, 3)), ones((3, 7)))
  with pytest.raises(ValueError, match="window = -1 must be at least 0"):
    ops.shifted_windows(ones((1, 3, 2)), -1)
