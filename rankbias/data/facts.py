"""What is published about the downloadable image sets: shapes, classes, file names and sizes."""

from collections.abc import Callable
from typing import NamedTuple

from rankbias.data import formats

TORONTO = "https://www.cs.toronto.edu/~kriz/"
STANFORD = "http://ufldl.stanford.edu/housenumbers/"


class Layout(NamedTuple):
  """One form in which a data set is handed around.

  Fields:
    folders: names of the folder that holds the files; "" is the folder searched itself.
    archives: names of the archives that hold such a folder.
    parts: for each split, its parts in order; a part is the files that are read together.
    read: (files of one part, number of images) -> images uint8 [n, H, W, C], labels int32 [n].
  """

  folders: tuple[str, ...]
  archives: tuple[str, ...]
  parts: dict[str, tuple[tuple[str, ...], ...]]
  read: Callable[..., formats.Part]


class Facts(NamedTuple):
  """One image set.

  Fields:
    counts: images in each split.
    layouts: the published forms, in the order of preference.
    urls: what TFDS downloads.
    tfds_name: the name of the set in TFDS.
    sizes: published size in bytes of files and archives, for messages about truncated ones.
    coarse_names: the superclasses of CIFAR-100.
    check: raises where labels show that the files belong to another set of the same names.
  """

  name: str
  shape: tuple[int, int, int]
  counts: dict[str, int]
  class_names: tuple[str, ...]
  layouts: tuple[Layout, ...]
  urls: tuple[str, ...]
  tfds_name: str
  sizes: dict[str, int]
  check: Callable[..., None] = lambda *_: None
  coarse_names: tuple[str, ...] = ()


CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm"""
CIFAR100_COARSE = """
aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
household_furniture insects large_carnivores large_man-made_outdoor_things
large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals
non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2"""
FASHION_CLASSES = [
  "T-shirt/top",
  "Trouser",
  "Pullover",
  "Dress",
  "Coat",
  "Sandal",
  "Shirt",
  "Sneaker",
  "Bag",
  "Ankle boot",
]
IDX_PARTS = {
  "train": (("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),),
  "test": (("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),),
}


def _idx(*folders: str) -> tuple[Layout, ...]:
  return (Layout(folders, (), IDX_PARTS, formats.read_idx),)


def _sizes(parts: dict, *sizes: int) -> dict[str, int]:
  files = [name for split in ("train", "test") for part in parts[split] for name in part]
  return dict(zip(files, sizes, strict=True))


def _parts(train: list[str], test: str) -> dict[str, tuple[tuple[str, ...], ...]]:
  return {"train": tuple((name,) for name in train), "test": ((test,),)}


CIFAR10_PY = Layout(
  ("cifar-10-batches-py",),
  ("cifar-10-python.tar.gz",),
  _parts([f"data_batch_{i}" for i in range(1, 6)], "test_batch"),
  formats.read_cifar_pickle,
)
CIFAR10_BIN = Layout(
  ("cifar-10-batches-bin",),
  ("cifar-10-binary.tar.gz",),
  _parts([f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin"),
  formats.read_cifar10_binary,
)
CIFAR100_PY = Layout(
  ("cifar-100-python",),
  ("cifar-100-python.tar.gz",),
  _parts(["train"], "test"),
  formats.read_cifar_pickle,
)
CIFAR100_BIN = Layout(
  ("cifar-100-binary",),
  ("cifar-100-binary.tar.gz",),
  _parts(["train.bin"], "test.bin"),
  formats.read_cifar100_binary,
)
SVHN_MAT = Layout(
  ("", "svhn", "svhn_cropped", "SVHN"),
  (),
  _parts(["train_32x32.mat"], "test_32x32.mat"),
  formats.read_svhn,
)

FACTS = {
  "cifar10": Facts(
    name="cifar10",
    shape=(32, 32, 3),
    counts={"train": 50000, "test": 10000},
    class_names=tuple(CIFAR10_CLASSES.split()),
    layouts=(CIFAR10_PY, CIFAR10_BIN),
    urls=(f"{TORONTO}cifar-10-binary.tar.gz",),
    tfds_name="cifar10",
    sizes={"cifar-10-python.tar.gz": 170498071, "cifar-10-binary.tar.gz": 170052171}
    | _sizes(CIFAR10_PY.parts, 31035704, 31035320, 31035999, 31035696, 31035623, 31035526)
    | _sizes(CIFAR10_BIN.parts, *[30730000] * 6),
  ),
  "cifar100": Facts(
    name="cifar100",
    shape=(32, 32, 3),
    counts={"train": 50000, "test": 10000},
    class_names=tuple(CIFAR100_CLASSES.split()),
    layouts=(CIFAR100_PY, CIFAR100_BIN),
    urls=(f"{TORONTO}cifar-100-binary.tar.gz",),
    tfds_name="cifar100",
    sizes={"cifar-100-python.tar.gz": 169001437, "cifar-100-binary.tar.gz": 168513733}
    | _sizes(CIFAR100_PY.parts, 155249918, 31049707)
    | _sizes(CIFAR100_BIN.parts, 153700000, 30740000),
    coarse_names=tuple(CIFAR100_COARSE.split()),
  ),
  "svhn": Facts(
    name="svhn",
    shape=(32, 32, 3),
    counts={"train": 73257, "test": 26032},
    class_names=tuple("0123456789"),
    layouts=(SVHN_MAT,),
    urls=(f"{STANFORD}train_32x32.mat", f"{STANFORD}test_32x32.mat"),
    tfds_name="svhn_cropped",
    sizes=_sizes(SVHN_MAT.parts, 182040794, 64275384),
  ),
  "mnist": Facts(
    name="mnist",
    shape=(28, 28, 1),
    counts={"train": 60000, "test": 10000},
    class_names=tuple("0123456789"),
    layouts=_idx("mnist", "MNIST/raw", ""),
    urls=tuple(
      f"https://storage.googleapis.com/cvdf-datasets/mnist/{name}"
      for parts in IDX_PARTS.values()
      for name in parts[0]
    ),
    tfds_name="mnist",
    sizes=_sizes(IDX_PARTS, 9912422, 28881, 1648877, 4542),
    check=formats.check_is_mnist,
  ),
  "fashion_mnist": Facts(
    name="fashion_mnist",
    shape=(28, 28, 1),
    counts={"train": 60000, "test": 10000},
    class_names=tuple(FASHION_CLASSES),
    layouts=_idx("fashion_mnist", "FashionMNIST/raw", "fashion-mnist", ""),
    urls=tuple(
      f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}"
      for parts in IDX_PARTS.values()
      for name in parts[0]
    ),
    tfds_name="fashion_mnist",
    sizes=_sizes(IDX_PARTS, 26421880, 29515, 4422102, 5148),
    check=formats.check_is_fashion_mnist,
  ),
}
