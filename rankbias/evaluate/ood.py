"""Does the network notice foreign data? Detectors fitted to training images, and how they tell."""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from rankbias import rank
from rankbias.evaluate.detection import auroc, detection
from rankbias.evaluate.detectors import (
  DETECTORS,
  ODIN,
  dimension_of,
  fit_neco,
  neco_ratios,
  score_odin,
)
from rankbias.evaluate.detectors.odin import STEP
from rankbias.evaluate.labels import Seen, check_labels, first_labels
from rankbias.evaluate.linear_head import linear_head
from rankbias.evaluate.outputs import Outputs, outputs
from rankbias.evaluate.predictor import BATCH, Predictor, batches, joined
from rankbias.rank.float64 import delivers_float64, double_precision

KNOWN = (*DETECTORS, ODIN)
UNTEMPERED = "_untempered"  # of Z, where the plain name is of Z / T
NORMALISED = 1e-3  # logits whose log-sum-exp is this near to 0 everywhere are log-probabilities
ALL_DIMENSIONS = 32  # of the sweep of NECO; beyond, every dimension is this part larger
GROWTH = 1.1


def ood(
  predictor: Predictor,
  source: Any,
  *,
  others=None,
  images: int = 10000,
  fit_split: str = "train",
  split: str = "test",
  ood_split: str = "ood_test",
  detectors: Sequence[str] | None = None,
) -> dict[str, Any]:
  """Measures how well detectors tell the images of `split` from those of `ood_split`.

  Detectors are fitted to `fit_split` and see no image of the other distribution. They see the
  logits Z / T that the softmax is trained with; those that order Z in another way have a second
  entry, "<name>_untempered", of Z. A mixture has its log-probabilities at T in the place of Z / T,
  and at T = 1 in that of Z.

  Args:
    images: the first so many of each split.
    detectors: names of `detectors.DETECTORS` and "odin"; None takes all that the network allows. A
      mixture's log-probabilities have no level, which energy, ReAct, ViM and NECO times max logit
      use; ViM needs an affine head too.

  Returns:
    "ood" {detector: the measures of `detection`}; "ood_dimensions" {detector: of its subspace}, the
    default one, lowered to the rank of the features; "ortho_dev" (`rank.ortho_dev`);
    "neco_by_dimension" {"dimension", "auroc": lists; "rank" of the centred training features, which
    ends the sweep; "classes_less_1" and "best" {"dimension", "auroc"}}. The best dimension is that
    of the images that are measured: it is an upper bound, and no result of a detector.

  Raises:
    ValueError: a detector is unknown or cannot be had; `fit_split` lacks a class; as `outputs`.

  Source: Ben Ammar et al. 2023, arXiv:2310.06823 (protocol); detectors name their own.
  """
  check_detectors(detectors)
  splits = fit_split, split, ood_split
  seen = [outputs(predictor, source, name, images=images) for name in splits]
  check_labels("ood", fit_split, seen[0].labels, seen[0].logits.shape[1])
  names = _possible(predictor, seen[0], mixture := _is_mixture(seen[0]), detectors)
  same = float(predictor.temperature) == 1  # Z / T is Z
  both = [("", True)] if same else [("", True), (UNTEMPERED, False)]
  with double_precision() if delivers_float64() else nullcontext():
    found, used = {}, {}
    for suffix, tempered in both:
      views = [_view(predictor, o, tempered, mixture) for o in seen]
      own, lowered = _tables(names, views, _head(predictor, tempered), tempered)
      found |= {name + suffix: measures for name, measures in own.items()}
      used |= lowered
    sweep = _by_dimension(*(features for features, _ in views), seen[0].logits.shape[1])
    orthogonality = float(rank.ortho_dev(_class_means(seen[0]), views[2][0].mean(0)))
  if ODIN in names:
    for suffix, tempered in both:
      pair = (_odin_scores(predictor, source.splits[s], images, tempered) for s in splits[1:])
      found[ODIN + suffix] = detection(*pair)
  if same:
    found |= {n + UNTEMPERED: found[n] for n in names if n == ODIN or DETECTORS[n].scale_matters}
  tables = {"ood": found, "ood_dimensions": used}
  return tables | {"ortho_dev": orthogonality, "neco_by_dimension": sweep}


def labels_of_ood(
  source: Any, *, images: int = 10000, fit_split: str = "train", **_: Any
) -> Iterator[Seen]:
  """What `ood` sees of the labels, and the classes whose means it needs; others it does not read.

  KL matching is fitted to predicted classes, and leaves out one that is never predicted.
  """
  yield fit_split, first_labels(source, fit_split, images), source.num_classes


def check_detectors(detectors: Sequence[str] | None) -> None:
  """Raises for names of detectors that do not exist; None is all of them."""
  if isinstance(detectors, str):
    raise ValueError(f"detectors={detectors!r} must be a list of names, such as [{detectors!r}]")
  for name in detectors or ():
    if name not in KNOWN:
      raise ValueError(f"detectors: {name!r} is unknown; use {', '.join(KNOWN)}")


