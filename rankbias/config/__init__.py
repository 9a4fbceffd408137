"""The vocabulary of configs: the fields every run has, variants, sweep axes and overrides.

A config file offers `get_config(arg="")`, built on `base()`, and `sweep(config)`, a list of
override dicts built with `product`, `chain` and `zip_`:

  def sweep(config):
    return product({"temperature": [1.0, 100.0], "seed": [0, 1, 2]})
"""

import copy
import difflib
import importlib.util
import itertools
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

# What decides where and how fast a run happens, never what comes out of it.
MACHINE_FIELDS = (
  "data.dir",
  "data.download",
  "data.fallback",
  "steps_per_call",
  "members_per_program",
  "checkpoint_every",
)

# What may differ between members of one compiled program: plain numbers.
MEMBER_FIELDS = (
  "temperature",
  "seed",
  "init_scale",
  "head_init_scale",
  "optimizer.learning_rate",
  "optimizer.weight_decay",
)

# A sweep may give them a name, {"name": ..., **arguments}, or a list of these.
NAMED_FIELDS = ("model.normalizer", "head")

# A sweep may give them as a whole, a dict; empty is off, as in runs from before there were any.
OPTIONAL_PARTS = ("select", "temperature_schedule", "regularizers")


def base(name: str, arg: str = "") -> ConfigDict:
  """Returns the fields of a classification run with their defaults.

  `name` and the variant `arg` name the folder of its runs: "cifar_T" with "vgg" is cifar_T-vgg.
  """
  c = ConfigDict()
  c.name = "-".join([name, *filter(None, arg.split(","))])
  c.seed = 0  # initialisation, order of the images, augmentation
  c.temperature = 1.0  # softmax(z / T); dimensionless, > 0
  c.steps = 1000
  c.batch_size = 128  # global, over all devices and processes
  c.label_smoothing = 0.0
  c.init_scale = 1.0  # multiplies every initial kernel
  c.head_init_scale = 1.0  # multiplies the head's initial kernels once more
  c.warm_start = ""  # folder of a finished run whose parameters training begins with
  c.dtype = "float32"  # "float64" needs JAX_ENABLE_X64=1
  c.steps_per_call = 0  # optimiser steps per compiled call; 0 chooses
  c.members_per_program = 0  # members trained as one program; 0 chooses
  c.checkpoint_every = 0  # steps; 0 is a tenth of the run

  # {"kind": "linear" | "cosine" | "geometric", "start": T0, "steps": 0 for all}: softmax goes from
  # T0 to `temperature`, at which everything is evaluated; empty is constant.
  c.temperature_schedule = ConfigDict()
  # Terms of the training loss and their weights, {"orthogonality": 1e-3, "mean_cosine": ..., ...}.
  c.regularizers = ConfigDict()

  c.data = ConfigDict()
  c.data.name = "digits"
  c.data.dir = ""  # folder with a prepared or published data set; "" asks TFDS_DATA_DIR
  c.data.download = True  # allow a download through TFDS
  c.data.fallback = ""  # config file beside this one to run when the data cannot be had
  c.data.limit = 0  # keep this many images of each split; 0 keeps all
  c.data.crop = 0  # pixels of zero padding before a random crop; 0 is off
  c.data.flip = False  # random horizontal flip
  # Data of another distribution: {"classes": [8, 9]} holds classes out, {"name": "cifar100"} takes
  # another set (of "classes"); the splits "ood_train" and "ood_test". Empty is off.
  c.data.ood = ConfigDict()

  c.model = ConfigDict({"name": "mlp"}, convert_dict=True)  # further entries go to the model
  c.head = ConfigDict({"name": "linear", "use_bias": False})  # further entries go to the head

  c.optimizer = _optimizer()
  # Early stopping, {"split", "every": steps, "patience": measurements or 0}; empty is off. The loss
  # on the split is measured every so many steps; the parameters with the lowest are evaluated.
  c.select = ConfigDict()
  c.measure = ConfigDict()  # what is measured while training
  c.measure.count = 20  # log-spaced measurement steps; 0 is none
  c.measure.images = 512  # fixed training images
  c.measure.alignment = 0  # k directions of every kernel with its inputs, and growth; 0 is off
  c.measure.gradients = False  # ranks of the gradient of every kernel
  c.evaluate = ConfigDict()  # what is measured at the end: name of an evaluation -> its options
  c.evaluate.accuracy = ConfigDict()
  c.evaluate.spectra = ConfigDict({"images": 2048, "max_features": 8000})
  return c


def _optimizer() -> ConfigDict:
  o = ConfigDict()
  o.name = "sgd"
  o.learning_rate = 0.1
  o.learning_rate_rule = "same"  # same | equivalent | linear | quadratic, in T
  o.weight_decay = 0.0
  o.momentum = 0.9  # of sgd
  o.schedule = "constant"  # constant | cosine | step
  o.warmup_steps = 0
  o.clip_norm = 0.0  # global gradient norm; 0 is off
  o.head_learning_rate = 1.0  # factor on the head's learning rate
  o.head_weight_decay = 1.0  # factor on the head's weight decay
  return o


