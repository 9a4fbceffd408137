"""The list of figures, what each shows, and when it is drawn again."""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rankbias.report import against, spectra, style, training
from rankbias.report.collect import Section, Sweep


class Plot(NamedTuple):
  """One figure of the page; the caption is HTML and ends in how the spread is computed."""

  name: str
  title: str
  draw: Callable[[Section], style.Figure]
  caption: str
  spread: str  # "bars", "bands", "geometric" (bands) or "" for one seed
  through_training: bool = False


PLOTS = (
  Plot(
    "rank",
    "Rank against temperature",
    against.rank,
    "Rank of the last hidden layer and of the logits after training, by five definitions. "
    "Covariance rank: eigenvalues of the covariance above 10<sup>−3</sup> of the largest "
    "(centred). Numerical rank: singular values above 10<sup>−3</sup> of the largest. Effective "
    "rank: exponential of the entropy of the normalised singular values. Stable rank: "
    "‖·‖<sub>F</sub>² / σ<sub>1</sub>². Participation ratio: (Σσ²)² / Σσ⁴. Dotted: one less than "
    "the number of classes <i>C</i>.",
    "bars",
  ),
  Plot(
    "layers",
    "Rank by layer",
    spectra.by_layer,
    "Rank of every measured layer in forward order, the logits last, for each temperature.",
    "bands",
  ),
  Plot(
    "spectra",
    "Singular values",
    spectra.singular_values,
    "Singular values divided by the largest. Above: of the matrix as it is, which numerical, "
    "effective and stable rank and participation ratio describe. Below: of the centred matrix, "
    "which covariance rank describes. The values above the dotted line are the ones the rank "
    "counts: 10<sup>−3</sup> of σ<sub>1</sub>, and 10<sup>−3</sup> of λ<sub>1</sub> = "
    "σ<sub>1</sub>². Values below 2·10<sup>−8</sup> are rounding and not shown.",
    "geometric",
  ),
  Plot(
    "training",
    "Logits norm and rank through training",
    training.norm_and_rank,
    "Mean Euclidean norm of a row of logits, as it is and divided by <i>T</i>, and the covariance "
    "rank, on fixed training images. The step axis is logarithmic from 1 on; 0 is the "
    "initialisation. A thin line that ends in a cross is a member that diverged.",
    "bands",
    through_training=True,
  ),
  Plot(
    "singular_values",
    "Singular values of the logits through training",
    training.singular_values,
    "The singular values of the logits matrix on fixed training images, the largest darkest "
    f"(at most {training.LINES}, evenly on a logarithmic scale of the index), one panel per "
    "temperature. Dotted: 10<sup>−3</sup> of the largest, below which numerical rank does not "
    "count.",
    "",
    through_training=True,
  ),
  Plot(
    "accuracy",
    "Accuracy and speed",
    against.accuracy,
    "Train and test accuracy after training, and the end of the first epoch whose images were at "
    "least 99 % right when visited. An open triangle: some members never got there. A cross above "
    "a temperature: how many of its members diverged.",
    "bars",
  ),
  Plot(
    "tolerance",
    "The definition decides",
    spectra.tolerance,
    "Rank against the tolerance that defines it, for each temperature: eigenvalues of the "
    "covariance above, singular values below. Dotted: the tolerance used in the other figures.",
    "bands",
  ),
)


def caption(plot: Plot, section: Section) -> str:
  """The plot's caption with how many seeds there are and what their spread is."""
  counts = sorted({len(section.finished(t)) for t in section.temperatures} - {0})
  if not plot.spread:
    seed = min((m.record["seed"] for m in section.members), default=0)
    return f"{plot.caption} One seed of each temperature, {seed} where it finished."
  if not counts:
    return f"{plot.caption} No member finished."
  if counts == [1]:
    return f"{plot.caption} One seed of each temperature, hence no spread."
  n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
  mean = "Geometric mean" if plot.spread == "geometric" else "Mean"
  shape = "bars" if plot.spread == "bars" else "bands"
  return f"{plot.caption} {mean} over {n} seeds; {shape} from the lowest to the highest seed."


def shown(section: Section) -> tuple[Plot, ...]:
  """The figures that have something to show; of members that all diverged, those of training."""
  return PLOTS if section.finished() else tuple(plot for plot in PLOTS if plot.through_training)


def stem(plot: Plot, index: int) -> str:
  """The figure's file name without its ending; `index` counts sections."""
  return plot.name if index == 0 else f"{plot.name}-{index + 1}"


def draw(sweep: Sweep, *, formats: Sequence[str] = ("svg", "png"), redraw: bool = False) -> None:
  """Draws into <folder>/figures/ what is missing or older than the newest result.json."""
  folder = sweep.folder / "figures"
  folder.mkdir(exist_ok=True)
  newest = max((sweep.folder / name / "result.json").stat().st_mtime_ns for name in sweep.runs)
  with style.styled():
    for index, section in enumerate(sweep.sections):
      for plot in shown(section):
        path = folder / stem(plot, index)
        if redraw or any(_is_stale(path, kind, newest) for kind in formats):
          style.save(plot.draw(section), path, formats)


def _is_stale(path: pathlib.Path, kind: str, newest: int) -> bool:
  file = path.with_name(f"{path.name}.{kind}")
  return not file.exists() or file.stat().st_mtime_ns < newest
