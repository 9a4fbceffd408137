"""Linear maps of flax networks: kernels times inputs are the outputs, convolutions included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rankbias.evaluate import Predictor, check_alignment, kernel_names
from rankbias.evaluate.linear_maps import kernels, linear_maps, shapes_of
from rankbias.models import build_head

CONVOLUTIONS = {
  "same": {"kernel_size": (3, 3)},
  "strided": {"kernel_size": (3, 2), "strides": 2, "padding": 1},
  "valid": {"kernel_size": (2, 3), "strides": (1, 2), "padding": "VALID"},
  "dilated": {"kernel_size": (2, 2), "kernel_dilation": (2, 1), "padding": ((1, 0), (2, 1))},
}


class Net(nn.Module):
  """Convolutions side by side, a dense layer on positions, one called twice, and a skipped one."""

  @nn.compact
  def __call__(self, x):
    acts = {name: nn.Conv(5, name=name, **own)(x) for name, own in CONVOLUTIONS.items()}
    acts["positions"] = nn.Dense(6, name="positions")(acts["same"])
    nn.Conv(4, (3, 3), feature_group_count=2, name="grouped")(x)
    twice = nn.Dense(4, name="twice")
    features = nn.relu(twice(nn.relu(twice(x.mean((1, 2))))))
    return features, acts


@pytest.fixture(scope="module")
def net():
  """A predictor of the network on images [6, 7, 8, 4], its images and what its layers returned."""
  x = jax.random.normal(jax.random.key(0), (6, 7, 8, 4))
  model, head = Net(), build_head("linear", 3)
  params = jax.jit(model.init)(jax.random.key(1), x)
  features, acts = jax.jit(model.apply)(params, x)
  head_params = head.init(jax.random.key(2), features)
  predictor = Predictor(model.apply, params, lambda p, h: head.apply(p, h), head_params)
  return predictor, x, features, acts


def bias(predictor, name):
  return predictor.params["params"][name]["bias"]


def test_kernels_times_inputs_are_the_outputs(net):
  predictor, x, features, acts = net
  maps, logits = jax.jit(lambda x: linear_maps(predictor, x))(x)
  for name in (*CONVOLUTIONS, "positions"):
    kernel, inputs = maps[name]
    expected = acts[name].reshape(-1, acts[name].shape[-1])
    np.testing.assert_allclose(
      inputs @ kernel + bias(predictor, name)[None, :], expected, atol=2e-5, err_msg=name
    )
  np.testing.assert_allclose(maps["head/linear"].inputs, features, atol=1e-6)
  own = predictor.head_params["params"]["linear"]
  np.testing.assert_allclose(features @ own["kernel"] + own["bias"][None, :], logits, atol=1e-5)
  # Of what is called twice, the rows of both calls.
  both = maps["twice"].inputs
  assert both.shape == (12, 4)
  np.testing.assert_allclose(both[:6], x.mean((1, 2)), atol=1e-6)
  kernel = maps["twice"].kernel
  hidden = nn.relu(both[:6] @ kernel + bias(predictor, "twice")[None, :])
  np.testing.assert_allclose(both[6:], hidden, atol=1e-6)


def test_order_of_use_and_what_is_left_out(net):
  predictor, x, *_ = net
  used, others = kernel_names(predictor, x)
  assert used == [*CONVOLUTIONS, "positions", "twice", "head/linear"] and others == ["grouped"]
  assert {name: use.kernel.shape for name, use in shapes_of(predictor, x).items()}["same"] == (
    36,
    5,
  )


def test_many_rows_are_a_fixed_subset(net):
  predictor, x, *_ = net

  @jax.jit
  def run(x):
    return [linear_maps(predictor, x, max_rows=most)[0] for most in (1024, 20)]

  (whole, few), (_, again) = run(x), run(x)
  for name in ("same", "strided", "positions"):
    assert few[name].inputs.shape == (20, whole[name].inputs.shape[1])
    np.testing.assert_array_equal(few[name].inputs, again[name].inputs)
    rows = {tuple(row) for row in np.asarray(whole[name].inputs).tolist()}
    assert {tuple(row) for row in np.asarray(few[name].inputs).tolist()} <= rows
  np.testing.assert_array_equal(few["head/linear"].inputs, whole["head/linear"].inputs)


def test_too_many_directions_are_refused_with_the_name_of_the_layer(net):
  predictor, x, *_ = net
  check_alignment(predictor, x, 3)
  with pytest.raises(
    ValueError, match=r"measure.alignment=4: layer 'head/linear' .* \(4, 3\) .* 3"
  ):
    check_alignment(predictor, x, 4)
  plain = Predictor(lambda p, x: (x, {}), {"params": {}}, lambda p, h: h, {})
  with pytest.raises(ValueError, match="has no Dense or Conv layer"):
    check_alignment(plain, jnp.ones((3, 2)), 1)


def test_a_plain_function_is_told_what_to_do():
  def apply(params, x):
    return x @ params, {"layer": x @ params}

  predictor = Predictor(apply, np.eye(3, dtype="f4"), lambda p, h: h @ p, np.eye(3, dtype="f4"))
  x = np.ones((2, 3), "f4")
  for function in (linear_maps, shapes_of, kernel_names):
    with pytest.raises(ValueError, match=r"of this network are no variables of flax\.linen"):
      function(predictor, x)
  with pytest.raises(ValueError, match=r"give kernels and inputs themselves to rank\.alignment"):
    check_alignment(predictor, x, 2)
  of_flax = predictor._replace(params={"params": {"a": {"kernel": np.eye(3, dtype="f4")}}})
  with pytest.raises(ValueError, match=r"of this head are no variables of flax\.linen"):
    kernels(of_flax)
