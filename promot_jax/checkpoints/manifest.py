"""Checksums of a checkpoint, because the array format underneath has none.

One flipped bit in an array file is loaded silently by Orbax.  The manifest lists SHA-256 digests of
every file, per block so that one large file is hashed by several threads, and a digest of itself.
It is written last: a directory without a manifest is not a checkpoint.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
from typing import Any

FILE = "manifest.json"
BLOCK = 64 * 2**20  # bytes hashed at once; SHA-256 runs near 1 GB/s per thread
_THREADS = min(8, os.cpu_count() or 1)


def write(directory: pathlib.Path) -> None:
  """Hashes all files below `directory`, writes the manifest, and forces everything to the disk."""
  # Not itself: an earlier one may be there.
  names = sorted(_files(directory) - {FILE})
  sizes = {name: (directory / name).stat().st_size for name in names}
  # Flushed while each file is open for its digest.
  digests = _digests(directory, sizes, flush=True)
  files = {name: {"size": sizes[name], "sha256": digests[name]} for name in names}
  body = {"block": BLOCK, "files": files}
  path = directory / FILE
  with path.open("w") as stream:
    json.dump({**body, "sha256": _self_digest(body)}, stream, indent=1, sort_keys=True)
    stream.flush()
    os.fsync(stream.fileno())
  # Files are on the disk by now, and their names when the folders are.
  for folder in {(directory / name).parent for name in names} | {directory}:
    flush_directory(folder)


def problems(directory: pathlib.Path) -> list[str]:
  """What differs from the manifest, one phrase a file; empty means every byte is as written.

  Files that the manifest does not list are no damage: scores are added later.
  """
  path = directory / FILE
  try:
    content = json.loads(path.read_text())
    # Only what is digested, so that fields of later versions do not count.
    body = {"block": content["block"], "files": content["files"]}
    if content["sha256"] != _self_digest(body):
      return [f"{FILE} does not match its own checksum"]
    # Whoever writes a manifest of another shape can give it a right digest, too.
    if not _is_table(**body):
      return [f"{FILE} is no table of files"]
  except FileNotFoundError:
    return [f"{FILE} is missing"]
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    return [f"{FILE} cannot be read ({type(error).__name__})"]
  found = []
  expected = body["files"]
  present = _files(directory)
  found += [f"{name} is missing" for name in sorted(set(expected) - present)]
  same_size = {}
  for name in sorted(set(expected) & present):
    size = (directory / name).stat().st_size
    # Sizes before digests: a file that was cut off needs no hashing.
    if size != expected[name]["size"]:
      found.append(f"{name} has {size} bytes instead of {expected[name]['size']}")
    else:
      same_size[name] = size
  try:
    digests = _digests(directory, same_size, block=body["block"])
  except OSError as error:
    return [*found, f"{error.filename} cannot be read ({error.strerror})"]
  for name, blocks in digests.items():
    if blocks != expected[name]["sha256"]:
      found.append(f"{name} has another SHA-256 than when it was written")
  return found


def flush_directory(directory: pathlib.Path) -> None:
  """Forces names (creations and renames) in a directory to the disk."""
  descriptor = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _is_table(block: Any, files: Any) -> bool:
  """Whether there is a size and a digest of each block for every file: others may have written it."""
  if type(block) is not int or block < 1 or not isinstance(files, dict):
    return False
  for entry in files.values():
    size, digests = entry["size"], entry["sha256"]
    if type(size) is not int or not isinstance(digests, list):
      return False
    if len(digests) != -(-max(size, 1) // block):
      return False
  return bool(files)


def _files(directory: pathlib.Path) -> set[str]:
  return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def _digests(
  directory: pathlib.Path, sizes: dict[str, int], *, block: int = BLOCK, flush: bool = False
) -> dict[str, list[str]]:
  """{file: [digest of each block]}, computed in threads (hashlib releases the GIL)."""
  # An empty file has one block, or it would have no digest.
  jobs = [(name, start) for name, size in sizes.items() for start in range(0, max(size, 1), block)]

  def digest(job: tuple[str, int]) -> str:
    name, start = job
    with (directory / name).open("rb") as stream:
      stream.seek(start)
      hashed = hashlib.sha256(stream.read(block)).hexdigest()
      if flush and start == 0:
        os.fsync(stream.fileno())
    return hashed

  result: dict[str, list[str]] = {name: [] for name in sizes}
  # Threads: hashing releases Python's lock, and `map` keeps the order of blocks.
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    for (name, _), hashed in zip(jobs, pool.map(digest, jobs)):
      result[name].append(hashed)
  return result


def _self_digest(body: dict) -> str:
  # Sorted keys, since JSON gives objects no order.
  return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
