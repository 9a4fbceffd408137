"""The restricted unpickler: arrays pass, code does not."""

import os
import pickle

import numpy as np
import pytest

from rankbias.data import DataFileError, facts, load
from rankbias.data.pickles import load_arrays


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_arrays_of_every_protocol(protocol):
  data = np.arange(12, dtype=np.uint8).reshape(3, 4)
  content = load_arrays(pickle.dumps({"data": data, b"labels": [1, 2, 3]}, protocol=protocol))
  np.testing.assert_array_equal(content["data"], data)
  assert content["labels"] == [1, 2, 3]


def test_python_2_opcodes():
  """A pickle as Python 2 wrote it: 8-bit strings for the keys, the dtype and the array's bytes."""
  content = load_arrays(
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04"
    b"K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07"
    b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x03\x00\x80\xfftbu."
  )
  np.testing.assert_array_equal(content["data"], np.array([[0, 128, 255]], np.uint8))


class Malicious:
  def __init__(self, function, *args):
    self.call = (function, args)

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize(
  "payload",
  [
    Malicious(os.system, "touch {}"),
    Malicious(eval, "open({!r}, 'w')"),
    Malicious(np.save, "{}", [1]),
    Malicious(os.mkdir, "{}"),
  ],
)
def test_code_is_refused_and_not_run(tmp_path, payload):
  trap = tmp_path / "trap.npy"
  function, (text, *rest) = payload.call
  payload.call = (function, (text.format(str(trap)), *rest))
  with pytest.raises(pickle.UnpicklingError, match="which a data file has no use for"):
    load_arrays(pickle.dumps({"data": payload}, protocol=2))
  assert not trap.exists()


def test_other_codecs_are_refused():
  import codecs

  with pytest.raises(pickle.UnpicklingError, match="codec 'zip'"):
    load_arrays(pickle.dumps({"x": Malicious(codecs.encode, "x", "zip")}, protocol=2))


def test_a_batch_that_is_malicious_is_named(small, tmp_path):

  folder = small.write(
    "cifar10", facts.FACTS["cifar10"].layouts[0], tmp_path / "cifar-10-batches-py"
  )
  (folder / "test_batch").write_bytes(pickle.dumps(Malicious(os.system, "true"), protocol=2))
  with pytest.raises(DataFileError, match=r"test_batch: .* asks for posix.system"):
    load("cifar10", dir=str(tmp_path), download=False)


def test_not_a_dict():
  with pytest.raises(pickle.UnpicklingError, match="holds a list, not a dict"):
    load_arrays(pickle.dumps([1, 2]))
