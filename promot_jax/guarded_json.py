"""JSON records that know when they were changed, by a digest of their own content.

Checkpoints have a manifest.  What lies beside it (which step was chosen, scores, how a run was made)
is as easily cut off by a full disk or edited by hand, and decides which weights are used and which
figures are printed.  Such a record is an object in which `sha256` is the digest of everything else
and `guarded` says that there is one; `read` checks both and the shape before anybody looks inside.

Records of earlier versions have neither: they are read after a look at their shape, and `remark` says
that nobody would see a change in them.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from promot_jax import errors

_DIGEST, _MARK = "sha256", "guarded"
Shape = Mapping[str, type | tuple[type, ...]]
"""Fields that a record must have, with the types that JSON gives them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """A record that was read.

  content: its fields, without the guard.
  guarded: whether a digest was there, and right; False of records of earlier versions.
  """

  content: dict[str, Any]
  guarded: bool


def text(content: Mapping[str, Any]) -> str:
  """A record as it is to be written, in one rename: indented JSON, the digest last.

  Raises:
    ValueError: a number is not finite.
  """
  # As JSON gives it back: tuples become lists and keys text, and the digest must be of those.
  plain = json.loads(json.dumps(dict(content), allow_nan=False))
  body = {key: value for key, value in plain.items() if key not in (_DIGEST, _MARK)}
  # Two signs of a guard: a record whose digest was deleted still says that it had one.
  return json.dumps({_MARK: 1, **body, _DIGEST: _digest(body)}, indent=1, allow_nan=False) + "\n"


def read(path: str | os.PathLike, *, shape: Shape, advice: str) -> Record | None:
  """A record; None where there is no such file.

  Args:
    path: the file.
    shape: fields that it must have.
    advice: what is safe and what to do if it is damaged, a sentence.

  Raises:
    DamagedRecord: it cannot be read, is no JSON object, lacks a field, or is not as it was written.
  """
  try:
    raw = pathlib.Path(path).read_bytes()
  # Where a folder of the path is a file there is no record, either.
  except (FileNotFoundError, NotADirectoryError):
    return None
  except OSError as error:
    raise _damaged(path, f"cannot be read ({error.strerror})", advice) from None
  try:
    return parse(raw, shape=shape)
  except ValueError as error:
    raise _damaged(path, str(error), advice) from None


def parse(raw: bytes, *, shape: Shape) -> Record:
  """The record in the bytes of a file.

  Raises:
    ValueError: it is damaged; the message says how, as what follows the name of the file.
  """
  try:
    content = json.loads(raw.decode("utf-8"))
  except UnicodeDecodeError as error:
    raise ValueError(f"is no text (byte {error.start} is not UTF-8)") from None
  except RecursionError:
    raise ValueError("is no record (it is nested too deeply)") from None
  except ValueError as error:
    raise ValueError(f"is empty or cut off: no JSON ({error})" if raw else "is empty") from None
  if not isinstance(content, dict):
    raise ValueError(f"is a JSON {_kind(content)}, and a record is an object")
  guarded = _MARK in content or _DIGEST in content
  body = {key: value for key, value in content.items() if key not in (_DIGEST, _MARK)}
  if guarded and (content.get(_MARK) != 1 or content.get(_DIGEST) != _digest(body)):
    raise ValueError("is not as it was written: its content does not match its own checksum")
  for name, kinds in shape.items():
    if name not in body:
      raise ValueError(f"has no field '{name}'")
    if not _is(body[name], kinds):
      raise ValueError(f"has a {_kind(body[name])} as its field '{name}'")
  return Record(content=body, guarded=guarded)


def remark(paths: Iterable[str | os.PathLike]) -> str:
  """A sentence about those of some records that carry no digest; empty where all do.

  What cannot be read is damage, which those who use the record report.
  """
  found = [path for path in paths if _is_unguarded(path)]
  if not found:
    return ""
  several = len(found) > 1
  return (
    f"{len(found)} record{'s' * several} of an earlier version {'carry' if several else 'carries'} no"
    f" digest ({'such as ' * several}{os.fspath(found[0])}): {'their' if several else 'its'} shape is"
    " checked, but a change of a value in"
    f" {'them' if several else 'it'} would not be seen."
  )


def _is_unguarded(path: str | os.PathLike) -> bool:
  try:
    return not parse(pathlib.Path(path).read_bytes(), shape={}).guarded
  except (OSError, ValueError):
    return False


def set_aside(path: str | os.PathLike) -> pathlib.Path:
  """Renames a damaged file out of the way, and gives the new path.

  Raises:
    OSError: it cannot be renamed.
  """
  path = pathlib.Path(path)
  target = path.with_name(f"{path.name}.damaged")
  number = 2
  # Never over an earlier damaged file, of which somebody may still want to see something.
  while target.exists():
    target = path.with_name(f"{path.name}.damaged-{number}")
    number += 1
  return path.rename(target)


def _digest(body: Mapping[str, Any]) -> str:
  # Sorted: an editor that writes the fields in another order changes nothing.
  return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _is(value: Any, kinds: type | tuple[type, ...]) -> bool:
  kinds = kinds if isinstance(kinds, tuple) else (kinds,)
  if isinstance(value, bool):  # which is an int for Python, and none in a record
    return bool in kinds
  return isinstance(value, kinds)


def _kind(value: Any) -> str:
  names = {dict: "object", list: "list", str: "text", bool: "truth value", type(None): "null"}
  return names.get(type(value), "number")


def _damaged(path: str | os.PathLike, problem: str, advice: str) -> errors.DamagedRecord:
  return errors.DamagedRecord(f"{path} {problem}. {advice}")
