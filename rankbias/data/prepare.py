"""Downloads an image set and lets TFDS prepare it, without TensorFlow.

TFDS's own builders unpack archives and encode images by TensorFlow. A subclass that opens the
files with this package's readers and hands over finished PNG files writes the same records.
"""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rankbias.data import layouts
from rankbias.data.errors import DataFileError, DownloadFailed
from rankbias.data.facts import Facts
from rankbias.data.fetch import fetch, probe
from rankbias.data.formats import Part


def prepare(facts: Facts, folder: Path) -> None:
  """Fetches the original files into <folder>/downloads/manual/<name>, then prepares the set.

  Raises:
    DownloadFailed: no network, no disk, a wrong checksum, or TFDS failed; the message says which.
  """
  probe(facts.urls[0])
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise DownloadFailed(f"tensorflow-datasets cannot be imported: {error}") from error
  manual = folder / "downloads" / "manual" / facts.name
  try:
    manual.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise DownloadFailed(f"cannot write to {folder}: {error}") from error
  try:
    published = url_infos(tfds, facts)
    for url in facts.urls:
      info = published[url]
      fetch(url, manual / info.filename, size=int(info.size), sha256=info.checksum)
    _build(tfds, facts, folder, manual)
  except (DownloadFailed, DataFileError):
    raise
  except Exception as error:  # whatever TFDS raises, the caller must hear that there is no data
    raise DownloadFailed(f"preparation by TFDS failed: {error!r}") from error


def url_infos(tfds, facts: Facts) -> dict:
  """Size, checksum and file name of each URL, as TFDS has them."""
  return tfds.builder_cls(facts.tfds_name).url_infos


def _build(tfds, facts: Facts, folder: Path, manual: Path) -> None:
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  builder = builder_class(tfds, facts)(data_dir=folder, file_format="array_record")
  config = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
  with contextlib.redirect_stdout(sys.stderr):
    builder.download_and_prepare(download_config=config)


def builder_class(tfds, facts: Facts) -> type:
  """The official builder of the set, with reading and encoding replaced by TF-free code.

  The "extra" images of SVHN (1.3 GB) are left out.
  """
  official = tfds.builder_cls(facts.tfds_name)

  def split_generators(self, dl_manager):
    paths = [Path(path) for path in dl_manager.download(list(facts.urls))]  # verifies checksums
    self.info.features["label"].names = list(facts.class_names)
    if facts.coarse_names:
      self.info.features["coarse_label"].names = list(facts.coarse_names)
    splits = layouts.read_downloads(paths, facts)
    return {split: self._generate_examples(split, part) for split, part in splits.items()}

  def generate_examples(self, split: str, part: Part) -> Iterator:
    digits = 6 if facts.name == "svhn" else 5
    for index, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
      record = {"image": _png(image), "label": int(label)}
      if "id" in self.info.features:
        record["id"] = f"{split}_{index:0{digits}d}"
      if part.coarse is not None:
        record["coarse_label"] = int(part.coarse[index])
      yield index, record

  with tfds.core.registered.skip_registration():
    return type(
      official.__name__,
      (official,),
      {
        "name": facts.tfds_name,
        "url_infos": url_infos(tfds, facts),
        "pkg_dir_path": official.pkg_dir_path,
        "_split_generators": split_generators,
        "_generate_examples": generate_examples,
      },
    )


def _png(image: np.ndarray) -> io.BytesIO:
  from PIL import Image

  file = io.BytesIO()
  Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
  file.seek(0)
  return file
