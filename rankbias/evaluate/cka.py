"""How alike are the layers of networks that differ in temperature or seed? CKA between members."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rankbias import rank
from rankbias.evaluate.predictor import Predictor, joined
from rankbias.evaluate.spectra import layer_matrices, layer_names

EVERY = 2**31  # features of a layer


def cka(
  predictors: Sequence[Predictor | None],
  source: Any,
  *,
  images: int = 1024,
  batch: int = 256,
  debiased: bool = True,
  split: str = "test",
) -> dict[str, Any]:
  """Linear CKA of every layer between all pairs of networks, over the first images of a split.

  h_ab / sqrt(h_aa h_bb) with h of `rank.hsic` averaged over equal batches of at most `batch`
  images: `rank.linear_cka` where one batch holds them all. Memory is a Gram matrix [batch, batch]
  a layer and network, whatever the number of images and features. With `debiased`, independent
  layers have about 0; without, a batch smaller than the width makes all layers look alike.

  Args:
    predictors: of one program, in the order of its members; None for one that diverged, whose rows
      and columns are NaN, as are those of a layer that is the same for all images.

  Returns:
    {"cka": {"split", "images", "batch", "debiased"}, "similarity": {layer: [members, members]}}.

  Source: Kornblith et al. 2019, arXiv:1905.00414; Nguyen, Raghu & Kornblith 2021, arXiv:2010.15327.
  """
  x, y = (source.splits[split][name][:images] for name in ("x", "y"))
  parts = max(1, -(-len(y) // batch))
  size = len(y) // parts
  finished = [m for m, predictor in enumerate(predictors) if predictor is not None]
  total, scale = {}, {}
  for start in range(0, parts * size if finished else 0, size):
    rows = slice(start, start + size)
    grams = [_grams(*_own(predictors[m]), x[rows], y[rows]) for m in finished]
    for layer in grams[0]:
      stack = jnp.stack([gram[layer] for gram in grams])
      if layer not in scale:  # CKA does not see it, and no square overflows
        scale[layer] = jnp.trace(stack, axis1=1, axis2=2)[:, None, None]
      found = rank.hsic(stack / scale[layer], debiased=debiased)
      total[layer] = total.get(layer, 0) + np.asarray(found, np.float64)
  names = layer_names(predictors[finished[0]], x[:1]) if finished else []
  similarity = {}
  for layer in names:
    own = np.diagonal(total[layer])
    own = np.sqrt(np.where(own > 0, own, np.nan))
    similarity[layer] = np.full((len(predictors),) * 2, np.nan)
    similarity[layer][np.ix_(finished, finished)] = total[layer] / (own[:, None] * own[None, :])
  summary = {"split": split, "images": parts * size, "batch": size, "debiased": debiased}
  return {"cka": summary, "similarity": similarity}


def _own(predictor):
  return predictor.functions(), predictor.numbers()


@partial(jax.jit, static_argnums=0)
def _grams(functions, numbers, x, y):
  """The Gram matrix of the images of a batch, centred, in every layer."""
  matrices, _ = layer_matrices(joined(functions, numbers), x, y, EVERY)

  def gram(matrix):
    matrix = matrix - jnp.mean(matrix, axis=0, keepdims=True)
    return jnp.matmul(matrix, matrix.T, precision=jax.lax.Precision.HIGHEST)

  return {layer: gram(matrix) for layer, matrix in matrices.items()}
