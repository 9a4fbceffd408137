"""How does training collapse a network? Alignment and growth of its layers, rank of its gradients.

Columns "<layer>:<measure>" of one measurement, beside those of `measure_layers`; here a layer is a
kernel, "layer3" or "head/linear", where there it is an activation, "layer3/relu".
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rankbias import ops, rank
from rankbias.evaluate.linear_maps import HEAD, kernels_of, linear_maps, shapes_of
from rankbias.evaluate.predictor import Predictor
from rankbias.evaluate.spectra import at_first_label, stacked

GRADIENT_RTOL = 1e-3  # of the numerical rank of a gradient, as of a layer


class Mechanism(NamedTuple):
  """What is measured of it, as the config says: nothing by default."""

  alignment: int = 0  # k of `measure_alignment`; 0 is off
  gradients: bool = False
  label_smoothing: float = 0.0  # of the loss whose gradients these are


def measure_mechanism(predictor: Predictor, x: Any, y: Any, chosen: Mechanism) -> dict[str, Any]:
  """The columns of what is chosen, on one batch. To be jitted, and vmapped, by the caller."""
  row = {}
  if chosen.alignment:
    row |= measure_alignment(predictor, x, k=chosen.alignment)
  if chosen.gradients:
    row |= measure_gradients(predictor, x, y, label_smoothing=chosen.label_smoothing)
  return row


def measure_alignment(predictor: Predictor, x: Any, *, k: int) -> dict[str, Any]:
  """Alignment, and the parts of the growth of the top singular value, of every linear map.

  "alignment" is `rank.alignment` at k; "log_weights", "log_gain" and "log_nonlinearity" are the
  parts of `rank.growth`, in nats, with the logits as the output of the last map. In a chain of
  layers they add up to the growth from the inputs to the logits.
  """
  maps, logits = linear_maps(predictor, x)
  kernels, inputs = zip(*maps.values(), strict=True)
  parts = rank.growth(kernels, inputs, logits)._asdict()
  row, alike = {}, {}
  for i, (layer, (kernel, incoming)) in enumerate(maps.items()):
    row |= {f"{layer}:log_{name}": values[i] for name, values in parts.items()}
    alike.setdefault((kernel.shape, incoming.shape), []).append(layer)
  for layers in alike.values():  # those of one shape compile once
    stacks = (jnp.stack(own) for own in zip(*(maps[layer] for layer in layers), strict=True))
    values = jax.vmap(partial(rank.alignment, k=k))(*stacks)
    row |= {f"{layer}:alignment": values[i] for i, layer in enumerate(layers)}
  return row


def measure_gradients(
  predictor: Predictor, x: Any, y: Any, *, label_smoothing: float = 0.0
) -> dict[str, Any]:
  """Ranks of the gradient of the loss by every kernel.

  The loss is that of training on these examples, in evaluation mode: without augmentation, dropout
  and regularizers, and with running averages. A kernel of a convolution is read as a matrix
  [height * width * channels, m]. "gradient_numerical_rank" counts singular values above 1e-3 of
  the largest; "gradient_norm" is the largest.
  """
  extra = {name: part for name, part in predictor.params.items() if name != "params"}

  def loss(params, head):
    own = predictor._replace(params={"params": params, **extra}, head_params={"params": head})
    features = at_first_label(own.apply(own.params, x)[0], y)
    labels = at_first_label(y[..., None], y)[..., 0]
    smoothed = {"label_smoothing": label_smoothing}
    return jnp.mean(ops.cross_entropy(own.log_probs(features), labels, **smoothed))

  both = predictor.params["params"], predictor.head_params["params"]
  body, head = jax.grad(loss, (0, 1))(*both)
  gradients = kernels_of(body) | {HEAD + name: g for name, g in kernels_of(head).items()}
  row = {}
  for layers, stack in stacked({n: g.reshape(-1, g.shape[-1]) for n, g in gradients.items()}):
    values = rank.singular_values(stack)
    measures = {
      "numerical_rank": rank.numerical_rank(values, rtol=GRADIENT_RTOL),
      "stable_rank": rank.stable_rank(values),
      "effective_rank": rank.effective_rank(values),
      "norm": values[:, 0],
    }
    for i, layer in enumerate(layers):
      row |= {f"{layer}:gradient_{name}": found[i] for name, found in measures.items()}
  return row


def check_alignment(predictor: Predictor, x: Any, k: int) -> None:
  """Raises where k is more than a layer has directions, before anything is computed."""
  shapes = shapes_of(predictor, x)
  if not shapes:
    raise ValueError(
      f"measure.alignment={k}: the network has no Dense or Conv layer to measure; set it to 0"
    )
  most = {name: min(*use.kernel.shape, *use.inputs.shape) for name, use in shapes.items()}
  layer = min(most, key=most.get)
  if k > most[layer]:
    kernel, inputs = (tuple(array.shape) for array in shapes[layer])
    raise ValueError(
      f"measure.alignment={k}: layer {layer!r} has a kernel of shape {kernel} and inputs of shape "
      f"{inputs}, so at most {most[layer]} directions to compare; set 1 to {most[layer]}, or 0 for "
      "none"
    )
