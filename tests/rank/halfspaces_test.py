"""Tests of the largest ball between half-spaces: closed forms, whole programs, failures."""

import numpy as np
import pytest
from scipy.optimize import OptimizeResult, linprog

from rankbias.rank.halfspaces import largest_ball

RNG = np.random.default_rng(0)


def test_closed_forms():
  square = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
  x, radius = largest_ball(square, np.array([3.0, 1, 1, 1]), box=100.0, start=np.zeros(2))
  assert radius == pytest.approx(1) and abs(x[1]) < 1e-9
  # Normals of any length, a half-space of normal zero that holds, and one that does not.
  longer = np.vstack([square * 7, np.zeros(2)])
  offsets = np.array([7.0, 7, 7, 7, 1])
  assert largest_ball(longer, offsets, box=100.0, start=np.ones(2))[1] == pytest.approx(1)
  offsets[-1] = 0
  assert largest_ball(longer, offsets, box=100.0, start=np.ones(2))[1] == -np.inf
  assert largest_ball(np.zeros((0, 2)), np.zeros(0), box=1.0, start=np.ones(2))[1] == np.inf


@pytest.mark.parametrize("d", [2, 5])
def test_growing_programs_agree_with_the_whole_one(d):
  for _ in range(10):
    normals = RNG.normal(size=(80, d))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    offsets = RNG.uniform(-0.2, 2, size=80)
    whole = linprog(
      -np.eye(d + 1)[-1],
      A_ub=np.hstack([normals, np.ones((80, 1))]),
      b_ub=offsets,
      bounds=[(-9, 9)] * d + [(None, None)],
    )
    x, radius = largest_ball(normals, offsets, box=9.0, start=np.zeros(d))
    if whole.x[-1] > 1e-6:
      assert radius == pytest.approx(whole.x[-1], rel=1e-6)
      assert np.min(offsets - normals @ x) == pytest.approx(radius, rel=1e-6)
    else:
      assert radius < 1e-6


def test_a_failed_solver_raises(monkeypatch):
  monkeypatch.setattr(
    "scipy.optimize.linprog", lambda *a, **k: OptimizeResult(status=4, message="Trouble.", x=None)
  )
  with pytest.raises(RuntimeError, match="HiGHS found no largest ball of 1 half-spaces.*Trouble"):
    largest_ball(np.ones((1, 2)), np.ones(1), box=1.0, start=np.zeros(2))
