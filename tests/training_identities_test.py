"""Exact identities of training at a temperature, held by the project's own training step.

Two re-parametrisations make training at temperature T the same as training at T = 1 (sheet of
identities in docs/math.md): every step gives the same tempered logits z / T.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import data, network, program, rank
from rankbias.config import base, override
from rankbias.train import loop, parallel

T, LAYERS, STEPS = 7.0, 4, 300


def small_config(**own):
  c = base("identity")
  c.dtype = "float64"
  c.steps, c.batch_size = STEPS, 16
  c.data.limit = 64
  c.model.update(name="mlp", depth=LAYERS, width=16, use_bias=False)
  c.optimizer.update(learning_rate=0.02, weight_decay=1e-3)
  return override(c, own)


def trained_logits(config):
  """Tempered logits z / T of the training images after all steps, and the state."""
  source = data.load("digits", limit=config.data.limit)
  built = program.build([config], source)
  state = loop.train(
    built.chunk,
    parallel.replicate(built.init()),
    built.constants(),
    rows=built.rows,
    start=0,
    steps=config.steps,
    length=built.length,
    hooks=[],
    on_metrics=lambda *_: None,
    on_interrupt=lambda *_: None,
  )
  one = jax.tree.map(lambda x: x[0], parallel.one_device(state))
  predictor = built.predictor(one["params"], one["extra"], one["numbers"])
  features, _ = predictor.apply(predictor.params, source.splits["train"]["x"])
  logits = predictor.head(predictor.head_params, features)
  return np.asarray(logits / predictor.temperature), one


def test_homogeneous_network_at_T_is_one_at_1_with_a_smaller_start():
  """theta0 T^(-1/L), lr T^(-2/L), weight decay T^(2/L): exact for a bias-free ReLU network."""
  with jax.enable_x64(True):
    hot, _ = trained_logits(small_config(temperature=T))
    cold, _ = trained_logits(
      small_config(
        **{
          "init_scale": T ** (-1 / LAYERS),
          "optimizer.learning_rate": 0.02 * T ** (-2 / LAYERS),
          "optimizer.weight_decay": 1e-3 * T ** (2 / LAYERS),
        }
      )
    )
    start, _ = trained_logits(small_config(temperature=T, steps=1))
  assert hot.dtype == np.float64
  np.testing.assert_allclose(hot, cold, rtol=0, atol=1e-9 * np.abs(hot).max())
  assert np.abs(hot - start).max() > 1  # it did learn


HEAD = {  # in the place of a temperature
  "head_init_scale": 1 / T,
  "optimizer.head_learning_rate": T**-2,
  "optimizer.head_weight_decay": T**2,
}
BODIES = {
  "mlp": {"name": "mlp", "depth": LAYERS, "width": 16, "use_bias": True},
  "batch": {"name": "mlp", "depth": LAYERS, "width": 16, "use_bias": True, "norm": "batch"},
  "vit": {"name": "vit", "patch": 4, "width": 8, "depth": 1, "heads": 2},
}


@pytest.mark.parametrize(
  ("body", "steps"),
  [
    ("mlp", 100),
    pytest.param("batch", STEPS, marks=pytest.mark.slow),
    pytest.param("vit", 30, marks=pytest.mark.slow),
  ],
)
def test_any_network_with_a_linear_head_at_T_is_one_at_1_with_another_head(body, steps):
  """Head W / T with lr / T^2 and weight decay T^2; the body, norms and biases unchanged."""

  def config(**more):
    c = small_config(steps=steps)
    c.model = BODIES[body]
    c.head.use_bias = True
    return override(c, more)

  with jax.enable_x64(True):
    hot, _ = trained_logits(config(temperature=T))
    cold, _ = trained_logits(config(**HEAD))
    part, _ = trained_logits(config(head_init_scale=1 / T))
  np.testing.assert_allclose(hot, cold, rtol=0, atol=1e-9 * np.abs(hot).max())
  assert np.abs(hot - part).max() > 1e-3 * np.abs(hot).max()  # the head's start alone is not enough


def test_without_the_changes_the_runs_differ():
  with jax.enable_x64(True):
    hot, _ = trained_logits(small_config(temperature=T, steps=20))
    cold, _ = trained_logits(small_config(init_scale=T ** (-1 / LAYERS), steps=20))
  assert np.abs(hot - cold).max() > 1e-3 * np.abs(hot).max()


def exact_rank(matrix):
  return int(rank.numerical_rank(rank.singular_values(matrix, method="svd"), rtol=1e-10))


def test_gradient_rank_is_at_most_activation_rank():
  """rank dL/dW_i <= rank A_(i-1), and the head's at most C - 1: columns of P - Y sum to zero."""
  source = data.load("digits", limit=64)
  config = small_config()
  with jax.enable_x64(True):
    built = program.build([config], source)
    one = jax.tree.map(lambda x: x[0], built.init())
    directions = np.random.default_rng(0).normal(size=(3, 64))  # images of rank 3
    weights = np.random.default_rng(1).normal(size=(40, 3))
    x = jnp.asarray(weights @ directions).reshape(40, 8, 8, 1)
    model, head = network.build(config, source)

    def loss(params):
      features, acts = model.apply({"params": params["model"]}, x, False)
      labels = source.splits["train"]["y"][:40]
      return head.apply({"params": params["head"]}, features, labels, method="loss").mean(), acts

    grads, acts = jax.grad(loss, has_aux=True)(one["params"])
    inputs = [x.reshape(40, -1), *acts.values()]
    kernels = [*jax.tree.leaves(grads["model"]), *jax.tree.leaves(grads["head"])]
    ranks, limits = ([exact_rank(m) for m in matrices] for matrices in (kernels, inputs))
  assert limits[0] == 3 and ranks[0] == 3
  assert all(r <= limit for r, limit in zip(ranks, limits, strict=True))
  assert ranks[-1] <= source.num_classes - 1
