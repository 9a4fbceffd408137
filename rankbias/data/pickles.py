"""Reads the pickled CIFAR batches without giving a pickle the power to run code."""

import codecs
import io
import pickle

import numpy as np

try:
  from numpy._core.multiarray import _reconstruct
except ImportError:  # NumPy 1
  from numpy.core.multiarray import _reconstruct


class _Refused(pickle.UnpicklingError):
  pass


def _encode_latin1(text: str, encoding: str) -> bytes:
  if encoding != "latin1":
    raise _Refused(f"it asks for the codec {encoding!r}; only latin1 is allowed")
  return codecs.encode(text, encoding)


ALLOWED = {
  ("numpy", "dtype"): np.dtype,
  ("numpy", "ndarray"): np.ndarray,
  ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
  ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
  ("_codecs", "encode"): _encode_latin1,
}


class ArrayUnpickler(pickle.Unpickler):
  """Builds dicts, lists, text, numbers and numpy arrays; refuses every other global name."""

  def find_class(self, module: str, name: str):
    if (module, name) not in ALLOWED:
      raise _Refused(f"it asks for {module}.{name}, which a data file has no use for")
    return ALLOWED[module, name]


def load_arrays(data: bytes) -> dict:
  """Unpickles a dict of arrays written by Python 2 or 3; its keys come back as text.

  Raises:
    pickle.UnpicklingError: the pickle asks for anything but numpy arrays, or is no such dict.
  """
  content = ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
  if not isinstance(content, dict):
    raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, not a dict")
  return {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in content.items()}
