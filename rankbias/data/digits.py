"""The 1,797 handwritten digits that come inside scikit-learn: real images, no download."""

import numpy as np

from rankbias.data.source import Source


def load_digits(*, dir: str | None = None, download: bool = True) -> Source:
  """Loads the 8x8 digits with a fixed, stratified split: 1,437 train and 360 test images.

  The grey values 0..16 become uint8 by round(v 255 / 16), which loses nothing. For the split the
  images are sorted by class (stably) and every fifth one is a test image; it depends on no seed,
  and both splits keep the original order, in which the classes alternate.

  Args:
    dir, download: ignored, as the images are part of scikit-learn.

  Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
  """
  del dir, download
  from sklearn import datasets  # about a second, and only this data set needs it

  bunch = datasets.load_digits()
  images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
  labels = bunch.target.astype(np.int32)
  test = np.zeros(len(labels), bool)
  test[np.argsort(labels, kind="stable")[::5]] = True
  splits = {
    "train": {"x": images[~test], "y": labels[~test]},
    "test": {"x": images[test], "y": labels[test]},
  }
  return Source(
    name="digits",
    splits=splits,
    num_classes=10,
    class_names=tuple("0123456789"),
    origin=f"digits: {(~test).sum()} train and {test.sum()} test images, from scikit-learn",
  )
