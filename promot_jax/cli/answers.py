"""The file of answers that `promot infer` writes by parts: whose it is, and where it goes on.

An answer is continued only by the model that made the ones before, and only under the lines that it
answered: each line of the file holds its input line, so the two are compared.  Lines that were added
to the end of the input are answered, lines that were changed are refused.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

from promot_jax import guarded_json, identity
from promot_jax.cli import failures
from promot_jax.errors import ConfigError, DataError
from promot_jax.identity import Identity

_STANDARD_OUTPUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
# What a terminal obeys or hides, and JSON leaves as it is: as an escape it is the same JSON.
_UNSEEN = re.compile("[\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_FORMER = {"prompt": "method"}
"""Words of what earlier versions made answers with, by those of now."""
_pipes: dict[
  pathlib.Path, IO[str]
] = {}  # closed between two writes, a pipe would end for its reader


def is_standard_output(output: pathlib.Path) -> bool:
  """Whether answers go where this process prints, whatever that is."""
  return str(output) in _STANDARD_OUTPUT


def is_stream(output: pathlib.Path) -> bool:
  """Whether answers go somewhere that keeps nothing: standard output, a pipe, a device."""
  return is_standard_output(output) or (
    output.exists() and not output.is_file() and not output.is_dir()
  )


def hold(output: pathlib.Path) -> contextlib.AbstractContextManager:
  """Exclusive use of the file of answers: two that append to it would mix their lines.

  Raises:
    ModelDirInUse: another process holds it.
  """
  from promot_jax.checkpoints.lease import Lease

  if is_stream(output):
    # Nothing to lock: what a stream takes is not continued.  At the end it is closed for its
    # reader.
    held = contextlib.ExitStack()
    held.callback(lambda: _pipes.pop(output).close() if output in _pipes else None)
    return held
  _check_writable(output)
  return Lease(output.parent, file=f".{output.name}.lease", what=f"--output={output}")


def append(output: pathlib.Path, lines: str) -> None:
  """Adds whole lines and forces them to the disk, or through the pipe.

  On a disk that is full the whole lines that still fit stay, and no part of one.

  Raises:
    BrokenPipeError: nobody reads standard output any more.
    CannotWrite: the disk is full, or nobody reads the pipe.
  """
  if is_standard_output(output):
    sys.stdout.write(_UNSEEN.sub(_escaped, lines) if sys.stdout.isatty() else lines)
    sys.stdout.flush()
    return
  try:
    if is_stream(output):
      pipe = _pipes.get(output) or _pipes.setdefault(output, output.open("w", encoding="utf-8"))
      pipe.write(lines)
      pipe.flush()
      return
    with output.open("ab", buffering=0) as file:
      _write_whole_lines(file, lines.encode("utf-8"))
  except OSError as error:
    raise failures.cannot_write(output, error.strerror or str(error)) from error


def _write_whole_lines(file: io.FileIO, data: bytes) -> None:
  before, written = file.seek(0, os.SEEK_END), 0
  try:
    while written < len(data):
      written += file.write(data[written:])
  except OSError:
    # The whole lines that fit stay: the same command goes on after them.
    file.truncate(before + data.rfind(b"\n", 0, written) + 1)
    raise
  os.fsync(file.fileno())


def made_with(values: Mapping[str, str]) -> Identity:
  """What answers are made with, by words that a message can show."""
  return Identity(parts={name: identity.part(text, about=text) for name, text in values.items()})


def begin(
  output: pathlib.Path, records: Sequence[Mapping[str, Any]], made: Identity, *, whole: bool
) -> int:
  """How many of the records are answered in the file; says beside it what the others are made with.

  A line that was torn by a kill is removed.

  Args:
    output: the file of answers, present or not.
    records: the lines of the input, in order.
    made: what they are to be answered with.
    whole: whether these are all lines of the input, not its first ones only.

  Raises:
    ConfigError: the file is somebody else's, or was begun with another model or another input.
    DamagedRecord: what it was made with cannot be read.
    CannotWrite: the disk refused.
  """
  if is_stream(output):
    return 0
  from promot_jax.checkpoints import disk

  content = output.read_bytes() if output.is_file() else b""
  meta = output.with_name(output.name + ".meta.json")
  # An empty file may be a user's `touch`, or of a command that was stopped before its first
  # answer.
  if content:
    record = guarded_json.read(
      meta,
      shape={},
      advice=f"It says which model made {output}, whose answers are untouched. Choose another"
      " --output, or move both files away to answer every line again.",
    )
    if record is None:
      raise ConfigError(
        f"--output={output} exists and was not written by promot infer. Choose another."
      )
    _require_same(output, made, record.content)
  keep = content.rfind(b"\n") + 1
  # By line feeds alone: `splitlines` would cut at characters that JSON leaves within texts.
  answered = content[:keep].decode("utf-8", "replace").split("\n")[:-1]
  _require_same_lines(output, answered, records, whole=whole)
  try:
    disk.write_record(meta, {"made_with": made.to_json()})
    if keep < len(content):
      os.truncate(output, keep)
  except OSError as error:
    raise failures.cannot_write(meta, error.strerror or str(error)) from None
  return len(answered)


def _check_writable(output: pathlib.Path) -> None:
  try:
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a"):
      pass
  except OSError as error:
    raise failures.cannot_write(output, error.strerror or str(error)) from None


def _require_same(output: pathlib.Path, made: Identity, stored: Mapping[str, Any]) -> None:
  earlier = Identity.from_json(stored.get("made_with"))
  if earlier is None:  # written by 0.1.0 before it had identities: names and texts
    earlier = made_with({name: text for name, text in stored.items() if isinstance(text, str)})
  before = {_FORMER.get(name, name): part for name, part in earlier.parts.items()}
  changed = [
    f"{name}: {before[name].about} -> {part.about}"
    for name, part in made.parts.items()
    # Parts that only one of the two knows are no change: versions have noted more and more of
    # them.
    if name in before and before[name].digest != part.digest
  ]
  if changed:
    raise ConfigError(
      f"--output={output} was begun with other settings ({'; '.join(changed)}). Choose another file."
    )


def _require_same_lines(
  output: pathlib.Path,
  answered: Sequence[str],
  records: Sequence[Mapping[str, Any]],
  *,
  whole: bool,
) -> None:
  """Raises ConfigError unless the answers in the file are to the first of these records."""
  for number, (line, record) in enumerate(zip(answered, records), 1):
    try:
      found = json.loads(line)
      if not isinstance(found, dict):
        raise ValueError("it is no object")
    except ValueError as error:
      raise DataError(
        f"--output={output} has an answer that cannot be read, in line {number} ({error}). Choose"
        " another file, or move this one away to answer every line again."
      ) from None
    changed = [name for name in record if name not in found or found[name] != record[name]]
    if changed:
      raise ConfigError(
        f"--output={output} has answers to another input: its line {number} answers"
        f" {changed[0]}={_shown(found.get(changed[0]))}, and the input has"
        f" {_shown(record[changed[0]])} there. Choose another file, or give the input that was begun."
      )
  # With --limit fewer lines are asked for than may be answered already.
  if whole and len(answered) > len(records):
    raise ConfigError(
      f"--output={output} has {len(answered)} answers, and the input has {len(records)} lines: lines"
      " were removed from it. Choose another file, or give the input that was begun."
    )


def _escaped(found: re.Match[str]) -> str:
  return f"\\u{ord(found[0]):04x}"


def _shown(value: Any, longest: int = 60) -> str:
  text = json.dumps(value, ensure_ascii=False)
  return text if len(text) <= longest else text[: longest - 4] + '..."'
