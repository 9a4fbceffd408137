"""A monitor of ranks for somebody else's training loop: every so many steps, without waiting."""

from collections.abc import Callable, Iterable
from functools import partial
from numbers import Integral
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

  A call is due if a multiple of `every` lies above the step of the call before it, and not above
  its own; the first call, if its step is one. So a loop that calls at every step measures at the
  multiples, and one that calls after each so many steps at the first call that reaches another
  multiple (at 119, 209, 329, ... of 29, 59, 89, ... for 100). What is recorded is the call's step.
  A step that is not above the one before it begins anew, as a first call.

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
      every: steps between measurements, whose multiples make a call due.
      layers, rows, features: as in `layer_states`; measures, rtol: as in `measure_states`.

    Raises:
      ValueError: a measure is unknown, `every`, `rows` or `features` is no count, or `rtol` is not
        in [0, 1); at the first call, an unknown layer or an activation without examples.
    """
    for name, value in (("every", every), ("rows", rows), ("features", features)):
      if not isinstance(value, Integral) or value < 1:
        what = "no number of steps" if name == "every" else "no number of them to measure"
        raise ValueError(f"{name} = {value} is {what}: give a whole number, at least 1.")
    if not 0 <= rtol < 1:
      raise ValueError(
        f"rtol = {rtol} is no part of the largest singular value: give one in [0, 1), such as 1e-3."
      )
    names = known_names("measure", measures, MEASURES)
    own = {"layers": layers if layers is None else tuple(layers), "rows": rows}
    self._every, self._names, self._before = every, None, None
    self._started, self._spectra, self._rows = None, [], []
    self._finish = partial(host_spectra, measures=names)
    self._measure = partial(measure_spectra, measures=names, rtol=rtol)
    self._examples = () if examples is None else (jax.tree.map(lambda x: x[:rows], examples),)
    self._sum = lambda *args: layer_states(activations(*args), features=features, **own)
    self._start = jax.jit(self._sum)

  def __call__(self, step: int, *args: Any) -> bool:
    """Measures if the call is due, as the class says; tells whether it is."""
    if self._names is None:  # also a wrong name is found now and not at the first step that is due
      self._names = tuple(self._trace(*args))
    step = int(step)
    anew = self._before is None or step <= self._before
    before, self._before = step - 1 if anew else self._before, step
    if step // self._every == before // self._every:
      return False
    self._settle()
    self._started = step, self._start(*args, *self._examples)
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
