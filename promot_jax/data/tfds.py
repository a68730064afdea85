"""A data set of TensorFlow Datasets as the origin of a task's records: its version, place and state.

Imports neither seqio nor TensorFlow before its records are read.  What TensorFlow Datasets prepared is a
folder: small JSON files that describe it (its splits, their sizes, its features) and large files of
records.  The former are read, the latter count with their names, sizes and times of change, so that a
data set that was prepared again is read again.
"""

import dataclasses
import os
import pathlib
from typing import Any

from promot_jax import errors, identity

# Where TensorFlow Datasets itself puts what it prepares.
_DEFAULT = "~/tensorflow_datasets"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
  """A data set, configuration and version of TensorFlow Datasets.

  task: whose it is; the environment variable PROMOT_TFDS_<TASK> names another version.
  published: the one that the paper used.
  available: the version to offer where the installed TensorFlow Datasets no longer has `published`.
  """

  task: str
  published: str
  available: str | None = None

  @property
  def name(self) -> str:
    """What is read."""
    return os.environ.get(self.variable) or self.published

  @property
  def variable(self) -> str:
    """Environment variable that overrides `published`: PROMOT_TFDS_WMT14_EN_FR ..."""
    return f"PROMOT_TFDS_{self.task.upper()}"

  @property
  def description(self) -> str:
    return f"TensorFlow Datasets, {self.published}"

  def data_source(self) -> Any:
    """See `task.Origin`."""
    import seqio

    # Read here because TFDS looks at the variable only when it is imported.
    folder = os.environ.get("TFDS_DATA_DIR")
    return seqio.TfdsDataSource(tfds_name=self.name, tfds_data_dir=folder)

  def digest(self) -> str:
    """Of the prepared files; empty where there are none, or not in a local folder."""
    # Without a version the folder of all of them counts: which one would be read is not told here.
    where, _, version = self.name.partition(":")
    base = self._folder()
    # Files of a bucket would have to be listed over the network.
    if "://" in base:
      return ""
    folder = pathlib.Path(base) / where / version
    try:
      return identity.of_files(folder) if folder.is_dir() else ""
    # A digest is no place to complain: reading the data set says what is wrong.
    except OSError:
      return ""

  def is_prepared(self) -> bool | None:
    """Whether TFDS has prepared it; None where that is not looked at, in a bucket."""
    if "://" in self._folder():
      return None
    path = os.path.join(self._folder(), *self.name.replace(":", "/").split("/"))
    return os.path.isdir(path)

  def state(self) -> str:
    """See `task.Origin`."""
    state = {
      True: "prepared",
      False: "not prepared yet: TFDS will download it",
      None: "not looked at, as it is no local folder",
    }[self.is_prepared()]
    return f"tfds {self.name} in {self._folder()}: {state}"

  def explained(self, task: str, error: Exception) -> errors.PromotError:
    """How to get a data set that cannot be read."""
    name = self.name
    cause = (str(error).strip().splitlines() or [""])[-1][:200]
    message = f"data set {name} of task {task!r} cannot be read: {type(error).__name__}: {cause}"
    available = self.available
    # Told by its words: another version helps only where this one is gone.
    if available and available != name and "cannot be loaded at version" in str(error):
      return errors.ConfigError(
        f"{message}. The paper's version is no longer offered; to use {available} instead, set"
        f" {self.variable}={available} (other data: say so beside the figures)."
      )
    return errors.ConfigError(
      f"{message}. Prepare it where there is a network with `tfds build {name.partition(':')[0]}`,"
      " copy its folder here and name the parent folder with --tfds_data_dir or TFDS_DATA_DIR; or"
      " use the built-in data with DATA_SOURCE='micro'."
    )

  def _folder(self) -> str:
    return os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or _DEFAULT)
