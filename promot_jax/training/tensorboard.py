"""TensorBoard event files without TensorFlow, whose import takes seconds and can seize a TPU.

The format is small: length-delimited records with CRC-32C checksums (TFRecord), each an `Event`
protocol buffer.  Only scalars are written; the field numbers are those of tensorboard's event.proto
and summary.proto.
"""

import os
import pathlib
import socket
import struct
import time
from collections.abc import Mapping
from typing import BinaryIO

from promot_jax.training import events


class TensorBoard:
  """A sink that writes scalars to `directory/<stage>/<kind>/`, one run each in TensorBoard."""

  def __init__(self, directory: str | os.PathLike) -> None:
    self._directory = pathlib.Path(directory)
    self._streams: dict[tuple[str, str], BinaryIO] = {}
    self._resumed: dict[str, int] = {}

  def scalars(self, event: events.Scalars) -> None:
    stream = self._stream(event.stage, event.kind)
    stream.write(record(scalar_event(event.step, event.values)))
    # So that TensorBoard shows a step while the next ones run.
    stream.flush()

  def line(self, text: str) -> None:
    pass

  def progress(self, event: events.Progress) -> None:
    pass

  def rewind(self, stage: str, step: int) -> None:
    self._resumed[stage] = step

  def close(self) -> None:
    for stream in self._streams.values():
      stream.close()
    self._streams.clear()

  def _stream(self, stage: str, kind: str) -> BinaryIO:
    if (stage, kind) not in self._streams:
      # Each folder is a run to TensorBoard, so curves of training and validation share one chart.
      folder = self._directory / stage / kind
      folder.mkdir(parents=True, exist_ok=True)
      now = time.time()
      # TensorBoard looks for 'tfevents' in names; the rest keeps processes apart.
      name = f"events.out.tfevents.{now:.6f}.{socket.gethostname()}.{os.getpid()}"
      stream = (folder / name).open("ab")
      stream.write(record(_double(1, now) + _text(3, "brain.Event:2")))
      if stage in self._resumed:  # TensorBoard drops what older files have from this step on
        session = _varint(1, 1)  # SessionLog.status = START
        first = self._resumed[stage] + 1
        stream.write(record(_double(1, now) + _varint(2, first) + _bytes(7, session)))
      self._streams[stage, kind] = stream
    return self._streams[stage, kind]


def scalar_event(step: int, values: Mapping[str, float]) -> bytes:
  """An Event with one Summary of scalars."""
  summary = b"".join(
    _bytes(1, _text(1, name) + struct.pack("<Bf", 2 << 3 | 5, value))
    for name, value in values.items()
  )
  return _double(1, time.time()) + _varint(2, step) + _bytes(5, summary)


def record(data: bytes) -> bytes:
  """A TFRecord: length, its checksum, data, its checksum."""
  length = struct.pack("<Q", len(data))
  return length + _masked_crc(length) + data + _masked_crc(data)


def crc32c(data: bytes) -> int:
  """CRC-32 with Castagnoli's polynomial (RFC 3720)."""
  value = 0xFFFFFFFF
  for byte in data:
    value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
  return value ^ 0xFFFFFFFF


def _masked_crc(data: bytes) -> bytes:
  value = crc32c(data)
  # TFRecord's mask: a CRC of data that hold their own CRCs would be weak.
  return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _crc_table() -> list[int]:
  # The reflected polynomial, a byte at a time: the standard library has CRC-32, not Castagnoli's.
  table = []
  for byte in range(256):
    value = byte
    for _ in range(8):
      value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    table.append(value)
  return table


_TABLE = _crc_table()


def _number(value: int) -> bytes:
  """Base-128 varint."""
  encoded = bytearray()
  while value > 0x7F:
    encoded.append(value & 0x7F | 0x80)
    value >>= 7
  return bytes([*encoded, value])


def _varint(field: int, value: int) -> bytes:
  return _number(field << 3) + _number(value)


def _double(field: int, value: float) -> bytes:
  return _number(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
  return _number(field << 3 | 2) + _number(len(value)) + value


def _text(field: int, value: str) -> bytes:
  return _bytes(field, value.encode())
