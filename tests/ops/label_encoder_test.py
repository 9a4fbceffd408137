"""DRILL's label encoder: the authors' eight variants of two depths, the bottleneck, refusals."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "bottleneck_mixtures.npz")
ACTIVATIONS = {"Sigmoid": jax.nn.sigmoid, "ReLU": jax.nn.relu}
VARIANTS = sorted({key.split("/")[1] for key in GOLDEN.files if key.startswith("drill/depth")})


def layers(which, depth, dtype):
  names = [f"drill/param_joint_{which}_proj_{i}.0" for i in range(depth)]
  kernels = np.stack([GOLDEN[f"{name}.weight"].T for name in names])
  return kernels.astype(dtype), np.stack([GOLDEN[f"{name}.bias"] for name in names]).astype(dtype)


def variant_of(name, dtype):
  """The encoded labels and features of one variant, and their logits."""
  depth, dual, activation, previous = name.split("_")
  depth = int(depth[5:])
  how = {"activation": ACTIVATIONS[activation], "previous": previous.endswith("1")}
  x = GOLDEN["drill/x_context"].reshape(6, 5).astype(dtype)
  labels = GOLDEN["drill/param_encoder.weight"].astype(dtype)
  labels = ops.drill_encoder(labels, *layers("encoder", depth, dtype), **how)
  if dual == "dual1":
    x = ops.drill_encoder(x, *layers("hidden", depth, dtype), **how)
  return {"E_final": labels, "h_final": x, "logits": jnp.matmul(x, labels.T)}


@pytest.mark.parametrize(("bits", "loose"), [("f32", 1e-5), ("f64", 1e-10)])
def test_the_variants_of_the_authors(bits, loose):
  dtype = f"float{bits[1:]}"
  with jax.enable_x64(bits == "f64"):
    every = jax.jit(lambda: {name: variant_of(name, dtype) for name in VARIANTS})()
  for name, parts in every.items():
    for key, ours in parts.items():
      assert ours.dtype == dtype
      theirs = GOLDEN[f"drill/{name}/{bits}/{key}"]
      np.testing.assert_allclose(ours, theirs, rtol=loose, atol=loose, err_msg=f"{name} {key}")


def test_there_are_sixteen_variants():
  assert len(VARIANTS) == 16


def test_the_bottleneck_stays():
  rng = np.random.default_rng(0)
  labels, h, bias = rng.normal(size=(50, 4)), rng.normal(size=(60, 4)), rng.normal(size=50)
  with jax.enable_x64(True):
    deep = ops.drill_encoder(labels, rng.normal(size=(3, 4, 4)), rng.normal(size=(3, 4)))
    logs = ops.log_softmax(h @ deep.T + bias[None])
  assert np.linalg.matrix_rank(logs) == 6  # d + 2


def test_what_stands_between_the_layers_is_called_before_each():
  labels, kernels, biases = jnp.ones((2, 3)), jnp.ones((2, 3, 3)), jnp.zeros((2, 3))
  seen = []

  def nothing(x, layer):
    seen.append(layer)
    return 0 * x

  out = ops.drill_encoder(labels, kernels, biases, activation=lambda z: z, between=nothing)
  np.testing.assert_array_equal(out, labels)
  assert seen == [0, 1]


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match=r"kernels of shape \(2, 3, 4\) .* with d = 3"):
    ops.drill_encoder(jnp.ones((5, 3)), jnp.ones((2, 3, 4)), jnp.ones((2, 3)))
  with pytest.raises(ValueError, match=r"biases of shape \(1, 3\) do not fit"):
    ops.drill_encoder(jnp.ones((5, 3)), jnp.ones((2, 3, 3)), jnp.ones((1, 3)))
