"""Which version of a prepared data set lies on this machine, told without TensorFlow.

What TensorFlow Datasets prepared is a folder: small JSON files that describe it (its splits, their
sizes, its features) and large files of records.  The former are read, the latter count with their
names, sizes and times of change, so that a data set that was prepared again is read again.
"""

import os
import pathlib

from promot_jax import identity
from tasks import catalog

_DEFAULT = "~/tensorflow_datasets"


def digest(name: str) -> str:
  """Of the prepared files of a task.

  Args:
    name: registered, such as 'rte_1shot.tfds.t5'.

  Returns:
    Empty where there are none: for the micro world, whose records are code, and for a data set that is
    not prepared yet, or not in a local folder.
  """
  first, _, rest = name.partition(".")
  if not rest.startswith("tfds"):
    return ""
  dataset = catalog.tfds_name(catalog.split_shots(first)[0])
  where, _, version = dataset.partition(":")
  base = os.environ.get("TFDS_DATA_DIR") or _DEFAULT
  if "://" in base:
    return ""
  folder = pathlib.Path(base).expanduser() / where / version
  try:
    return identity.of_files(folder) if folder.is_dir() else ""
  except OSError:
    return ""
