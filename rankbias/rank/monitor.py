"""A monitor of ranks for somebody else's training loop: every so many steps, without waiting."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax

from rankbias.rank.layers import (
  DEFAULT,
  MEASURES,
  host_spectra,
  known_names,
  layer_states,
  measure_spectra,
)


class RankMonitor:
  """Measures the ranks of chosen layers every so many steps of any training loop.

      monitor = RankMonitor(activations, x[:128], every=100)
      for step in range(steps):
        params, ... = train_step(params, ...)
        monitor(step, params)
      print(monitor.table("covariance_rank"))

  A call that is due starts one compiled program and returns without waiting for it. Its spectra are
  taken at the next due call, when it is long done; the measures when they are read, which waits for
  the device. Nothing is measured at other steps.
  """

  def __init__(
    self,
    activations: Callable[..., Any],
    examples: Any = None,
    *,
    layers: Iterable[str] | None = None,
    every: int = 100,
    measures: Iterable[str] = DEFAULT,
    rows: int = 128,
    features: int = 64,
    rtol: float = 1e-3,
  ):
    """Checks what can be checked before the first call.

    Args:
      activations: (*args of a call, examples) -> activations as in `layer_states`; pure, and
        compiled. Without examples it gets the args alone, such as activations that a training step
        returned.
      examples: array, or tree of arrays, whose first `rows` rows are measured every time: fixed
        ones, so that numbers of different steps compare, and in random order.
      every: steps between measurements.
      layers, rows, features: as in `layer_states`; measures, rtol: as in `measure_states`.

    Raises:
      ValueError: a measure is unknown or `every` is no count; at the first call, as `layer_states`.
    """
    if every < 1:
      raise ValueError(f"every = {every} is no number of steps: give at least 1.")
    names = known_names("measure", measures, MEASURES)
    own = {"layers": layers if layers is None else tuple(layers), "rows": rows}
    self._every, self._names = every, None
    self._started, self._spectra, self._rows = None, [], []
    self._finish = partial(host_spectra, measures=names)
    self._measure = partial(measure_spectra, measures=names, rtol=rtol)
    self._examples = () if examples is None else (jax.tree.map(lambda x: x[:rows], examples),)
    self._sum = lambda *args: layer_states(activations(*args), features=features, **own)
    self._start = jax.jit(self._sum)

  def __call__(self, step: int, *args: Any) -> bool:
    """Measures if the step is due, a multiple of `every`; tells whether it is."""
    if self._names is None:  # also a wrong name is found now and not at the first step that is due
      self._names = tuple(self._trace(*args))
    if step % self._every:
      return False
    self._settle()
    self._started = int(step), self._start(*args, *self._examples)
    return True

  def rows(self) -> list[dict[str, Any]]:
    """Returns {"step", "layer", measure: number, ...} of all measurements, in order."""
    self._settle()
    for step, spectra in self._spectra:
      found = self._measure(spectra)
      self._rows += [{"step": step, "layer": name, **found[name]} for name in self._names]
    self._spectra = []
    return list(self._rows)

  def table(self, measure: str) -> str:
    """Returns one measure as text: a line for every step, a column for every layer."""
    rows = self.rows()
    if rows:
      known_names("measure", [measure], [name for name in rows[0] if name not in ("step", "layer")])
    names = self._names or ()
    width = max(map(len, names), default=0) + 2
    lines = [f"{measure:>{max(len(measure), 8)}}" + "".join(f"{n:>{width}}" for n in names)]
    for step in dict.fromkeys(row["step"] for row in rows):
      values = [row[measure] for row in rows if row["step"] == step]
      lines.append(f"{step:>{max(len(measure), 8)}}" + "".join(f"{v:{width}.1f}" for v in values))
    return "\n".join(lines)

  def _trace(self, *args):
    """The layers in forward order; jax.jit returns dicts in alphabetical order."""
    names = []
    jax.eval_shape(lambda *a: names.extend(self._sum(*a)), *args, *self._examples)
    return names

  def _settle(self):
    """Takes the spectra of the measurement that is under way; nothing new is sent to the device."""
    if self._started is not None:
      step, states = self._started
      self._started = None
      self._spectra.append((step, self._finish(states)))
