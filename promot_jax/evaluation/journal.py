"""Raw outputs of an evaluation that is not finished, so that a stopped one goes on where it was."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from promot_jax.evaluation import whole_files

_CHECK = "check"  # field of a line: digest of the others


@dataclasses.dataclass(frozen=True)
class Journal:
  """Outputs appended batch by batch, so a stopped evaluation repeats only the batches in flight."""

  path: pathlib.Path

  def read(self) -> Iterator[dict[str, Any]]:
    """The entries, in the order they were added; lines that were cut or changed are left out."""
    if not self.path.exists():
      return
    # Of bytes: a damaged line need not be text, and must not hide those behind it.
    with self.path.open("rb") as lines:
      for line in lines:
        try:
          entry = json.loads(line)
          check = entry.pop(_CHECK, None) if isinstance(entry, dict) else None
          sound = check == whole_files.fingerprint(entry)[:16]
        # Damage may also nest too deeply, or leave half of a character, of which there is no digest.
        except (ValueError, RecursionError):
          continue
        if sound:
          yield entry

  def append(self, entries: Iterable[Mapping[str, Any]]) -> None:
    """Adds one line for each entry and hands them to the operating system."""
    whole_files.ensure_folder(self.path.parent)
    # Appended, not written anew: a batch costs the same however long the evaluation is.
    with whole_files.writing(self.path), self.path.open("ab") as file:
      if file.tell() and not _ends_line(self.path):
        file.write(b"\n")  # a line cut by a crash must not swallow the first new one
      file.write("".join(map(_checked_line, entries)).encode("utf-8"))

  def remove(self, fingerprints: Collection[str]) -> None:
    """Drops the outputs that are part of finished results, and the file with the last of them.

    Those of an evaluation that was stopped, and measured in another way, stay.
    """
    # By fingerprint, as several evaluations of one checkpoint share the file.
    others = [entry for entry in Journal.read(self) if entry.get("fingerprint") not in fingerprints]
    if others:
      whole_files.write_text(self.path, "".join(map(_checked_line, others)))
    else:
      self.path.unlink(missing_ok=True)


def _ends_line(path: pathlib.Path) -> bool:
  with path.open("rb") as file:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _checked_line(entry: Mapping[str, Any]) -> str:
  plain = whole_files.plain(entry)
  return whole_files.line({**plain, _CHECK: whole_files.fingerprint(plain)[:16]})
