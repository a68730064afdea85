"""Tokenized splits on disk, so that a second process imports no TensorFlow and reads no source.

One file holds one split: ragged int32 arrays and the records as JSON.  Its name contains a
fingerprint of everything the content depends on: the arguments, the Python source of the task
definitions, the vocabulary files, the data set's files and the environment variables that name data.
"""

import functools
import hashlib
import importlib.util
import json
import logging
import os
import pathlib
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from promot_jax import cache_folders, errors

FORMAT = 1  # of the file
_PACKAGE = pathlib.Path(__file__).resolve().parent
_PARTS = ("values", "shapes")  # of each feature that a task declares beside those
_ARRAYS = ("inputs", "input_lengths", "targets", "target_lengths")
# Variables that change what is read: vocabularies, versions and places of data sets.
_ENVIRONMENT = re.compile(r"PROMOT_(TFDS_\w+|\w+_VOCABULARY)|TFDS_DATA_DIR")

_log = logging.getLogger(__name__)


def default_dir() -> pathlib.Path | None:
  """Folder for tokenized splits in the user's cache; None where somebody else could fill it."""
  folder = cache_folders.default("examples")
  try:
    cache_folders.make_private(folder, what="cache of examples")
  except errors.ConfigError as error:
    # Cached examples decide over results, and are trusted without a second look.
    _log.warning("examples are not cached: %s", error)
    return None
  except OSError:  # a read-only home; what may be there can still be read
    return folder if folder.is_dir() and not cache_folders.weakness(folder) else None
  return folder


def fingerprint(arguments: Mapping[str, Any], modules: Sequence[str]) -> str:
  """32 hexadecimal digits that change with whatever could change the examples."""
  # Only what names data: the rest of the environment differs between machines.
  environment = {name: value for name, value in os.environ.items() if _ENVIRONMENT.fullmatch(name)}
  parts = {
    "format": FORMAT,
    "arguments": dict(arguments),
    "environment": environment,
    # A vocabulary's content, too: its path stays when another file is put there.
    "files": {name: _file_digest(value) for name, value in sorted(environment.items())},
    "code": [_source_digest(folder) for folder in _folders(str(arguments["name"]), modules)],
  }
  # `default`: arguments may be of types that JSON lacks, and their text tells them apart.
  text = json.dumps(parts, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:32]


def path(folder: str | pathlib.Path, name: str, split: str, digest: str) -> pathlib.Path:
  """File of one split."""
  # A file's name takes no slashes; the digest tells apart what becomes equal.
  safe = re.sub(r"[^\w.]+", "-", f"{name}-{split}")
  return pathlib.Path(folder).expanduser() / f"{safe}-{digest}.npz"


def read(file: pathlib.Path) -> dict[str, Any] | None:
  """Content of a file written by `write`; None where there is none, or it is damaged."""
  try:
    with np.load(file, allow_pickle=False) as stored:
      content: dict[str, Any] = {name: stored[name] for name in _ARRAYS}
      # Files from before there were features have no kinds.
      content.update({"kinds": {}}, **json.loads(stored["texts"].tobytes().decode()))
      content["features"] = {
        name: {part: stored[f"{name}:{part}"] for part in _PARTS} for name in content["kinds"]
      }
    if len(content["records"]) != len(content["input_lengths"]):
      raise ValueError("it holds another number of records than of arrays")
    return content
  except FileNotFoundError:
    return None
  except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as cause:
    _log.warning("cached examples %s are damaged (%s) and will be made again", file, cause)
    return None


def write(file: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Stores one split; a folder that cannot be written costs time later, not the run."""
  told = {name: content[name] for name in ("records", "report", "kinds") if content.get(name)}
  # As bytes, for NumPy would take four for each character.
  texts = json.dumps(told).encode()
  arrays = {name: content[name] for name in _ARRAYS}
  for name, packed in content.get("features", {}).items():
    arrays |= {f"{name}:{part}": packed[part] for part in _PARTS}
  temporary = None
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Beside its final place, where a rename is one step.
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as temporary:
      np.savez(temporary, texts=np.frombuffer(texts, np.uint8), **arrays)
    os.replace(temporary.name, file)  # complete or absent, also with several processes
  except OSError as cause:
    _log.warning("examples were not cached in %s: %s", file.parent, cause)
  finally:
    if temporary is not None:  # an interruption leaves nothing either
      pathlib.Path(temporary.name).unlink(missing_ok=True)


def _folders(name: str, modules: Sequence[str]) -> list[pathlib.Path]:
  """Where the source that decides over the examples of a task lies."""
  # The micro world's records are code, and change with it.
  folders = [_PACKAGE]
  if ".micro" in name:
    folders.append(_PACKAGE.parent / "micro")
  for module in modules:
    found = importlib.util.find_spec(module)
    if found is not None and found.origin:
      folders.append(pathlib.Path(found.origin).parent)
  return folders


@functools.cache
def _source_digest(folder: pathlib.Path) -> str:
  digest = hashlib.sha256()
  # Texts too: the micro world's words are one.
  for file in sorted([*folder.glob("*.py"), *folder.glob("*.txt")]):
    digest.update(file.name.encode() + b"\0" + file.read_bytes())
  return digest.hexdigest()


@functools.cache
def _file_digest(name: str) -> str:
  file = pathlib.Path(name).expanduser()
  return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
