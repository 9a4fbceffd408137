"""Tests of the look-up of a normaliser by name."""

import pytest

from rankbias import ops


@pytest.mark.parametrize("name", list(ops.NORMALIZERS))
def test_unknown_name(name):
  with pytest.raises(ValueError, match=f"did you mean '{name}'. Known: softmax"):
    ops.normalizer(name[:-1])


def test_known_name():
  assert ops.normalizer("softmax") is ops.softmax
