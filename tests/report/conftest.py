"""Synthetic sweeps: run folders with the shapes and trends of real ones, made without training."""

import itertools

import numpy as np
import pytest
from matplotlib.text import Text

from rankbias import runs
from rankbias.report import plots, style

RTOL = [float(r) for r in np.logspace(-6, -0.5, 23)]
STEPS = [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584, 4000]

REMEDIES = {  # as they come out of result.json: in no order that matters
  "adaptive": {"name": "adaptive_temperature_softmax"},
  "hard_max": {"k": 1, "name": "topk_softmax"},
  "log_n": {"name": "scalable_softmax", "scale": 1.0},
}

ORIGIN = "digits: 1437 train and 360 test images, from scikit-learn"


def count(s, rtol, power):
  return float(np.sum(s**power > rtol * s[0] ** power))


def measures(s, centered):
  """Every rank measure of a spectrum, in NumPy."""
  p, q = s / s.sum(), s**2 / np.sum(s**2)
  entropy = -np.sum(p * np.log(p + 1e-30))
  return {
    "covariance_rank": count(centered, 1e-3, 2),
    "numerical_rank": count(s, 1e-3, 1),
    "effective_rank": float(np.exp(entropy)),
    "rankme": float(np.exp(entropy)),
    "stable_rank": float(np.sum(s**2) / s[0] ** 2),
    "participation_ratio": float(1 / np.sum(q**2)),
    "energy_rank": float(1 + np.sum(np.cumsum(q) < 0.99)),
  }


def spectrum(dim, rank, rng):
  """A spectrum with one large value, then a decay that crosses 10^-1.5 near `rank`."""
  i = np.arange(dim)
  s = np.where(i == 0, 1.0, 0.45 * np.exp(-2.6 * i / max(rank, 1.1)))
  return np.sort(np.maximum(s, 3e-8) * np.exp(0.08 * rng.standard_normal(dim)))[::-1]


def final_rank(temperature, depth_fraction, rng):
  top = 120 * (1 + 0.05 * rng.standard_normal())
  last = 10 + 44 * temperature**-0.45 if temperature >= 1 else 54.0
  return last + (top - last) * (1 - depth_fraction) ** 1.5


