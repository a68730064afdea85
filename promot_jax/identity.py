"""What something was made from, told apart by content: data, weights, settings, version of the code.

Whatever is resumed, cached or continued is found by place, and trusted by identity.  An `Identity`
lies as JSON beside what it guards; the next command makes its own and compares the two, part by part,
so that a refusal can say what changed:

    the training data changed: 301 records (sha 9c1f...), was 300 records (sha 52ab...)

Small things are digested byte by byte.  Large ones are told apart by what describes them (a manifest
of checksums, the headers of the files, their sizes and times of change): nobody reads 50 GB to start.
Only the standard library is imported here.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

VALUES = 1
"""Version of what is computed from the same data, weights and settings: the order of the batches, the
keys of dropout, the formats that are continued.  Raised when such values change, and only then: work
that was begun under another number is not continued."""

_LENGTH = 16  # hexadecimal digits of a digest, 64 bits: these tell versions apart, not attackers
_BLOB = re.compile(r"[0-9a-f]{64}")  # name of a file in a cache that names files by their SHA-256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """One thing that something was made from.

  digest: of its content, hexadecimal; equal for equal content.
  about: what a person knows it by, such as '300 records' or a path; not compared.
  """

  digest: str
  about: str = ""

  def __str__(self) -> str:
    return f"{self.about} (sha {self.digest})" if self.about else f"sha {self.digest}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
  """Named parts; two identities are the same if each part that both have is.

  parts: by names that read after 'the': 'training data', 'start weights', 'settings', 'code'.
  """

  parts: Mapping[str, Part]

  @property
  def digest(self) -> str:
    """Of all parts: what a result or a cache is keyed by."""
    return digest({name: part.digest for name, part in self.parts.items()})

  def part(self, name: str) -> Part | None:
    """One part, or None where it is not known."""
    return self.parts.get(name)

  def changes(self, earlier: "Identity", names: Iterable[str] | None = None) -> list[str]:
    """What differs from an earlier identity, a phrase for each part.

    Args:
      earlier: from the disk; parts that only one of the two has are not compared, because a version
        that did not record a part says nothing about it.
      names: the parts to look at; None: all.
    """
    wanted = list(self.parts) if names is None else list(names)
    return [
      f"the {name} changed: {new}, was {old}"
      for name in wanted
      if (new := self.parts.get(name)) and (old := earlier.parts.get(name))
      if new.digest != old.digest
    ]

  def to_json(self) -> dict[str, Any]:
    """As JSON holds it; `from_json` reads it."""
    return {name: {"digest": p.digest, "about": p.about} for name, p in self.parts.items()}

  @classmethod
  def from_json(cls, content: Any) -> "Identity | None":
    """The identity that `to_json` gave; None where there is none, as in what 0.1.0 began with."""
    if not isinstance(content, Mapping):
      return None
    return cls(
      parts={
        str(name): Part(digest=str(part["digest"]), about=str(part.get("about", "")))
        for name, part in content.items()
        if isinstance(part, Mapping) and "digest" in part
      }
    )


def digest(value: Any) -> str:
  """Of bytes, or of a value that JSON can hold (others by their text)."""
  if not isinstance(value, bytes):
    # Names of files that are no UTF-8 hold surrogates, and need a digest as well.
    value = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode(
      "utf-8", "surrogatepass"
    )
  return hashlib.sha256(value).hexdigest()[:_LENGTH]


def part(value: Any, *, about: str = "") -> Part:
  """The part of a value: its digest, and what a person knows it by."""
  return Part(digest=digest(value), about=about)


def of_file(path: str | os.PathLike) -> str:
  """The digest of a file's content, all of it read; the start of its SHA-256.

  Raises:
    OSError: it cannot be read.
  """
  with open(path, "rb") as stream:
    return hashlib.file_digest(stream, "sha256").hexdigest()[:_LENGTH]


def of_files(
  folder: str | os.PathLike, *, read: Iterable[str] = ("*.json",), largest: int = 2**24
) -> str:
  """The digest of a folder whose files are too large to be read at each start.

  Every file counts with its name below the folder.  Small ones that match `read` count with their
  content, a safetensors file also with its header, a file that is a link into a cache that names
  files by their SHA-256 with that name, and all others with their size and time of change.

  Args:
    folder: a folder, or one file.
    read: patterns of the names of files that are read, if they have at most `largest` bytes.
    largest: in bytes.

  Raises:
    OSError: it cannot be read.
  """
  folder, patterns = pathlib.Path(folder), tuple(read)
  if not folder.is_dir():  # a file, or nothing, which raises
    return digest([_told(folder, patterns, largest)])
  # Sorted, as file systems list in any order; Python fills __pycache__ by itself.
  found = sorted(
    path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
  )
  return digest([[str(path.relative_to(folder)), _told(path, patterns, largest)] for path in found])


@functools.cache
def of_code() -> Part:
  """The code that runs: the source of this package, told by its version."""
  root = pathlib.Path(__file__).resolve().parent
  content = [[str(path.relative_to(root)), of_file(path)] for path in sorted(root.rglob("*.py"))]
  return Part(digest=digest(content), about=f"promot_jax {_version()}")


def of_values() -> Part:
  """The version of what is computed from equal inputs (`VALUES`)."""
  return Part(digest=str(VALUES), about=f"promot_jax {_version()}")


def _version() -> str:
  from promot_jax import __version__

  return __version__


def _told(path: pathlib.Path, patterns: tuple[str, ...], largest: int) -> list[Any]:
  real = path.resolve()
  # The name says the content, whatever the time of change of a copied cache.
  if path.is_symlink() and _BLOB.fullmatch(real.name):
    return ["sha256", real.name]
  state = real.stat()
  if state.st_size <= largest and any(path.match(pattern) for pattern in patterns):
    return ["content", of_file(real)]
  return ["state", state.st_size, state.st_mtime_ns, _header(real)]


def _header(path: pathlib.Path) -> str:
  """Of the names, types and places of a safetensors file's arrays; empty for other files."""
  if path.suffix != ".safetensors":
    return ""
  with path.open("rb") as stream:
    length = int.from_bytes(stream.read(8), "little")
    # A damaged length must not ask for more memory than there is.
    return digest(stream.read(min(length, 2**27)))
