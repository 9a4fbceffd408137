"""VGG and ResNet: the published sizes, reading points, and BatchNorm over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rankbias.models import build_head, build_model, scale_kernels
from rankbias.models.layers import BatchNorm

F64 = {"dtype": "float64", "param_dtype": "float64"}
TINY = {"width": 4, "stage_sizes": (1, 1), **F64}
SMALL = {"width": 4, "stage_sizes": (1,), **F64}
CIFAR = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)


def shapes(model, x=CIFAR):
  """The shapes of variables, features and activations, without computing anything."""
  variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)
  features, acts = jax.eval_shape(lambda v, x: model.apply(v, x), variables, x)
  return variables, features, acts


def parameters(model, classes=10):
  variables, features, _ = shapes(model)
  head = build_head("linear", classes)
  own = jax.eval_shape(lambda f: head.init(jax.random.key(0), f), features)
  return sum(p.size for p in jax.tree.leaves((variables["params"], own["params"])))


@pytest.mark.parametrize(
  ("name", "options", "expected"),
  [
    ("resnet18", {}, 11_173_962),  # public CIFAR implementations
    ("resnet34", {}, 21_282_122),
    ("vgg", {"layers": 11, "use_bias": True}, 9_231_114),
    ("vgg", {"layers": 13, "use_bias": True}, 9_416_010),
    ("vgg", {"layers": 16, "use_bias": True}, 14_728_266),
    ("vgg", {"layers": 19, "use_bias": True}, 20_040_522),
    ("vgg", {"layers": 16}, 14_728_266 - 4_224),
    ("vgg", {"layers": 16, "norm": "none", "use_bias": True}, 14_714_688 + 5_130),
  ],
)
def test_parameter_counts_are_the_published_ones(name, options, expected):
  assert parameters(build_model(name, **options)) == expected


def test_a_hundred_classes_only_change_the_head():
  assert parameters(build_model("resnet18"), 100) == 11_173_962 + 90 * 513


def test_weight_layers_are_the_numbers_in_the_names():
  assert build_model("resnet18").weight_layers == 18
  assert build_model("resnet34").weight_layers == 34
  assert build_model("vgg", layers=16).weight_layers == 14  # one dense layer in place of three
  assert build_model("vgg", layers=19).weight_layers == 17


def test_resnet_halves_the_image_and_doubles_the_width_per_stage():
  _, features, acts = shapes(build_model("resnet18"))
  assert acts["stem/relu"].shape == (2, 32, 32, 64)
  ends = [acts[f"block{i}/relu"].shape for i in (2, 4, 6, 8)]
  assert ends == [(2, 32, 32, 64), (2, 16, 16, 128), (2, 8, 8, 256), (2, 4, 4, 512)]
  assert features.shape == acts["pool"].shape == (2, 512)


@pytest.mark.parametrize("flatten", [False, True])
def test_vgg_pools_a_32x32_image_to_a_point(flatten):
  _, features, acts = shapes(build_model("vgg", flatten=flatten))
  assert len(acts) == 14
  assert acts["conv1/relu"].shape == (2, 32, 32, 64)
  assert acts["conv13/relu"].shape == (2, 2, 2, 512)
  assert features.shape == (2, 512)


def test_small_images_pass_and_flatten_keeps_positions():
  digits = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
  assert shapes(build_model("vgg"), digits)[1].shape == (2, 512)
  assert shapes(build_model("resnet18"), digits)[1].shape == (2, 512)
  two = build_model("vgg", width=4, stage_sizes=(1, 1), flatten=True)
  assert shapes(two, digits)[1].shape == (2, 2 * 2 * 8)


def test_vgg_is_homogeneous_without_norms_and_biases():
  x = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
  with jax.enable_x64(True):
    model = build_model("vgg", norm="none", **TINY)
    variables = model.init(jax.random.key(0), x)
    out = model.apply(variables, x)[0]
    np.testing.assert_allclose(model.apply(variables, 3.0 * x)[0], 3.0 * out, rtol=1e-12)
    scaled = {"params": scale_kernels(variables["params"], 1.7)}
    expected = 1.7 ** (model.weight_layers - 1) * out  # what the rule "equivalent" stands on
    np.testing.assert_allclose(model.apply(scaled, x)[0], expected, rtol=1e-12)


def test_a_block_adds_its_convolutions_to_its_input():
  x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
  model = build_model("resnet18", width=4, stage_sizes=(1,))
  variables = model.init(jax.random.key(0), x)
  silent = jax.tree.map(lambda p: p, variables)
  silent["params"]["block1"]["conv2_norm"]["norm"]["scale"] *= 0.0
  acts = model.apply(silent, x)[1]
  np.testing.assert_allclose(acts["block1/relu"], acts["stem/relu"])


def test_batch_norm_is_that_of_flax():
  x = np.random.default_rng(1).normal(3.0, 2.0, size=(8, 4, 4, 3)).astype(np.float32)
  ours, theirs = BatchNorm(), nn.BatchNorm(momentum=0.9)
  params = {"scale": jnp.array([1.0, 2.0, -1.0]), "bias": jnp.array([0.0, 1.0, 2.0])}
  variables = {"params": params, "batch_stats": {"mean": jnp.ones(3), "var": 2 * jnp.ones(3)}}
  y, stats = ours.apply(variables, x, True, mutable=["batch_stats"])
  expected = theirs.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
  np.testing.assert_allclose(y, expected[0], atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), stats, expected[1])
  expected = theirs.apply(variables, x, use_running_average=True)
  np.testing.assert_allclose(ours.apply(variables, x, False), expected, atol=1e-5)


class TestBatchNorm:
  images = np.random.default_rng(1).normal(size=(8, 8, 8, 3))

  def on_four_devices(self, model, variables):
    parts = self.images.reshape(4, 2, *self.images.shape[1:])
    run = jax.pmap(
      lambda v, x: model.apply(v, x, True, mutable=["batch_stats"]),
      axis_name="data",
      in_axes=(None, 0),
    )
    return run(variables, parts)

  def test_training_on_four_devices_equals_one(self):
    with jax.enable_x64(True):
      alone = build_model("resnet18", **TINY)
      synced = build_model("resnet18", axis_name="data", **TINY)
      variables = jax.jit(synced.init)(jax.random.key(0), self.images)  # not in a mapped axis
      train = jax.jit(lambda v, x: alone.apply(v, x, True, mutable=["batch_stats"]))
      (features, _), stats = train(variables, self.images)
      (many, _), shared = self.on_four_devices(synced, variables)
    np.testing.assert_allclose(np.concatenate(many), features, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(jax.tree.leaves(stats), jax.tree.leaves(shared), strict=True):
      for device in range(4):
        np.testing.assert_allclose(theirs[device], ours, rtol=1e-10, atol=1e-12)

  def test_without_the_axis_name_devices_disagree(self):
    with jax.enable_x64(True):
      model = build_model("vgg", **SMALL)
      variables = model.init(jax.random.key(0), self.images)
      _, stats = self.on_four_devices(model, variables)
    mean = np.asarray(stats["batch_stats"]["conv1_norm"]["norm"]["mean"])
    assert np.abs(mean[0] - mean[1]).max() > 1e-4

  def test_training_normalises_and_updates_the_running_average_by_a_tenth(self):
    with jax.enable_x64(True):
      model = build_model("vgg", **SMALL)
      variables = model.init(jax.random.key(0), self.images)
      (_, acts), new = model.apply(variables, self.images, True, mutable=["batch_stats"])
      kernel = variables["params"]["conv1"]["kernel"]
      z = np.asarray(
        jax.lax.conv_general_dilated(
          self.images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
      )
    mean, var = z.mean((0, 1, 2)), z.var((0, 1, 2))
    stats = new["batch_stats"]["conv1_norm"]["norm"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-9)
    expected = np.maximum((z - mean) / np.sqrt(var + 1e-5), 0)
    np.testing.assert_allclose(acts["conv1/relu"], expected, atol=1e-9)

  def test_evaluation_uses_the_running_averages(self):
    with jax.enable_x64(True):
      model = build_model("vgg", **SMALL)
      variables = model.init(jax.random.key(0), self.images)
      before = model.apply(variables, self.images, False)[0]
      moved = {
        **variables,
        "batch_stats": jax.tree.map(lambda s: s + 1.0, variables["batch_stats"]),
      }
      after = model.apply(moved, self.images, False)[0]
      (training, _), _ = model.apply(moved, self.images, True, mutable=["batch_stats"])
      (same, _), _ = model.apply(variables, self.images, True, mutable=["batch_stats"])
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_array_equal(training, same)


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("vgg", {"layers": 15}, r"layers=15 is no VGG: choose one of \[11, 13, 16, 19\]"),
    ("vgg", {"stage_sizes": (1,) * 6}, "must have 1 to 5 stages"),
    ("vgg", {"norm": "group"}, "norm='group' is unknown"),
    ("resnet18", {"stage_sizes": ()}, "at least one block per stage"),
    ("resnet34", {"norm": "group"}, "norm='group' is unknown"),
  ],
)
def test_refused_options_name_the_remedy(name, options, message):
  with pytest.raises(ValueError, match=message):
    build_model(name, **options)
