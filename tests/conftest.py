"""Four fake CPU devices, rank promotion an error, shapes checked where signatures state them.

Compiled programs are dropped after every module: each holds memory maps of the process, of which
Linux allows 65,530, and all programs of a run of the tests together need more.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin when tests run in parallel

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")

install_import_hook(["rankbias.ops", "rankbias.rank"], "beartype.beartype")


@pytest.fixture(scope="module", autouse=True)
def _drop_compiled_programs():
  yield
  jax.clear_caches()
