"""A data set of TensorFlow Datasets as the origin of a task's records: its version, place and state.

Imports neither seqio nor TensorFlow before its records are read.  What TensorFlow Datasets prepared is a
folder: small JSON files that describe it (its splits, their sizes, its features) and large files of
records.  The former are read, the latter count with their names, sizes and times of change, so that a
data set that was prepared again is read again.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from promot_jax import errors, identity
from promot_jax.data import record_files
from promot_jax.data.quiet import quiet
from promot_jax.data.task import PROBLEM, WHERE

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

  def numbered(self, split: str, opener: record_files.RecordFiles) -> "NumberedRecords | None":
    """The records of a split by their numbers; None where they are few, or no local TFRecord files.

    Raises:
      ConfigError, DataError: a file cannot be read.
    """
    folder = pathlib.Path(self._path())
    if "://" in str(folder):
      return None
    shards = sorted(folder.glob(f"*-{split}.tfrecord-*-of-*"))
    if sum(shard.stat().st_size for shard in shards) < record_files.LARGE:
      return None
    return NumberedRecords(folder=folder, files=[opener.tfrecords(str(each)) for each in shards])

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
    return os.path.isdir(self._path())

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

  def _path(self) -> str:
    return os.path.join(self._folder(), *self.name.replace(":", "/").split("/"))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NumberedRecords:
  """Records of a prepared split by their numbers (`data.stream.NumberedRecords`).

  folder: of the prepared data set.
  files: its shards of the split.
  """

  folder: pathlib.Path
  files: Sequence[record_files.RecordFile]
  problem: str = ""

  @functools.cached_property
  def _first(self) -> np.ndarray:
    """Number of the first record of each shard, and that of all records."""
    return np.cumsum([0, *map(len, self.files)])

  @functools.cached_property
  def _features(self) -> Any:
    # TensorFlow comes with it.
    with quiet():
      import tensorflow_datasets

      return tensorflow_datasets.builder_from_directory(self.folder).info.features

  def __len__(self) -> int:
    return int(self._first[-1])

  @property
  def content(self) -> str:
    """Digest of all shards."""
    return identity.digest([file.content for file in self.files])

  def record(self, number: int) -> Mapping[str, Any]:
    """As the data set's features describe it, in plain values; with PROBLEM where it cannot be read."""
    shard = int(np.searchsorted(self._first, number, side="right")) - 1
    file, place = self.files[shard], number - int(self._first[shard])
    where = f"{file.path}, record {place}"
    # Between its length and its own checksum.
    content = file.read(place)[12:-4]
    try:
      return {**plain(self._features.deserialize_example_np(content)), WHERE[0]: where}
    except UnicodeDecodeError as error:
      return {WHERE[0]: where, PROBLEM[0]: f"a field is not UTF-8: {error}."}
    # The parsers of TensorFlow Datasets raise errors of many kinds.
    except Exception as error:
      raise errors.DataError(f"{where} is damaged: {error}. Prepare the data again.") from error


def plain(value: Any) -> Any:
  """What TensorFlow Datasets gives as text, numbers, lists and mappings of them.

  Raises:
    UnicodeDecodeError: text is no UTF-8.
  """
  if isinstance(value, Mapping):
    return {name: plain(each) for name, each in value.items()}
  if isinstance(value, bytes):
    return value.decode("utf-8")
  if isinstance(value, np.ndarray) and value.ndim:
    return [plain(item) for item in value]
  return value.item() if isinstance(value, (np.ndarray, np.generic)) else value
