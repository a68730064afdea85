"""Every way to say where a backbone's weights come from, in one place.

`micro` and `random` are values of their own.  Anything else is a checkpoint, found by looking at it:

    /path, local:/path       T5X, one of our own steps, .npz, or a Hugging Face folder
    hf:DIR, hf:NAME[@REV]    a Hugging Face folder, or a model of the hub
    gs://..., s3://...       T5X read in place; a Hugging Face folder is copied to a cache first
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any, Literal

from promot_jax import errors, identity
from promot_jax.checkpoints import huggingface, locations, npz, remote_folder, step_reader, t5x
from promot_jax.checkpoints.stored import StoredArray

MICRO = "micro"
"""The weights that come with the package."""
RANDOM = "random"
"""No weights: the backbone keeps its random initialization."""
Kind = Literal["micro", "random", "t5x", "hf", "step", "npz"]
_TENSORSTORE = ("gs://", "s3://", "file://")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """A checkpoint that was found.

  text: as the user wrote it.
  kind: which format.
  place: local path, or URL of a T5X checkpoint; '' for micro and random.
  """

  text: str
  kind: Kind
  place: str = ""


def resolve(text: str) -> Source:
  """Finds the checkpoint that a text names; fetches a Hugging Face one that is elsewhere.

  Raises:
    ConfigError: there is none, or none that can be read; says what to do.
  """
  if text == MICRO:
    return Source(text=text, kind="micro")
  if text == RANDOM:
    return Source(text=text, kind="random")
  if not text:
    raise errors.ConfigError(
      "The initial checkpoint is empty; give micro, random, a path, hf:NAME or a gs:// URL."
    )
  # `hf:` before URLs: the user has said what it is, and a bucket need not be asked.
  if text.startswith("hf:") or _is_remote_hf(text):
    return Source(text=text, kind="hf", place=str(locations.fetch_hf(text)))
  # Anything else in a bucket is T5X, which TensorStore reads in place.
  if locations.is_remote(text):
    return Source(text=text, kind="t5x", place=text)
  path = pathlib.Path(text.removeprefix("local:")).expanduser()
  # A folder of steps stands for the one that its finished stage chose, or for its last.
  path = step_reader.find_step(path) or path
  return Source(text=text, kind=_local_kind(path, text), place=str(path))


def open_source(source: Source, config: Any = None) -> dict[str, StoredArray]:
  """The checkpoint's parameters by our names; nothing large is read yet.

  Args:
    source: from `resolve`, and neither micro nor random.
    config: of the model that will take them; a Hugging Face checkpoint is compared with it.

  Raises:
    ConfigError: it is of another model, or no checkpoint.
    DamagedCheckpoint: its parts contradict each other.
  """
  # Names of Hugging Face alone depend on the configuration: layers, gates, a head of its own.
  if source.kind == "hf":
    return huggingface.open_hf(source.place, config)
  if source.kind == "t5x":
    return t5x.open_t5x(source.place)
  if source.kind == "step":
    return step_reader.open_step(source.place)
  return npz.open_npz(source.place)


def content(text: str) -> str:
  """A digest that changes with the weights that a text names, without reading them.

  Names, sizes and times of the files, the headers of safetensors, the checksums of our own steps and
  of a hub's cache (`identity.of_files`).

  Returns:
    Empty where nothing is known without reading: of micro and random, which are named by what they
    are, of a remote checkpoint, and of one that is not there any more.
  """
  # A bucket would have to be listed over the network.
  if text in (MICRO, RANDOM) or locations.is_remote(text):
    return ""
  try:
    source = _resolved(text)
    if source.kind == "step":
      # The manifest has the checksums of all files already.
      return identity.of_file(pathlib.Path(source.place) / "manifest.json")
    place = t5x.find_t5x(source.place) if source.kind == "t5x" else source.place
    return identity.of_files(str(place))
  # A digest is no place to complain: whoever reads the weights says what is wrong with them.
  except (errors.PromotError, OSError):
    return ""


@functools.lru_cache(maxsize=16)
def _resolved(text: str) -> Source:
  """As `resolve`, once in a process: a model of the hub is looked up over the network."""
  return resolve(text)


def _is_remote_hf(text: str) -> bool:
  if not locations.is_remote(text):
    return False
  if not text.startswith(_TENSORSTORE):  # only fsspec knows the others, and T5X has no reader there
    return True
  return (remote_folder.RemoteFolder(text) / "config.json").is_file()


def _local_kind(path: pathlib.Path, text: str) -> Kind:
  # The only file among them; folders are told apart by what lies in them.
  if path.is_file() and path.suffix == ".npz":
    return "npz"
  if step_reader.is_step(path):
    return "step"
  # Behind our own steps and before T5X, which is what any other folder is taken for.
  if huggingface.is_hf(path):
    return "hf"
  if path.is_dir():
    return "t5x"
  # A name of the hub has one slash, and so has a relative path with a typing error.
  hub = f", hf:{text} for a model of the hub" if text.count("/") == 1 and os.sep == "/" else ""
  raise errors.ConfigError(
    f"Checkpoint '{text}' is not a folder on this machine and no .npz or .safetensors file; give the"
    f" path of one{hub}, or one of micro, random and gs://..."
  )
