"""Is a network collapsed onto its classes, and where do foreign data lie? NC1-NC4, NC5 by layer."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from rankbias import rank
from rankbias.evaluate.labels import Seen, check_labels, first_labels
from rankbias.evaluate.linear_head import linear_head
from rankbias.evaluate.predictor import Predictor, batches
from rankbias.evaluate.spectra import collected, layer_names, matrices_of

FOREIGN = "ood_test"  # the split of another distribution, where the data have one


def collapse(
  predictor: Predictor,
  source: Any,
  *,
  others=None,
  images: int = 2048,
  max_features: int = 2048,
  split: str = "train",
) -> dict[str, Any]:
  """Neural collapse of every layer and the logits on the first `images` images of a split.

  The measures are those of `rank.neural_collapse`. Layers wider than `max_features` are
  represented by a fixed random subset of their features. Where the data have a split "ood_test",
  "ortho_dev" (NC5) is `rank.ortho_dev` of the class means and the mean of its first images.

  Returns:
    {"collapse": {"split", "images", "layers": {layer: {"nc1", "nc1_trace_ratio", "cdnv", "nc2",
    "ortho_dev"}}}}; the last hidden layer has "nc2_kernel", "nc3", "nc4" and "mean_logits_norm"
    too, where the head is a linear map of it (`linear_head`).

  Raises:
    ValueError: the labels are not one class an example, or a class has none among the images.

  Source: Papyan, Han & Donoho 2020, arXiv:2008.08186; Ben Ammar et al. 2023, arXiv:2310.06823.
  """
  for seen in labels_of_collapse(source, images=images, split=split):
    check_labels("collapse", *seen)
  chosen = source.splits[split]
  names = layer_names(predictor, chosen["x"][:1])
  matrices = collected(predictor, chosen, images, max_features)
  head = classifier(predictor, chosen["x"][:1], matrices[names[-2]], matrices["logits"])
  foreign = {}
  if FOREIGN in source.splits:
    foreign = means(predictor, source.splits[FOREIGN], images, max_features)
  labels, layers = chosen["y"][:images], {}
  for name in names:
    last = head if name == names[-2] else {}
    own = matrices.pop(name), labels, foreign.get(name), last
    found = jax.device_get(_measures(*own, source.num_classes))
    layers[name] = {key: float(value) for key, value in found.items()}
  return {"collapse": {"split": split, "images": len(labels), "layers": layers}}


def labels_of_collapse(
  source: Any, *, images: int = 2048, split: str = "train", **_: Any
) -> Iterator[Seen]:
  """What `collapse` sees of the splits, and the classes that it needs there."""
  yield split, first_labels(source, split, images), source.num_classes


def classifier(predictor: Predictor, x: Any, features: Any, logits: Any) -> dict[str, Any]:
  """{"kernel", "bias"} of the head, {} where it is no linear map or sees other features."""
  seen = jax.eval_shape(lambda x: predictor.apply(predictor.params, x)[0], x)
  if features.ndim != 2 or seen.shape[1:] != features.shape[1:]:
    return {}
  found = linear_head(predictor, features, logits)
  return dict(zip(("kernel", "bias"), found, strict=True)) if found else {}


def means(predictor: Predictor, chosen: Any, images: int, max_features: int) -> dict[str, Any]:
  """The mean of every layer over the first images of a split, a batch at a time."""
  total, count = {}, len(chosen["y"][:images])
  for x, y, weight in batches({name: rows[:images] for name, rows in chosen.items()}):
    own = matrices_of(predictor.functions(), predictor.numbers(), x, y, max_features)
    for layer, matrix in own.items():
      total[layer] = total.get(layer, 0) + weight @ np.asarray(matrix, np.float64) / count
  return {layer: value.astype(np.float32) for layer, value in total.items()}


@partial(jax.jit, static_argnums=4)
def _measures(matrix, labels, foreign, classifier, classes):
  found = rank.neural_collapse(matrix, labels, num_classes=classes, **classifier)
  row = {name: value for name, value in found._asdict().items() if value is not None}
  if foreign is not None:
    centers = rank.class_statistics(matrix, labels, num_classes=classes).means
    row["ortho_dev"] = rank.ortho_dev(centers, foreign)
  return row
