"""What attention answers to arguments that do not fit: the argument, its shape and the remedy."""

import numpy as np
import pytest

from rankbias import ops

Q, K, V = (np.zeros(shape, np.float32) for shape in ((2, 5, 6, 4), (2, 7, 3, 4), (2, 7, 3, 4)))
LENGTHS = np.array([1, 2, 3])


@pytest.mark.parametrize(
  ("arguments", "options", "message"),
  [
    ((Q[0, 0], K, V), {}, r"query of shape \(6, 4\).*all need the same axes"),
    ((Q, K[0], V), {}, r"key of shape \(7, 3, 4\) beside query of shape \(2, 5, 6, 4\)"),
    ((Q, K, V[0]), {}, r"value of shape \(7, 3, 4\) beside query"),
    ((Q, K[:1], V), {}, r"key of shape \(1, 7, 3, 4\) does not fit query"),
    ((Q, K[..., :3], V), {}, r"key of shape \(2, 7, 3, 3\) does not fit query"),
    ((Q[:, :, :4], K, V), {}, "the query heads a multiple of the key heads"),
    ((Q, K, V[:, :6]), {}, r"value of shape \(2, 6, 3, 4\) does not fit key"),
    ((Q, K, V), {"mask": np.ones((2, 2, 5, 7), bool)}, r"mask of shape \(2, 2, 5, 7\) does not"),
    ((Q, K, V), {"mask": np.ones((3, 1, 1, 1, 1), bool)}, "mask of shape"),
    ((Q, K, V), {"bias": np.ones((5, 6), np.float32)}, r"broadcast to \(2, 6, 5, 7\)"),
    ((Q, K, V), {"query_seq_lengths": LENGTHS}, r"query_seq_lengths of shape \(3,\) does not"),
    ((Q, K, V), {"key_value_seq_lengths": LENGTHS}, "key_value_seq_lengths of shape"),
    (
      (Q, K, V),
      {"normalizer": lambda logits, *, axis, where: logits.sum(axis)},
      r"turns logits of shape \(2, 6, 5, 7\) into \(2, 6, 5\): it must keep the shape",
    ),
  ],
)
def test_shapes(arguments, options, message):
  with pytest.raises(ValueError, match=message):
    ops.dot_product_attention(*arguments, **options)


@pytest.mark.parametrize(
  ("arguments", "options", "message"),
  [
    ((Q, K, V.astype(int)), {}, "value has dtype int.*needs a floating dtype. Cast it"),
    ((Q, K, V), {"mask": np.ones((5, 7))}, "mask has dtype float.*an additive mask goes into bias"),
    ((Q, K, V), {"query_seq_lengths": np.ones(2)}, "query_seq_lengths has dtype float.*integers"),
    ((Q, K, V), {"local_window_size": (1, 2, 3)}, r"local_window_size = \(1, 2, 3\) must be one"),
    ((Q, K, V), {"normalizer": "softmax"}, "normalizer = 'softmax' is no function.*ops.normalizer"),
  ],
)
def test_types(arguments, options, message):
  """Called without the type checks that the tests switch on, as a user would."""
  attend = ops.dot_product_attention
  while hasattr(attend, "__wrapped__"):
    attend = attend.__wrapped__
  with pytest.raises(ValueError, match=message):
    attend(*arguments, **options)