def _possible(predictor, fitted: Outputs, mixture: bool, detectors):
  """The names that were asked for; raises for those that this network does not allow."""
  lacking = {}
  if mixture:
    lacking = dict.fromkeys(("level", "affine"), "its logits are log-probabilities")
  elif not linear_head(predictor, *fitted.first(BATCH)[:2]):
    lacking = {"affine": "its head is not affine"}
  refused = {n: lacking[d.needs] for n, d in DETECTORS.items() if d.needs in lacking}
  for name in detectors or ():
    if name in refused:
      raise ValueError(f"detectors: {name!r} cannot be had of this network: {refused[name]}")
  return [n for n in KNOWN if n not in refused] if detectors is None else list(detectors)


def _is_mixture(fitted: Outputs) -> bool:
  return bool(np.abs(logsumexp(fitted.logits.astype(float), axis=-1)).max() < NORMALISED)


def _tables(names, views, head, tempered: bool) -> tuple[dict, dict]:
  """{detector: measures} and {detector: dimension} of those of arrays; of Z, where it matters."""
  found, used = {}, {}
  for name in names:
    if name != ODIN and (tempered or DETECTORS[name].scale_matters):
      scores, dimension = _scores(name, *views, head)
      found[name] = detection(*scores)
      used |= {} if dimension is None else {name: int(dimension)}
  return found, used


def _view(predictor, seen: Outputs, tempered: bool, mixture: bool):
  """Features and logits that a detector sees, in float64 where there is one."""
  logits = seen.logits.astype(float)
  if tempered:
    logits = seen.log_probs.astype(float) if mixture else logits / float(predictor.temperature)
  return jnp.asarray(seen.features.astype(float)), jnp.asarray(logits)


def _head(predictor, tempered: bool):
  temperature = predictor.temperature if tempered else 1.0
  own = jax.tree_util.Partial(predictor.head, predictor.head_params)
  return jax.tree_util.Partial(_divided, own, temperature)


def _divided(head, temperature, features):
  return head(features) / temperature


def _scores(name, fitted, inside, outside, head):
  """The scores of both kinds of images, through one compiled function, and `dimension_of`."""
  both = [jnp.concatenate(pair) for pair in zip(inside, outside, strict=True)]
  scores, dimension = _fit_and_score(name, fitted, both, head)
  return np.split(np.asarray(scores), [len(inside[0])]), dimension


@partial(jax.jit, static_argnums=0)
def _fit_and_score(name, fitted, both, head):
  detector = DETECTORS[name]
  parameters = detector.fit(*fitted, head)
  return detector.score(parameters, *both), dimension_of(parameters, both[1].shape[1])


def _by_dimension(fitted, inside, outside, classes: int) -> dict[str, Any]:
  """AUROC of NECO for every dimension up to the rank of the features, or every tenth part more."""
  parameters = jax.jit(fit_neco)(fitted, None)
  own_rank = int(parameters["rank"])
  chosen = dimensions(own_rank, classes - 1)
  ratios = np.asarray(jax.jit(neco_ratios)(parameters, jnp.concatenate([inside, outside])))
  known = np.arange(len(ratios)) < len(inside)
  areas = {d: auroc(ratios[:, d - 1], known) for d in chosen}
  best, simplex = max(areas, key=areas.get, default=None), min(classes - 1, own_rank)
  return {
    "dimension": chosen,
    "auroc": [areas[d] for d in chosen],
    "rank": own_rank,
    "classes_less_1": {"dimension": simplex, "auroc": areas.get(simplex)},
    "best": {"dimension": best, "auroc": areas.get(best)},
  }


def dimensions(largest: int, wanted: int) -> list[int]:
  """The dimensions of the sweep, 1 to `largest`: all at first, then every tenth part more.

  Example: dimensions(3, 9) is [1, 2, 3].
  """
  chosen, d = {wanted, largest}, 1
  while d < largest:
    chosen.add(d)
    d = d + 1 if d < ALL_DIMENSIONS else math.ceil(GROWTH * d)
  return sorted(d for d in chosen if 1 <= d <= largest)


def _class_means(fitted: Outputs):
  """The means of the features by class, each of which has images."""
  classes = fitted.logits.shape[1]
  member = fitted.labels[None, :] == np.arange(classes)[:, None]
  return member @ fitted.features.astype(float) / member.sum(1)[:, None]


def _odin_scores(predictor, split, images: int, tempered: bool):
  """ODIN moves raw inputs: its step, where 1 is white, is 255 times as long for bytes."""
  chosen = {name: rows[:images] for name, rows in split.items()}
  step = STEP * (255 if chosen["x"].dtype == np.uint8 else 1)
  parts = [
    np.asarray(_odin(predictor.functions(), tempered, predictor.numbers(), x, step))[weight > 0]
    for x, _, weight in batches(chosen)
  ]
  return np.concatenate(parts)


@partial(jax.jit, static_argnums=(0, 1))
def _odin(functions, tempered, numbers, x, step):
  predictor = joined(functions, numbers)

  def network(inputs):  # a common level of logits is nothing to ODIN, so log-probabilities serve
    features = predictor.apply(predictor.params, inputs)[0]
    if tempered:
      return predictor.log_probs(features)
    return predictor.head(predictor.head_params, features)

  return score_odin(network, jnp.asarray(x, jnp.float32), step=step)
