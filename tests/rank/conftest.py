"""The matrix whose singular values run from 1 to 1e-6, with NumPy's answer in float64."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits


def cosines(n, k):
  """Returns k orthonormal columns of length n: those of the discrete cosine transform."""
  angles = np.pi * (np.arange(n)[:, None] + 0.5) * np.arange(k) / n
  return np.cos(angles) * np.where(np.arange(k) == 0, np.sqrt(1 / n), np.sqrt(2 / n))


@pytest.fixture(scope="session")
def graded():
  """Returns (n, d, smallest) -> (float32 matrix, its singular values by NumPy in float64)."""
  made = {}

  def make(n, d, smallest=1e-6):
    if (n, d, smallest) not in made:
      k = min(n, d)
      x = (cosines(n, k) * np.geomspace(1, smallest, k)) @ cosines(d, k).T
      x = x.astype(np.float32)
      with threadpool_limits(1):  # threads that wait for each other are slow on a busy machine
        made[n, d, smallest] = x, np.linalg.svd(x.astype(np.float64), compute_uv=False)
    return made[n, d, smallest]

  return make
