"""What can go wrong with data: a set that is nowhere to be had, a file that is damaged."""


class DatasetUnavailable(RuntimeError):
  """A data set is neither in the folder nor can it be downloaded.

  Attributes:
    name: the data set.
    folder: the folder looked in.
    reason: one line, why nothing was found there and why the download failed.
    remedies: one line, what to do about it.
  """

  def __init__(self, name: str, *, folder: str, reason: str, remedies: str):
    self.name, self.folder, self.reason, self.remedies = name, folder, reason, remedies
    super().__init__(
      f"data set {name!r} is not available. Looked in {folder}. {reason} Remedies: {remedies}"
    )


class DataFileError(ValueError):
  """A data file is missing from its set, truncated, or not in the format its name promises."""

  @classmethod
  def unreadable(
    cls, path: str, cause: str, *, expected: int | None = None, found: int | None = None
  ):
    """Says which file it is, what is wrong with it, and the expected and the actual size."""
    sizes = ""
    if found is not None:
      want = "" if expected is None else f"expected {expected} bytes, "
      sizes = f" ({want}found {found} bytes)"
    return cls(f"{path}: {cause}{sizes}. Copy or download this file again.")


class DownloadFailed(RuntimeError):
  """A file could not be downloaded or prepared; the message is one line that says why."""
