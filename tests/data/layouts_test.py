"""The published layouts: every form reads the same images, and a damaged file says which it is."""

import gzip

import pytest

from rankbias.data import DataFileError, facts, load

FORMS = [(name, i) for name, entry in facts.FACTS.items() for i in range(len(entry.layouts))]
TARS = [(name, i) for name, i in FORMS if facts.FACTS[name].layouts[i].archives]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_reads_the_folder_and_its_parent(small, tmp_path, name, form):
  layout = facts.FACTS[name].layouts[form]
  folder = small.write(name, layout, tmp_path / next(f for f in layout.folders if f))
  for place in (tmp_path, folder):
    source = load(name, dir=str(place), download=False)
    small.assert_equal(source, name)
    assert str(folder) in source.origin
    assert "50 train and 20 test" in source.origin


@pytest.mark.parametrize(("name", "form"), TARS)
def test_reads_the_archive_without_extracting(small, tmp_path, name, form):
  layout = facts.FACTS[name].layouts[form]
  archive = tmp_path / layout.archives[0]
  archive.write_bytes(small.tar(layout.folders[0], small.files(name, layout)))
  small.assert_equal(load(name, dir=str(tmp_path), download=False), name)
  assert list(tmp_path.iterdir()) == [archive]


def test_reads_unpacked_idx_files(small, tmp_path):
  folder = small.write("mnist", facts.FACTS["mnist"].layouts[0], tmp_path)
  for path in list(folder.glob("*.gz")):
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
  small.assert_equal(load("mnist", dir=str(tmp_path), download=False), "mnist")


def test_mnist_and_fashion_mnist_live_side_by_side(small, tmp_path):
  for name in ("mnist", "fashion_mnist"):
    small.write(name, facts.FACTS[name].layouts[0], tmp_path / name)
  for name in ("mnist", "fashion_mnist"):
    small.assert_equal(load(name, dir=str(tmp_path), download=False), name)


@pytest.mark.parametrize(
  ("asked", "given"), [("mnist", "fashion_mnist"), ("fashion_mnist", "mnist")]
)
def test_mistaken_mnist_is_noticed(small, tmp_path, asked, given):
  small.write(given, facts.FACTS[given].layouts[0], tmp_path)
  with pytest.raises(DataFileError, match=r"train-labels.*: not (MNIST|Fashion-MNIST)"):
    load(asked, dir=str(tmp_path), download=False)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_truncated_file_is_named_with_both_sizes(small, tmp_path, name, form):
  layout = facts.FACTS[name].layouts[form]
  folder = small.write(name, layout, tmp_path / next(f for f in layout.folders if f))
  victim = folder / layout.parts["test"][0][0]
  whole = victim.read_bytes()
  victim.write_bytes(whole[: len(whole) // 2])
  sizes = rf"expected \d+ bytes, found {len(whole) // 2} bytes"
  with pytest.raises(DataFileError, match=rf"{victim.name}: .*{sizes}"):
    load(name, dir=str(tmp_path), download=False)


@pytest.mark.parametrize("cut", [0, 10, 0.5, 0.9])
def test_truncated_archive_is_named_with_both_sizes(small, tmp_path, cut):
  layout = facts.FACTS["cifar10"].layouts[0]
  archive = tmp_path / layout.archives[0]
  data = small.tar(layout.folders[0], small.files("cifar10", layout))
  kept = int(cut * len(data)) if cut < 1 else cut
  archive.write_bytes(data[:kept])
  with pytest.raises(
    DataFileError, match=rf"{archive.name}: .*170498071 bytes, found {kept} bytes"
  ):
    load("cifar10", dir=str(tmp_path), download=False)


def test_archive_without_a_member(small, tmp_path):
  layout = facts.FACTS["cifar10"].layouts[1]
  files = small.files("cifar10", layout)
  del files["data_batch_3.bin"]
  (tmp_path / layout.archives[0]).write_bytes(small.tar("cifar-10-batches-bin", files))
  with pytest.raises(DataFileError, match=r"binary.tar.gz: does not contain data_batch_3.bin"):
    load("cifar10", dir=str(tmp_path), download=False)


def test_truncated_unpacked_idx_counts_from_its_header(small, tmp_path):
  folder = small.write("mnist", facts.FACTS["mnist"].layouts[0], tmp_path)
  labels = folder / "t10k-labels-idx1-ubyte.gz"
  labels.write_bytes(gzip.compress(gzip.decompress(labels.read_bytes())[:-3]))
  with pytest.raises(DataFileError, match=r"t10k-labels.*expected 28 bytes, found 25 bytes"):
    load("mnist", dir=str(tmp_path), download=False)


def test_missing_split(small, tmp_path):
  layout = facts.FACTS["cifar100"].layouts[0]
  folder = small.write("cifar100", layout, tmp_path / "cifar-100-python")
  (folder / "train").unlink()
  with pytest.raises(DataFileError, match="python: cifar100 is incomplete, missing train"):
    load("cifar100", dir=str(tmp_path), download=False)


def test_a_whole_layout_beats_an_incomplete_one(small, tmp_path):
  pickled, binary = facts.FACTS["cifar10"].layouts
  folder = small.write("cifar10", pickled, tmp_path / "cifar-10-batches-py")
  (folder / "data_batch_2").unlink()
  small.write("cifar10", binary, tmp_path / "cifar-10-batches-bin")
  small.assert_equal(load("cifar10", dir=str(tmp_path), download=False), "cifar10")


def test_labels_out_of_range(small, tmp_path):
  layout = facts.FACTS["cifar10"].layouts[1]
  small.arrays["cifar10"]["train"]["y"][7] = 10
  small.write("cifar10", layout, tmp_path / "cifar-10-batches-bin")
  with pytest.raises(DataFileError, match=r"labels reach from 0 to 10, but cifar10 has 10 classes"):
    load("cifar10", dir=str(tmp_path), download=False)


def test_file_of_another_format(small, tmp_path):
  folder = small.write("mnist", facts.FACTS["mnist"].layouts[0], tmp_path)
  images, labels = (folder / name for name in facts.IDX_PARTS["train"][0])
  images.write_bytes(labels.read_bytes())
  with pytest.raises(DataFileError, match=r"train-images.*not an idx3-ubyte file.*'00000801'"):
    load("mnist", dir=str(tmp_path), download=False)
