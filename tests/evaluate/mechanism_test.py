"""Alignment, growth and gradients of a digits network against NumPy in float64, and theorems."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy.special import softmax

from rankbias import experiment, program, record
from rankbias.config import base, override, scientific
from rankbias.evaluate import Mechanism, measure_mechanism

WIDTHS = (64, 12, 14, 10)
LAYERS = ("layer1", "layer2", "head/linear")
TEMPERATURES = (1.0, 50.0)
MECHANISM = Mechanism(alignment=3, gradients=True, label_smoothing=0.1)


def config(**own):
  c = base("mechanism")
  c.steps, c.batch_size, c.data.limit, c.label_smoothing = 4, 16, 64, 0.1
  c.model.update(name="mlp", depth=3, width=12, use_bias=False)
  c.measure.update(count=2, images=40, alignment=3, gradients=True)
  return override(c, own)


@pytest.fixture(scope="module")
def measured():
  """Two members measured at once, and their weights."""
  configs = [override(config(), {"temperature": t, "seed": i}) for i, t in enumerate(TEMPERATURES)]
  source = experiment.load_data(configs[0])
  built = program.build(configs, source)
  state = built.init()
  trained = (state["params"], state["extra"], state["numbers"])
  x, y = source.fixed(40)
  rows = record.measure_members(built.predictor, 2, trained, x, y, MECHANISM)
  return SimpleNamespace(rows=rows, params=state["params"], source=source, built=built, x=x, y=y)


def forward(measured, member):
  """Kernels, inputs of each, logits, and gradients by the chain rule, in float64."""
  params = jax.tree.map(lambda leaf: np.float64(leaf[member]), measured.params)
  body = [params["model"][f"layer{i}"]["kernel"] for i in (1, 2)]
  kernels = [*body, params["head"]["linear"]["kernel"]]
  h = np.float64(measured.source.inputs(measured.x, "float32")).reshape(40, -1)
  inputs = []
  for kernel in kernels:
    inputs.append(h)
    h = np.maximum(h @ kernel, 0) if kernel is not kernels[-1] else h @ kernel
  t, target = TEMPERATURES[member], 0.9 * np.eye(10)[measured.y] + 0.01
  delta, gradients = (softmax(h / t, axis=1) - target) / (40 * t), []
  for kernel, incoming in zip(kernels[::-1], inputs[::-1], strict=True):
    gradients.append(incoming.T @ delta)
    delta = (delta @ kernel.T) * (incoming > 0)
  return kernels, inputs, h, gradients[::-1]


def top(matrix):
  return np.linalg.norm(matrix, 2)


@pytest.mark.parametrize("member", [0, 1])
def test_alignment_and_growth(measured, member):
  kernels, inputs, logits, _ = forward(measured, member)
  for i, layer in enumerate(LAYERS):
    found = {k.split(":")[1]: v[member] for k, v in measured.rows.items() if k.startswith(layer)}
    v = np.linalg.svd(kernels[i])[0][:, :3]
    q = np.linalg.svd(inputs[i])[2][:3].T
    np.testing.assert_allclose(found["alignment"], np.sum((v.T @ q) ** 2) / 3, atol=2e-5)
    product, after = top(inputs[i] @ kernels[i]), top([*inputs[1:], logits][i])
    expected = {
      "log_weights": top(kernels[i]),
      "log_gain": product / (top(kernels[i]) * top(inputs[i])),
      "log_nonlinearity": after / product,
    }
    for name, value in expected.items():
      np.testing.assert_allclose(found[name], np.log(value), atol=1e-5, err_msg=f"{layer} {name}")
  parts = [v[member] for k, v in measured.rows.items() if ":log_" in k]
  assert len(parts) == 9
  whole = np.log(top(logits) / top(inputs[0]))
  np.testing.assert_allclose(sum(parts), whole, atol=1e-5)


@pytest.mark.parametrize("member", [0, 1])
def test_gradients(measured, member):
  *_, gradients = forward(measured, member)
  for layer, gradient in zip(LAYERS, gradients, strict=True):
    s = np.linalg.svd(gradient, compute_uv=False)
    p = s / s.sum()
    p = p[p > 0]
    expected = {
      "norm": s[0],
      "stable_rank": np.sum(s**2) / s[0] ** 2,
      "effective_rank": np.exp(-np.sum(p * np.log(p))),
      "numerical_rank": np.sum(s > 1e-3 * s[0]),
    }
    for name, value in expected.items():
      found = measured.rows[f"{layer}:gradient_{name}"][member]
      np.testing.assert_allclose(found, value, rtol=1e-4, err_msg=f"{layer} {name}")


def test_gradient_ranks_are_bounded_by_what_comes_in_and_by_the_classes(measured):
  """rank dL/dW_i <= rank A_(i-1), on images of rank 2; the head's at most C - 1."""
  rng = np.random.default_rng(0)
  images = (rng.normal(size=(40, 2)) @ rng.normal(size=(2, 64))).reshape(40, 8, 8, 1)
  state = measured.built.init()
  numbers = (jax.tree.map(lambda a: a[0], state[k]) for k in ("params", "extra", "numbers"))
  predictor = measured.built.predictor(*numbers)
  mean, std = measured.source.mean, measured.source.std
  raw = ((images * std + mean) * 255).astype(np.float32)  # what the network makes `images` of
  row = jax.jit(lambda x: measure_mechanism(predictor, x, measured.y, Mechanism(2, True)))(raw)
  assert row["layer1:gradient_numerical_rank"] == 2
  assert row["head/linear:gradient_numerical_rank"] <= 9
  assert measured.rows["head/linear:gradient_numerical_rank"].max() <= 9


def test_columns_are_off_by_default_and_do_not_change_the_identity_of_a_run(measured):
  assert not any("gradient" in key or "align" in key for key in base("a").evaluate)
  off = override(config(), {"measure.alignment": 0, "measure.gradients": False})
  assert scientific(off)["measure"] == {"count": 2, "images": 40}
  assert scientific(config())["measure"] == {
    "count": 2, "images": 40, "alignment": 3, "gradients": True
  }  # fmt: skip
  predictor = measured.built.predictor
  assert measure_mechanism(predictor, measured.x, measured.y, Mechanism()) == {}


def test_rows_keep_the_order_of_use(measured):
  rows = []
  log = SimpleNamespace(rows=rows.extend, timing=lambda *_, **__: None)
  record.make_measure(config(), measured.built, measured.source, log)(0, measured.built.init())
  layers = [key.split(":")[0] for key in rows[0] if ":" in key]
  order = list(dict.fromkeys(layers))
  assert order == ["layer1/relu", "layer2/relu", "logits", *LAYERS] and len(rows) == 2


def test_k_beyond_a_layer_is_refused_before_anything_is_written(tmp_path):
  with pytest.raises(ValueError, match=r"measure.alignment=11: layer 'head/linear' .* \(12, 10\)"):
    experiment.run(config(**{"measure.alignment": 11}), tmp_path)
  with pytest.raises(ValueError, match="measure.alignment=-1 must be at least 0"):
    experiment.run(config(**{"measure.alignment": -1}), tmp_path)
  assert not list(tmp_path.iterdir())
