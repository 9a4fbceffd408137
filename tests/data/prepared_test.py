"""TFDS without TensorFlow: download, prepare, and read back what was published."""

import json
import shutil
import struct
import sys

import numpy as np
import pytest

from rankbias.data import DataFileError, facts, load, prepared

tfds = pytest.importorskip("tensorflow_datasets")
pytestmark = pytest.mark.usefixtures("published")


def prepare_only(name, folder):
  """Downloads and prepares, then removes the original files; returns the prepared folder."""
  load(name, dir=str(folder))
  shutil.rmtree(folder / "downloads")
  return prepared.find(folder, facts.FACTS[name])


@pytest.mark.parametrize("name", list(facts.FACTS))
def test_downloaded_prepared_and_read_back_in_the_original_order(small, tmp_path, name):
  small.assert_equal(load(name, dir=str(tmp_path)), name)
  shutil.rmtree(tmp_path / "downloads")
  source = load(name, dir=str(tmp_path), download=False)
  small.assert_equal(source, name)
  version = tmp_path / facts.FACTS[name].tfds_name
  assert str(version) in source.origin
  assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("name", list(facts.FACTS))
def test_tfds_itself_reads_what_was_prepared(small, tmp_path, name):
  version = prepare_only(name, tmp_path)
  source = tfds.builder_from_directory(version).as_data_source("test")
  arrays = small.arrays[name]["test"]
  assert len(source) == len(arrays["y"])
  known = {x.tobytes(): int(y) for x, y in zip(arrays["x"], arrays["y"], strict=True)}
  for example in source:
    assert known[example["image"].tobytes()] == example["label"]
    if name == "cifar100":
      assert example["coarse_label"] == example["label"] % 20
  official = tfds.builder(facts.FACTS[name].tfds_name, data_dir=tmp_path)
  assert official.info.features["label"].names == list(facts.FACTS[name].class_names)


def test_records_are_stored_in_another_order_than_read(small, tmp_path):
  version = prepare_only("mnist", tmp_path)
  stored = tfds.builder_from_directory(version).as_data_source("train")
  labels = np.array([example["label"] for example in stored])
  assert not np.array_equal(labels, small.arrays["mnist"]["train"]["y"])


@pytest.mark.parametrize("place", [".", "cifar10", "cifar10/{version}"])
def test_the_folder_may_be_any_of_three(small, tmp_path, place):
  version = prepare_only("cifar10", tmp_path)
  folder = tmp_path / place.format(version=version.name)
  small.assert_equal(load("cifar10", dir=str(folder), download=False), "cifar10")


def as_tfrecord(version):
  """Rewrites a prepared set in the other record format, as TFDS with TensorFlow writes it."""
  builder = tfds.builder_from_directory(version)
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  records = {
    s: list(builder.as_data_source(s, deserialize_method=raw)) for s in builder.info.splits
  }
  for path in version.glob("*array_record*"):
    path.unlink()
  for split, examples in records.items():
    framed = [struct.pack("<QI", len(r), 0) + r + struct.pack("<I", 0) for r in examples]
    name = f"{builder.name}-{split}.tfrecord-00000-of-00001"
    (version / name).write_bytes(b"".join(framed))
  info = version / "dataset_info.json"
  info.write_text(info.read_text().replace("array_record", "tfrecord"))


def test_sets_prepared_as_tfrecord_are_read_too(small, tmp_path):
  version = prepare_only("cifar10", tmp_path)
  as_tfrecord(version)
  small.assert_equal(load("cifar10", dir=str(tmp_path), download=False), "cifar10")
  victim = version / "cifar10-test.tfrecord-00000-of-00001"
  whole = victim.read_bytes()
  victim.write_bytes(whole[:-5])
  sizes = f"expected {len(whole)} bytes, found {len(whole) - 5}"
  with pytest.raises(DataFileError, match=rf"{victim.name}: truncated.*{sizes}"):
    load("cifar10", dir=str(tmp_path), download=False)


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_truncated_array_record(tmp_path, keep):
  version = prepare_only("cifar10", tmp_path)
  (victim,) = version.glob("*test.array_record*")
  whole = victim.read_bytes()
  kept = int(keep * len(whole)) if keep < 1 else keep
  victim.write_bytes(whole[:kept])
  with pytest.raises(DataFileError, match=rf"cifar10.*test.*array_record.* {kept}"):
    load("cifar10", dir=str(tmp_path), download=False)


def test_missing_shard(tmp_path):
  version = prepare_only("cifar10", tmp_path)
  (victim,) = version.glob("*train.array_record*")
  victim.unlink()
  with pytest.raises(DataFileError, match=rf"{victim.name}: missing"):
    load("cifar10", dir=str(tmp_path), download=False)


def test_partly_prepared_set(tmp_path):
  version = prepare_only("cifar10", tmp_path)
  info = version / "dataset_info.json"
  content = json.loads(info.read_text())
  for split in content["splits"]:
    split["shardLengths"] = ["7"]
  info.write_text(json.dumps(content))
  with pytest.raises(DataFileError, match="expected 50 train images, its dataset_info.json says 7"):
    load("cifar10", dir=str(tmp_path), download=False)


def test_the_newest_version_is_taken(tmp_path):
  version = prepare_only("cifar10", tmp_path)
  for other in ("3.0.1", "3.0.10", "3.0.2.incompleteABC"):
    shutil.copytree(version, version.with_name(other))
  assert prepared.find(tmp_path, facts.FACTS["cifar10"]).name == "3.0.10"


def test_damaged_record(tmp_path):
  version = prepare_only("cifar10", tmp_path)
  as_tfrecord(version)
  path = version / "cifar10-train.tfrecord-00000-of-00001"
  data = bytearray(path.read_bytes())
  where = data.index(b"IDAT", len(data) // 2)
  data[where : where + 40] = bytes(40)
  path.write_bytes(data)
  with pytest.raises(DataFileError, match=r"3.0.2: train record \d+ is damaged"):
    load("cifar10", dir=str(tmp_path), download=False)


def test_damaged_description(tmp_path):
  version = prepare_only("cifar10", tmp_path)
  (version / "dataset_info.json").write_text('{"name": "cif')
  with pytest.raises(DataFileError, match=r"dataset_info.json: no description .*found 13 bytes"):
    load("cifar10", dir=str(tmp_path), download=False)