class Synthetic:
  """Writes one run folder; the numbers follow from the temperatures and seeds alone."""

  def __init__(self, layers=7, width=256, classes=10, samples=512):
    self.layers = [f"layer{i + 1}/relu" for i in range(layers)]
    self.dims = dict.fromkeys(self.layers, width) | {"logits": classes}
    self.samples, self.classes = samples, classes

  def spectra(self, temperature, progress, seed):
    """Raw and centred spectra of every layer after a fraction of training."""
    rng = np.random.default_rng((seed, int(1000 * temperature)))
    raw, centered = {}, {}
    scale = 5.0 * (1 + 12 * progress * temperature**0.9) * np.sqrt(self.samples)
    for i, (layer, dim) in enumerate(self.dims.items()):
      rank = final_rank(temperature, (i + 1) / len(self.dims), rng)
      rank = rank * progress + (1 - progress) * 0.6 * self.dims[self.layers[0]]
      if layer == "logits":
        rank = (6 + 5 * temperature**-0.1) * dim / 10
      raw[layer] = scale * spectrum(dim, rank, rng)
      centered[layer] = 0.7 * scale * spectrum(dim, rank * 1.1, rng)
    return raw, centered

  def norms(self, s, temperature):
    frobenius, spectral = np.sqrt(np.sum(s**2) / self.samples), s[0]
    values = {"mean_norm": 0.96 * frobenius, "frobenius_norm": frobenius, "spectral_norm": spectral}
    return values | {f"tempered_{k}": v / temperature for k, v in values.items()}

  def rows(self, index, temperature, seed, until=np.inf):
    for step in [s for s in STEPS if s <= until]:
      raw, centered = self.spectra(temperature, min(1.0, np.log1p(step) / 7), seed)
      row = {"step": step, "member": index, "split": "measure"}
      row |= {"loss": 2.3 * np.exp(-step / 200), "accuracy": 1 - 0.9 * np.exp(-step / 90)}
      for layer in self.dims:
        row |= {f"{layer}:{k}": v for k, v in measures(raw[layer], centered[layer]).items()}
      row |= {f"logits:{k}": v for k, v in self.norms(raw["logits"], temperature).items()}
      yield row | {"logits:singular_values": raw["logits"]}

  def record(self, index, overrides, stopped_at, arrays):
    """One member's entry of result.json; its spectra go into `arrays`."""
    temperature, seed = overrides["temperature"], overrides["seed"]
    raw, centered = self.spectra(temperature, 1.0, seed)
    for layer in self.dims:
      arrays[f"{index}/spectrum/{layer}"] = raw[layer]
      arrays[f"{index}/spectrum_centered/{layer}"] = centered[layer]
    slow = temperature >= 1e4
    rng = np.random.default_rng(seed)
    test = {"loss": 0.2, "accuracy": 0.97 - 0.008 * np.log10(temperature) + 0.004 * rng.normal()}
    sweep = {
      "covariance_rank": {k: [count(s, r, 2) for r in RTOL] for k, s in centered.items()},
      "numerical_rank": {k: [count(s, r, 1) for r in RTOL] for k, s in raw.items()},
    }
    record = {
      "overrides": overrides, "temperature": temperature, "seed": seed, "steps": 4000,
      "learning_rate": 0.02 * temperature**0.25, "status": "finished", "stopped_at": None,
      "last": {"loss": 1e-4, "accuracy": 1.0},
      "step_99": None if slow else int(120 * temperature**0.35 * (1 + 0.2 * seed)),
      "train": {"loss": 1e-4, "accuracy": 0.9 if slow else 1.0}, "test": test,
      "norms": self.norms(raw["logits"], temperature),
      "ranks": {k: measures(raw[k], centered[k]) for k in self.dims},
      "tolerance": {"rtol": RTOL, **sweep},
    }  # fmt: skip
    if stopped_at is not None:
      gone = {"train": None, "test": None, "norms": None, "ranks": None, "tolerance": None}
      record |= {"status": "diverged", "stopped_at": stopped_at, "step_99": None, **gone}
      for layer in self.dims:
        del arrays[f"{index}/spectrum/{layer}"], arrays[f"{index}/spectrum_centered/{layer}"]
    return record

  def head(self, index, seed, arrays, *, sizes=(16, 128, 1024), fitted=True, spread=300.0):
    """What `retrieval` finds of a head, without adaptive temperature and with it and others."""
    rng, n = np.random.default_rng(seed), np.array(sizes)
    columns = {"as_trained": 1.0, "adaptive": 2.0, "hard_max": 1e9, "log_n": 1 + np.log(n)}
    columns |= {"fitted": 8.0} if fitted else {}
    reach = spread * (1 + 0.1 * rng.standard_normal())
    found = {"sizes": list(sizes), "sets": [256 if m <= 128 else 64 for m in sizes]}
    found |= {"spread": n**0.0 * reach, "ceiling": 1 / (1 + n / 2e3), "fitted": None}
    found |= {kind: {} for kind in ("accuracy", "entropy", "max_weight")}
    for column, beta in columns.items():
      rivals = n / (1 + beta * reach)
      top = 1 / (1 + rivals)
      found["max_weight"][column], found["entropy"][column] = top, np.log1p(rivals)
      found["accuracy"][column] = (0.1 + 0.9 * top) * (1 - 0.02 * rng.random(len(n)))
      for m, weight in zip(sizes, top, strict=True):
        arrays[f"{index}/weights/{column}/{m}"] = weight * rng.random((32, min(m, 16)), np.float32)
    if fitted:
      found["fitted"] = {"entropies": [0.5, 2.0, 5.0 + seed], "values": [1.0, 4.0, 20.0]}
    return found

  def write(
    self, root, members, *, name="digits_T", config=None, diverged=(), finished=True,
    heads=None, without=(), entries=None,
  ):  # fmt: skip
    """Writes a run folder below root; `diverged` maps a member's index to its last step.

    `heads` are options of `head`: then the data are drawn, and nothing is known of "train".
    `without` names entries that are null; `entries(seed)` are further ones.
    """
    diverged = dict(diverged)
    config = {
      "data": {"name": "digits"}, "model": {"name": "mlp", "depth": len(self.dims)}, "seed": 0,
      "temperature": 1.0, "optimizer": {"learning_rate": 0.02, "rule": "equivalent"}, "steps": 4000,
    } | (config or {})  # fmt: skip
    if heads is not None:
      config["evaluate"] = {"retrieval": {"remedies": REMEDIES}}
    folder = runs.prepare(
      root / runs.run_id(config, members), name=name, config=config, members=members,
      environment={**runs.environment(["TFRT_CPU_0"]), "data": ORIGIN},
    )  # fmt: skip
    arrays, records = {}, []
    for index, overrides in enumerate(members):
      stop = diverged.get(index)
      until = np.inf if stop is None else stop
      runs.append(folder, self.rows(index, overrides["temperature"], overrides["seed"], until))
      record = self.record(index, overrides, stop, arrays)
      record |= dict.fromkeys(without)
      if entries is not None and stop is None:
        record |= entries(overrides["seed"])
      if heads is not None:
        record |= {"train": None, "step_99": None}
        if stop is None:
          record["retrieval"] = self.head(index, overrides["seed"], arrays, **heads)
      records.append(record)
    runs.append(folder, [{"event": "train", "seconds": 105.2, "step": 4000}], file="timing.jsonl")
    data = {"name": "digits", "train": 1437, "test": 360, "classes": self.classes}
    if heads is not None:
      del data["train"]
    model = {"name": "mlp", "parameters": 528384, "weight_layers": len(self.dims)}
    if finished:
      model["layers"] = self.layers
      result = {"format": 1, "name": name, "data": data, "model": model, "members": records}
      runs.finish(folder, result, arrays)
    return folder


