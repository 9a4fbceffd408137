"""Installs rankbias: `pip install -e .`, with the extras test, tensorboard and bench."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "rankbias/__init__.py").read_text())[1]

setup(
  name="rankbias",
  version=VERSION,
  description="What the softmax does to a network: temperature, rank and sharpness, in JAX.",
  long_description=(ROOT / "README.md").read_text(),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  packages=find_packages(include=["rankbias", "rankbias.*"]),
  python_requires=">=3.11",
  install_requires=[
    "absl-py>=2.1",
    "chex>=0.1.90",
    "flax>=0.11",
    "importlib_resources",  # tensorflow-datasets needs it and does not say so
    "jax>=0.7.2",
    "jaxtyping>=0.3",
    "matplotlib>=3.8",
    "ml_collections>=1.0",
    "numpy>=1.26",
    "optax>=0.2.5",
    "orbax-checkpoint>=0.11,<1",
    "pillow>=10",
    "scikit-learn>=1.4",
    "scipy>=1.12",
    "tensorflow-datasets>=4.9.7",
    "threadpoolctl>=3.1",
  ],
  extras_require={
    "test": [
      "beartype>=0.18",
      "hypothesis>=6.100",
      "ipykernel>=6",
      "ipywidgets>=8",
      "nbclient>=0.10",
      "nbformat>=5",
      "pytest>=8",
      "pytest-xdist>=3.5",
      "ruff>=0.14",
      "tensorboardX>=2.6",
    ],
    "bench": ["entmax>=1.3", "torch>=2.2"],  # peers that benchmarks/normalizers.py times
    "tensorboard": ["tensorboardX>=2.6"],
  },
)
