"""Four fake CPU devices, rank promotion an error, shapes checked where signatures state them."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin when tests run in parallel

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")

install_import_hook(["rankbias.ops", "rankbias.rank"], "beartype.beartype")