def grid(temperatures=(1.0, 10.0, 100.0, 1000.0), seeds=3, **others):
  """The members of a sweep over temperature and seed."""
  return [{"temperature": t, "seed": s, **others} for t in temperatures for s in range(seeds)]


@pytest.fixture(scope="session")
def synthetic():
  """The builder: synthetic(layers=7).write(folder, grid())."""
  return Synthetic


@pytest.fixture(scope="session", name="grid")
def _grid():
  return grid


@pytest.fixture(scope="session", name="is_legible")
def _is_legible():
  return is_legible


def is_legible(figure):
  """Asserts that nothing in a drawn figure overlaps or leaves it."""
  boxes = [legend.get_window_extent() for legend in figure.legends]
  for ax in figure.axes:
    boxes.append(ax.get_window_extent())
    boxes += [text.get_window_extent() for text in (ax.title,) if text.get_text()]
    boxes += [legend.get_window_extent() for legend in [ax.get_legend()] if legend]
    boxes += [Text.get_window_extent(note) for note in ax.texts if note.get_position()[1] == 1]
    for axis in (ax.xaxis, ax.yaxis):
      labels = [label for label in axis.get_ticklabels() if label.get_text()]
      extents = [label.get_window_extent() for label in labels if label.get_visible()]
      extents = [extent for extent in extents if _is_drawn(ax, axis, extent)]
      for a, b in itertools.combinations(extents, 2):
        assert not a.overlaps(b), axis.axis_name
  for a, b in itertools.combinations(boxes, 2):
    assert not a.padded(-2).overlaps(b)
  for box in boxes:
    assert figure.bbox.x0 - 1 <= box.x0
    assert box.x1 <= figure.bbox.x1 + 1


def _is_drawn(ax, axis, extent):
  """Labels of ticks outside the view are laid out but never drawn."""
  if axis.axis_name == "x":
    return ax.bbox.x0 - 1 <= (extent.x0 + extent.x1) / 2 <= ax.bbox.x1 + 1
  return ax.bbox.y0 - 1 <= (extent.y0 + extent.y1) / 2 <= ax.bbox.y1 + 1


@pytest.fixture
def drawn():
  """drawn(section, name of a plot) -> its figure, laid out."""

  def draw(section, name):
    (plot,) = (p for p in plots.shown(section) if p.name == name)
    with style.styled():
      figure = plot.draw(section)
      figure.draw_without_rendering()
    return figure

  return draw
