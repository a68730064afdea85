"""Files whose n-th record is read without those before it, whatever their size.

A file is read once from its start to its end, checked, and the places where its records end are written to a
file of their own, 8 bytes a record, which stays in the user's cache.  Both are then read at the places that
are asked for and nowhere else, so that memory grows neither with the file nor with the number of its records.
"""

import codecs
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from promot_jax import errors, identity
from promot_jax.data import text_lines

LARGE = 2**30
"""Bytes of a split's files above which training reads its records by number and keeps none."""

_FORMAT = 1  # of the files in the cache
_BLOCK = 2**24  # bytes read at once
_SECONDS = 5.0  # between two reports
_MARK = codecs.BOM_UTF8
_LENGTH = struct.Struct("<Q4x")  # of a TFRecord, and the checksum of this number


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RecordFile:
  """A file, and where its records end.

  content: digest of the content.
  empty: how many lines are empty.
  first_empty: the number of the first of these, from 1; 0: there is none.
  """

  path: str
  content: str
  empty: int
  first_empty: int
  _file: IO[bytes]
  _ends: IO[bytes]
  _state: tuple[int, int]

  def __len__(self) -> int:
    return os.fstat(self._ends.fileno()).st_size // 8 - 1

  def read(self, number: int) -> bytes:
    """The record of this number, from 0, with all that belongs to it in the file.

    Raises:
      DataError: the file was changed since it was opened.
    """
    if _state(self._file) != self._state:
      raise errors.DataError(f"{self.path} was changed while it was read. Start again.")
    start, end = np.frombuffer(os.pread(self._ends.fileno(), 16, 8 * number), "<i8").tolist()
    return os.pread(self._file.fileno(), end - start, start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordFiles:
  """Opens record files.

  folder: where the places of their records are kept; None: nothing is kept.
  report: told from time to time how far a file has been read.
  """

  folder: pathlib.Path | None
  report: Callable[[str], None]

  def lines(self, path: str) -> RecordFile:
    """A file of UTF-8 lines, split as `text_lines` does; a byte order mark belongs to none.

    Raises:
      ConfigError: it cannot be read.
      DataError: it is no UTF-8.
    """
    return self._opened(path, _lines)

  def tfrecords(self, path: str) -> RecordFile:
    """A file of TFRecords.

    Raises:
      ConfigError: it cannot be read.
      DataError: it ends inside of a record.
    """
    return self._opened(path, _tfrecords)

  def _opened(self, path: str, scan: "_Scan") -> RecordFile:
    try:
      file = open(path, "rb")  # noqa: SIM115  (open as long as the value lives)
    except OSError as error:
      reason = error.strerror or str(error)
      raise errors.ConfigError(f"{path} cannot be read: {reason}. Name another file.") from None
    state = _state(file)
    # By place, size and time: the content is not known before it is read.
    name = identity.digest([_FORMAT, scan.__name__, os.path.abspath(path), *state])
    kept = None if self.folder is None else self.folder / name
    found = None if kept is None else _kept(kept)
    told, ends = found or self._scanned(path, scan, state[0], kept)
    return RecordFile(path=path, _file=file, _ends=ends, _state=state, **told)

  def _scanned(
    self, path: str, scan: "_Scan", size: int, kept: pathlib.Path | None
  ) -> tuple[dict[str, Any], IO[bytes]]:
    progress = functools.partial(_told, path, size, self.report)
    try:
      folder = None if kept is None else kept.parent
      if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
      ends = tempfile.NamedTemporaryFile(  # noqa: SIM115  (as the file itself)
        dir=folder, suffix=".tmp", delete=folder is None
      )
    except OSError:  # a cache that cannot be written costs time later, not the run
      kept, ends = None, tempfile.NamedTemporaryFile()  # noqa: SIM115
    try:
      told = scan(path, ends, _every(_SECONDS, progress))
      ends.flush()
      if kept is not None:
        # The places first: what is told of them makes them complete.
        os.replace(ends.name, kept.with_suffix(".ends"))
        _write(kept.with_suffix(".json"), told)
    except BaseException:
      ends.close()
      pathlib.Path(ends.name).unlink(missing_ok=True)
      raise
    return told, ends


_Scan = Callable[[str, IO[bytes], Callable[[int], None]], dict[str, Any]]
"""Reads a file, writes where records begin and end, and gives what else there is to say of it."""


def _lines(path: str, ends: IO[bytes], progress: Callable[[int], None]) -> dict[str, Any]:
  digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
  empty = first_empty = count = at = before = 0
  last = None  # the end of the line before
  for block in _blocks(path):
    # A checksum of each block: a digest of all bytes would take longer than all else here.
    digest.update(zlib.crc32(block).to_bytes(4, "little"))
    try:
      decoder.decode(block)
    except UnicodeDecodeError:
      _refuse(path)
    if last is None:
      last = len(_MARK) if block.startswith(_MARK) else 0
      ends.write(np.int64(last).astype("<i8").tobytes())
    data = np.frombuffer(block, np.uint8)
    breaks = np.flatnonzero(data == ord("\n"))
    if len(breaks):
      found = breaks + (at + 1)
      lengths = np.diff(found, prepend=last)
      # A carriage return before it belongs to a line's end; it may be the last of the block before.
      ahead = np.where(breaks > 0, data[breaks - 1], before)
      bare = (lengths == 1) | ((lengths == 2) & (ahead == ord("\r")))
      if bare.any() and not first_empty:
        first_empty = count + int(bare.argmax()) + 1
      empty, count, last = empty + int(bare.sum()), count + len(found), int(found[-1])
      ends.write(found.astype("<i8").tobytes())
    at, before = at + len(block), block[-1]
    progress(at)
  try:
    decoder.decode(b"", final=True)
  except UnicodeDecodeError:
    _refuse(path)
  if last is None:
    raise errors.DataError(f"{path} is empty.")
  if last < at:  # a last line without an end
    ends.write(np.int64(at).astype("<i8").tobytes())
  return {"content": digest.hexdigest(), "empty": empty, "first_empty": first_empty}


def _tfrecords(path: str, ends: IO[bytes], progress: Callable[[int], None]) -> dict[str, Any]:
  digest, found = hashlib.sha256(), [0]
  size = os.path.getsize(path)
  with open(path, "rb", buffering=_BLOCK) as file:
    at = 0
    while header := file.read(_LENGTH.size):
      end = at + _LENGTH.size + 4
      if len(header) == _LENGTH.size:
        (length,) = _LENGTH.unpack(header)
        end += length
      if len(header) < _LENGTH.size or end > size:
        raise errors.DataError(
          f"{path} ends inside of the record at byte {at}. Prepare the data again."
        )
      file.seek(end - 4)
      # Checksums of the records stand for the content, which then need not be read.
      digest.update(header + file.read(4))
      at = end
      found.append(at)
      if len(found) >= _BLOCK // 8:
        ends.write(np.asarray(found, "<i8").tobytes())
        found = []
        progress(at)
  ends.write(np.asarray(found, "<i8").tobytes())
  return {"content": digest.hexdigest(), "empty": 0, "first_empty": 0}


def _blocks(path: str) -> Iterator[bytes]:
  with open(path, "rb", buffering=0) as file:
    while block := file.read(_BLOCK):
      yield block


def _refuse(path: str) -> None:
  """Raises the sentence with the line and the byte that are no UTF-8."""
  for _ in text_lines.stream_lines(path):
    pass


def _state(file: IO[bytes]) -> tuple[int, int]:
  found = os.fstat(file.fileno())
  return found.st_size, found.st_mtime_ns


def _kept(path: pathlib.Path) -> tuple[dict[str, Any], IO[bytes]] | None:
  """What an earlier process found; None where there is nothing, or it is damaged."""
  try:
    told = json.loads(path.with_suffix(".json").read_text())
    ends = open(path.with_suffix(".ends"), "rb")  # noqa: SIM115
    if os.fstat(ends.fileno()).st_size == told.pop("bytes"):
      return told, ends
    ends.close()
  except (OSError, ValueError, KeyError, AttributeError):
    pass
  return None


def _write(path: pathlib.Path, told: dict[str, Any]) -> None:
  size = path.with_suffix(".ends").stat().st_size
  temporary = path.with_suffix(f".{os.getpid()}.tmp")
  temporary.write_text(json.dumps({**told, "bytes": size}))
  os.replace(temporary, path)


def _told(path: str, size: int, report: Callable[[str], None], done: int) -> None:
  report(f"data      {path}: {100 * done / max(size, 1):.0f} % of {size / 1e9:.1f} GB looked at")


def _every(seconds: float, call: Callable[[int], None]) -> Callable[[int], None]:
  last = time.monotonic()

  def now_and_then(done: int) -> None:
    nonlocal last
    if time.monotonic() - last >= seconds:
      last = time.monotonic()
      call(done)

  return now_and_then
