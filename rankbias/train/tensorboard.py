"""Measurements as TensorBoard events, when asked for."""

import os
from collections.abc import Mapping, Sequence
from typing import Any


class Events:
  """Writes rows of metrics to <run folder>/tensorboard/<member>; a sink of `experiment.run`.

  Raises:
    ValueError: when tensorboardX is not installed.
  """

  def __init__(self):
    try:
      import tensorboardX
    except ImportError:
      raise ValueError(
        "--tensorboard needs tensorboardX; install it with pip install 'rankbias[tensorboard]'"
      ) from None
    self.make = tensorboardX.SummaryWriter
    self.writers = {}

  def __call__(self, folder: os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
      path = os.path.join(folder, "tensorboard", str(row["member"]))
      if path not in self.writers:
        self.writers[path] = self.make(path)
      for name, value in row.items():
        if isinstance(value, float):
          self.writers[path].add_scalar(f"{row['split']}/{name}", value, row["step"])
    for writer in self.writers.values():
      writer.flush()
