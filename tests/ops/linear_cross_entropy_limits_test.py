"""The streamed cross-entropy: what it keeps, how many products it takes, and what it refuses."""

import jax
import numpy as np
import pytest

from rankbias import ops


def equations(closed):
  """All equations of a jaxpr, inner jaxprs included."""
  for equation in closed.jaxpr.eqns:
    yield equation
    for inner in jax.tree.leaves(
      tuple(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")
    ):
      if hasattr(inner, "jaxpr") and hasattr(inner.jaxpr, "eqns"):
        yield from equations(inner)


def training(reduction, tokens=512, classes=1030):
  """The gradient of a loss with a map, and its arguments."""
  rng = np.random.default_rng(3)
  arrays = [rng.normal(size=s).astype("f4") for s in ((tokens, 8), (8, classes), 50)]
  labels = rng.integers(0, classes, tokens)

  def objective(h, w, p):
    options = {"chunk": (64, 128), "logit_map": ops.plif_map(p, bound=5.0)}
    return ops.linear_cross_entropy(h, w, labels, reduction=reduction, **options)[0].sum()

  return jax.value_and_grad(objective, (0, 1, 2)), arrays


@pytest.mark.parametrize(("reduction", "products"), [(None, 4), ("mean", 3)])
def test_no_array_holds_all_logits_and_products_are_few(reduction, products):
  function, arrays = training(reduction)
  found = list(equations(jax.make_jaxpr(function)(*arrays)))
  largest = max(np.prod(x.aval.shape, initial=1) for e in found for x in e.outvars)
  blocks = 64 * (1 if reduction is None else 9) * 128
  assert largest <= max(blocks, 8 * 1030) < 512 * 1030 / 7
  assert sum(e.primitive.name == "dot_general" for e in found) == products


@pytest.mark.parametrize("reduction", [None, "mean"])
def test_memory(reduction):
  function, arrays = training(reduction, 2048)
  compiled = jax.jit(function).lower(*arrays).compile()
  # Four blocks of 64 tokens and the gradient of the kernel, against 8.4 MB of logits.
  assert compiled.memory_analysis().temp_size_in_bytes < 2048 * 1030 * 4 / 6


@pytest.mark.parametrize("reduction", [None, "mean"])
def test_the_log_sum_exp_has_a_gradient_unless_the_loss_is_a_mean(reduction):
  rng = np.random.default_rng(3)
  h, w = rng.normal(size=(6, 4)).astype("f4"), rng.normal(size=(4, 5)).astype("f4")

  def penalty(w):
    return ops.linear_cross_entropy(h, w, np.zeros(6, int), reduction=reduction)[1].logsumexp.sum()

  gradient = jax.grad(penalty)(w)
  expected = 0 if reduction else h.T @ np.asarray(jax.nn.softmax(h @ w))
  np.testing.assert_allclose(gradient, np.broadcast_to(expected, w.shape), rtol=1e-4, atol=1e-5)


H, W, Y = np.ones((2, 3, 4), "f4"), np.ones((4, 5), "f4"), np.zeros((2, 3), int)
REFUSED = {
  "label too large": ((H, W, Y + 5), {}, r"labels hold 5, and the classes are 0\.\.4"),
  "negative label": ((H, W, Y - 1), {"where": Y == 0}, "labels hold -1"),
  "layout": ((H, W, Y), {"kernel_layout": "vh"}, "kernel_layout = 'vh'"),
  "transposed": ((H, W, Y), {"kernel_layout": "vd"}, r"\(4, 5\).*'vd' needs \[V, d\]"),
  "no classes": ((H, W[:, :0], Y), {}, r"kernel of shape \(4, 0\)"),
  "reduction": ((H, W, Y), {"reduction": "sum"}, "reduction = 'sum'"),
  "shape of labels": ((H, W, Y[0]), {}, r"labels of shape \(3,\).*\(2, 3\)"),
  "bias": ((H, W, Y), {"bias": H[0, 0]}, r"bias of shape \(4,\) must be \(5,\)"),
  "where": ((H, W, Y), {"where": Y[:, :2] == 0}, "where of shape"),
  "temperature": ((H, W, Y), {"temperature": 0.0}, "temperature = 0.0 must be positive"),
  "chunk 0": ((H, W, Y), {"chunk": 0}, r"chunk = \(0, 0\)"),
  "chunk of a block": ((H, W, Y), {"chunk": (4, 0)}, r"chunk = \(4, 0\)"),
  "three chunks": ((H, W, Y), {"chunk": (4, 2, 2)}, "one or two numbers"),
  "map": ((H, W, Y), {"logit_map": lambda z: z.sum()}, "it must map every entry"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments(case):
  arguments, options, message = REFUSED[case]
  with pytest.raises(ValueError, match=message):
    ops.linear_cross_entropy(*arguments, **options)


@pytest.mark.parametrize("where", [None, np.ones((2, 3), bool)])
def test_known_labels_are_checked_while_the_rest_is_traced(where):
  priors = H[..., :2]
  losses = {
    "linear": lambda h: ops.linear_cross_entropy(h, W, Y + 5, where=where)[0],
    "mixture": lambda h: ops.mixture_cross_entropy(
      priors, h[:, :, None].repeat(2, 2), W, Y + 5, where=where
    )[0],
    "facets": lambda h: ops.partitioned_cross_entropy(h[:, :, None], W, Y + 5, where=where)[0],
  }
  for loss in losses.values():
    with pytest.raises(ValueError, match=r"labels hold 5, and the classes are 0\.\.4"):
      jax.jit(loss)(H)


def test_labels_of_tokens_left_out_are_not_checked():
  where = np.array([[True, True, False], [True, True, True]])
  loss, _ = ops.linear_cross_entropy(H, W, np.where(where, 0, -100), where=where)
  np.testing.assert_allclose(loss, np.where(where, np.log(5), 0), rtol=1e-6)


@pytest.mark.parametrize(("dtype", "classes"), [("uint8", 256), ("int8", 128), ("uint16", 70_000)])
def test_labels_may_be_narrower_than_the_number_of_classes(dtype, classes):
  rng = np.random.default_rng(5)
  h, w = (rng.normal(size=shape).astype("f4") for shape in ((4, 2), (2, classes)))
  labels = np.array([0, 3, 100, min(classes, 127)], dtype)
  narrow, wide = (
    jax.jit(lambda y: ops.linear_cross_entropy(h, w, y)[0])(y) for y in (labels, labels.astype(int))
  )
  np.testing.assert_array_equal(narrow, wide)
  assert np.isfinite(narrow).all()