def variants(arg: str, known: Iterable[str]) -> frozenset[str]:
  """Splits a config's argument ("resnet18,smoke") into names, each of which must be known."""
  names = [name for name in arg.split(",") if name]
  for name in names:
    if name not in known:
      raise ValueError(f"config variant {name!r} is unknown; {did_you_mean(name, known)}")
  return frozenset(names)


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """Says which names are known and which is nearest: the end of an error message."""
  known = list(known)
  near = difflib.get_close_matches(name, known, n=1)
  hint = f"; did you mean {near[0]!r}?" if near else ""
  return f"known: {', '.join(known) or 'none'}{hint}"


def product(axes: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
  """Every combination of the axes' values, the last axis fastest."""
  return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def zip_(axes: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
  """The axes' values side by side; all axes have one length."""
  return [dict(zip(axes, values, strict=True)) for values in zip(*axes.values(), strict=True)]


def chain(*sweeps: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """One sweep after the other."""
  return list(itertools.chain(*sweeps))


def replace_axes(members: list[dict], overrides: Mapping[str, Any]) -> list[dict]:
  """Gives swept fields the values that the command line fixes, and drops repeated members.

  Of a swept part with a name, such as "head", the fixed name chooses members, and what else is
  fixed is set in all of them.
  """
  fixed = [{k: overrides.get(k, v) for k, v in member.items()} for member in members]
  for field, value in overrides.items():
    part, _, last = field.rpartition(".")
    if not any(isinstance(member.get(part), Mapping) for member in fixed):
      continue
    if last == "name":
      known = dict.fromkeys(member[part]["name"] for member in fixed)
      fixed = [member for member in fixed if member[part]["name"] == value]
      if not fixed:
        raise ValueError(f"{field}={value!r} is not swept over; {did_you_mean(value, known)}")
    fixed = [member | {part: {**member[part], last: value}} for member in fixed]
  return [member for i, member in enumerate(fixed) if member not in fixed[:i]]


def override(config: ConfigDict, member: Mapping[str, Any]) -> ConfigDict:
  """Returns a copy of `config` with dotted fields replaced; every field must exist.

  Example: override(c, {"model.normalizer": ["softmax", {"name": "topk_softmax", "k": 8}]}).
  """
  result = copy.deepcopy(config)
  with result.ignore_type():
    for field, value in member.items():
      known = flatten(result)
      there = any(f"{name}.".startswith(f"{field}.") for name in known)
      if (field in NAMED_FIELDS and there) or (field in OPTIONAL_PARTS and field in result):
        known[field] = None  # of any type
      if field not in known:
        raise ValueError(
          f"sweep field {field!r} is no field of the config; {did_you_mean(field, known)}"
        )
      result.update_from_flattened_dict({field: type_of(known[field], value, field)})
  return result


def type_of(old: Any, value: Any, field: str) -> Any:
  """Casts an int to the float it replaces; any other change of type is an error."""
  if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if type(old) is not type(value) and old is not None:
    raise ValueError(
      f"sweep field {field!r} is {type(old).__name__} in the config, got {value!r}; "
      f"give a {type(old).__name__}"
    )
  return value


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
  """Maps dotted field names to values: {"optimizer.learning_rate": 0.1, ...}."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping | ConfigDict):
      flat |= {f"{key}.{inner}": v for inner, v in flatten(value).items()}
    else:
      flat[key] = value
  return flat


def scientific(config: ConfigDict) -> dict[str, Any]:
  """The config as a nested dict without the fields that only describe the machine."""
  nested = config.to_dict()
  for field in MACHINE_FIELDS:
    *path, last = field.split(".")
    inner = nested
    for key in path:
      inner = inner[key]
    inner.pop(last, None)
  nested["warm_start"] = pathlib.Path(nested.get("warm_start", "")).name  # a run, wherever it lies
  if not nested["warm_start"]:
    del nested["warm_start"]
  for part in OPTIONAL_PARTS:
    if nested.get(part) == {}:
      del nested[part]
  if nested.get("head_init_scale") == 1:
    del nested["head_init_scale"]
  if nested["data"].get("ood") == {}:
    del nested["data"]["ood"]
  for measure in ("alignment", "gradients"):
    if not nested["measure"].get(measure, True):
      del nested["measure"][measure]
  return nested


def load(path: str | pathlib.Path, arg: str = "") -> tuple[ConfigDict, Callable | None]:
  """Reads a config file: its config, and its `sweep` function if it has one."""
  path = pathlib.Path(path)
  if not path.is_file():
    there = sorted(str(other) for other in path.parent.glob("*.py"))
    hint = did_you_mean(str(path), there) if there else "give a path such as configs/digits_T.py"
    raise ValueError(f"config file {str(path)!r} does not exist; {hint}")
  spec = importlib.util.spec_from_file_location(f"rankbias_config_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(arg), getattr(module, "sweep", None)
