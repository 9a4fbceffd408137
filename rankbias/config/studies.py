"""Configs of studies of rank: the data, networks and measurements that they share."""

from typing import Any

from ml_collections import ConfigDict

from rankbias.config import base, variants

SETS = {"cifar10": 50_000, "cifar100": 50_000, "fashion_mnist": 60_000}  # training images
NETWORKS = ("vit", "resnet18", "vgg")
# Data of another distribution: two held-out digits, or the test images of another set.
FOREIGN = {
  "digits": {"classes": [8, 9]},
  "cifar10": {"name": "cifar100", "test_only": True},
  "cifar100": {"name": "cifar10", "test_only": True},
  "fashion_mnist": {"name": "mnist", "test_only": True},
}
TEMPERATURES = (1.0, 10.0, 100.0, 1000.0)
PROBE = {"images": 10_000, "max_features": 2048}


def study(name: str, arg: str, *more: str, foreign: bool = False) -> tuple[ConfigDict, frozenset]:
  """The base of a study, and the variants in `arg`.

  Variants are a data set (one of `SETS`, else the embedded digits), a network (one of `NETWORKS`,
  else the MLP), `smoke`, which ends in seconds, and those in `more`.

  Args:
    foreign: adds data of another distribution.
  """
  names = variants(arg, (*SETS, *NETWORKS, "smoke", *more))
  c = base(name, arg)
  data, network = _one_of(names, SETS, "digits"), _one_of(names, NETWORKS, "mlp")
  c.data.name = data
  if network == "vgg" and not data.startswith("cifar"):
    raise ValueError(f"config variant 'vgg' halves images five times: add cifar10, not {data}")
  if foreign:
    c.data.ood = FOREIGN[data]
  if data != "digits":
    c.data.update(flip=data != "fashion_mnist", fallback=name)
  _network(c, network, SETS.get(data, 0))
  if "smoke" in names:
    _shrink(c, network)
  return c, names


def seeds(config: ConfigDict) -> range:
  """Five on the embedded digits, three elsewhere, one in a smoke test."""
  if "smoke" in config.name:
    return range(1)
  return range(5 if config.data.name == "digits" else 3)


def temperatures(config: ConfigDict) -> tuple[float, ...]:
  """1, 10, 100, 1000; the ends of 1 to 100 in a smoke test."""
  return (1.0, 100.0) if "smoke" in config.name else TEMPERATURES


def _one_of(names: frozenset, known: Any, default: str) -> str:
  chosen = [name for name in known if name in names]
  if len(chosen) > 1:
    raise ValueError(f"config variants {', '.join(chosen)} exclude each other: give one")
  return chosen[0] if chosen else default


def _network(c: ConfigDict, network: str, images: int) -> None:
  """Sets model, head, optimiser and length; `images` is 0 for the digits, 1,437 to train on."""
  c.batch_size = 256 if images and network in ("mlp", "vit") else 128
  epochs = {"mlp": 20, "vit": 100}.get(network, 160)
  c.steps = epochs * -(-images // c.batch_size) if images else 4000
  c.optimizer.schedule = "cosine" if images or network == "vit" else "constant"
  if network == "mlp":
    c.model.update(name="mlp", depth=8, width=256, use_bias=False)
    c.optimizer.update(learning_rate=0.02, learning_rate_rule="equivalent")
    if images:
      c.members_per_program = 1  # on two cores, several such networks at once leave the cache
    return
  c.head.use_bias = True
  if network == "vit":
    c.steps = c.steps if images else 800
    small = {"patch": 2, "width": 48, "depth": 4, "heads": 4}
    large = {"patch": 4, "width": 192, "depth": 6, "heads": 3}
    c.model = {"name": "vit", **(large if images else small), "attention_temperature": 1.0}
    c.optimizer.update(name="adamw", learning_rate=1e-3, weight_decay=0.05, clip_norm=1.0)
    c.optimizer.warmup_steps = c.steps // 20
    c.data.crop = 4 if images else 0
    return
  c.model = {"name": "vgg", "layers": 19} if network == "vgg" else {"name": "resnet18"}
  c.optimizer.update(learning_rate=0.1, weight_decay=5e-4)
  c.data.crop = 4


def _shrink(c: ConfigDict, network: str) -> None:
  c.data.limit = 2000 if c.data.name == "cifar100" else 200  # holds every class
  if "name" in c.data.ood:
    c.data.ood.classes = list(range(10))
  c.steps, c.batch_size = (40, 40) if network == "mlp" else (4, 20)
  c.optimizer.warmup_steps = min(c.optimizer.warmup_steps, 2)
  c.measure.update(count=3, images=64)
  small = {
    "mlp": {"depth": 4, "width": 32},
    "vit": {"width": 16, "depth": 2, "heads": 2},
    "vgg": {"layers": 11, "width": 8},
    "resnet18": {"width": 8},
  }
  c.model.update(small[network])
