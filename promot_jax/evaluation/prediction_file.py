"""The predictions beside a result: one JSON object a line, whose digest the result knows."""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Set
from typing import Any

from promot_jax import errors

ADVICE = (
  "The other results and the checkpoints are safe; promot train or promot eval runs this evaluation"
  " again and keeps the damaged file."
)


def beside(result: pathlib.Path) -> pathlib.Path:
  """Where the predictions of a result lie."""
  return result.with_name(result.name + "l")


def check(file: pathlib.Path, *, fields: Set[str], sha256: str, count: int) -> None:
  """Whether a file, if there is one, holds the predictions of a result.

  Args:
    file: it may be absent: predictions may be deleted to save room.
    fields: of every line.
    sha256: digest that the result has of the file; empty in results of earlier versions.
    count: examples of the result.

  Raises:
    DamagedRecord: they are not as they were written.
  """
  if not file.exists():
    return
  if sha256:
    if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
      raise _damaged(file, "are not as they were written")
    return
  found = sum(1 for _ in read(file, fields))
  # Earlier versions recorded no digest, and could store a result without predictions.
  if found not in (0, count):
    raise _damaged(file, f"are {found}, and the result is of {count} examples")


def read(file: pathlib.Path, fields: Set[str]) -> Iterator[dict[str, Any]]:
  """The lines of a file; none if it is absent.

  Raises:
    DamagedRecord: one is no JSON object with these fields.
  """
  content = file.read_bytes() if file.exists() else b""
  if not content:
    return
  # Of bytes: \n and nothing else ends a line, whatever characters the texts have.
  for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), 1):
    try:
      found = json.loads(line)
      if not isinstance(found, dict) or set(found) != fields:
        raise ValueError("it has other fields")
    except (ValueError, RecursionError) as error:
      raise _damaged(file, f"cannot be read in line {number} ({error})") from None
    yield found


def _damaged(file: pathlib.Path, problem: str) -> errors.DamagedRecord:
  return errors.DamagedRecord(f"The predictions in {file} {problem}. {ADVICE}")
