"""What a teacher says at the target tokens of a split, on the disk: whoever learns from it again asks it no more.

For each target token there are the k most probable tokens and the mass of all others (`top_tokens`), found by
the number of the example in the split:

    FOLDER/teacher.json             what they were made from
    FOLDER/shard_00003/             examples 1536 to 2047, with a manifest of checksums
      tokens.npy, log_p.npy         int32 [N k], float32 [N k+1] of their N target tokens
      rest.json                     the mass of other tokens over these

A shard appears whole or not at all, so a run that was killed goes on with the next one.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from promot_jax import errors, guarded_json
from promot_jax.checkpoints import disk, manifest
from promot_jax.identity import Identity
from promot_jax.models.readout import LOWEST
from promot_jax.training.top_tokens import LOG_P, TOKENS

SHARD = 512  # examples
RECORD = "teacher.json"
_SHAPE = {"made_from": dict, "examples_per_shard": int}
_ADVICE = "Name another folder (TEACHER_CACHE), or delete this one, and the teacher is asked again."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rest:
  """Mass of all tokens but those that were kept, over some target tokens.

  tokens: how many.
  total, largest: of the mass.
  """

  tokens: int = 0
  total: float = 0.0
  largest: float = 0.0

  def __str__(self) -> str:
    mean = self.total / max(1, self.tokens)
    return (
      f"all others have {mean:.2g} of a target token's mass on average, {self.largest:.2g} at most: a gradient"
      f" by the student's logits is off by no more than {2 * mean:.2g} and {2 * self.largest:.2g} (sum of"
      " absolute values)"
    )

  def __add__(self, other: "Rest") -> "Rest":
    return Rest(
      tokens=self.tokens + other.tokens,
      total=self.total + other.total,
      largest=max(self.largest, other.largest),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TeacherCache:
  """The distributions of one teacher at the target tokens of one split.

  folder: where they are kept.
  made_from: the teacher, the examples, and settings such as k.
  lengths: number of target tokens of each example.
  count: k.
  examples_per_shard: how many are lost at most where a run is killed.
  """

  folder: pathlib.Path
  made_from: Identity
  lengths: np.ndarray
  count: int
  examples_per_shard: int = SHARD

  @property
  def shards(self) -> int:
    """How many there are when all are there."""
    return -(-len(self.lengths) // self.examples_per_shard)

  def numbers(self, shard: int) -> range:
    """Of the examples of a shard."""
    first = shard * self.examples_per_shard
    return range(first, min(first + self.examples_per_shard, len(self.lengths)))

  def nbytes(self, shards: Sequence[int]) -> int:
    """Bytes on the disk of some shards."""
    tokens = sum(int(self.lengths[self.numbers(shard)].sum()) for shard in shards)
    return tokens * (8 * self.count + 4) + len(shards) * disk.AROUND

  def begin(self) -> list[int]:
    """The shards that are not there yet; the first time, notes what they are made from.

    Raises:
      ConfigError: what is there was made from something else.
      DamagedRecord: the note is not as it was written.
      CannotWrite: the folder cannot be made, or its disk has too little space.
    """
    record = guarded_json.read(self.folder / RECORD, shape=_SHAPE, advice=_ADVICE)
    if record is not None:
      self._require_same(record.content)
    missing = [shard for shard in range(self.shards) if not self._path(shard).is_dir()]
    if not missing:
      return missing
    try:
      self.folder.mkdir(parents=True, exist_ok=True)
      for leftover in self.folder.glob("shard_*.tmp-*"):
        disk.remove_leftover(leftover)
      free, needed = shutil.disk_usage(self.folder).free, self.nbytes(missing)
      if free < needed:
        raise errors.CannotWrite(
          f"What the teacher says needs {disk.size_text(needed)}, and {self.folder} has"
          f" {disk.size_text(free)} free. Free some space, name another folder (TEACHER_CACHE), or keep fewer"
          " tokens (TEACHER_CACHE_TOKENS)."
        )
      if record is None:
        content = {
          "made_from": self.made_from.to_json(),
          "examples_per_shard": self.examples_per_shard,
        }
        disk.write_record(self.folder / RECORD, content)
    except OSError as error:
      raise errors.CannotWrite(
        f"Nothing can be written to {self.folder}: {error.strerror}. Name another folder (TEACHER_CACHE)."
      ) from None
    return missing

  def write(self, shard: int, tokens: Sequence[np.ndarray], log_p: Sequence[np.ndarray]) -> None:
    """Stores a shard.

    Args:
      tokens, log_p: [T k] and [T k+1] of each of its examples.

    Raises:
      CannotWrite: the disk refused; what was written before is untouched.
    """
    every = np.concatenate(log_p)
    mass = np.exp(every[:, -1].astype(np.float64))
    rest = Rest(tokens=len(mass), total=float(mass.sum()), largest=float(mass.max(initial=0.0)))
    with disk.whole_folder(self._path(shard)) as folder:
      np.save(folder / "tokens.npy", np.concatenate(tokens).astype(np.int32))
      np.save(folder / "log_p.npy", every.astype(np.float32))
      (folder / "rest.json").write_text(json.dumps(dataclasses.asdict(rest)))
      manifest.write(folder)

  def check(self) -> Rest:
    """Reads every byte of all shards; gives the mass of what was not kept.

    Raises:
      DamagedCheckpoint: a shard is not as it was written.
    """
    total = Rest()
    for shard in range(self.shards):
      path = self._path(shard)
      if found := manifest.problems(path):
        raise errors.DamagedCheckpoint(
          f"{path} is damaged: {found[0]}. Delete it and repeat the command: the teacher is asked for these"
          f" {len(self.numbers(shard))} examples again, the other shards stay."
        )
      total += Rest(**json.loads((path / "rest.json").read_text()))
    return total

  def of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens [T k], log p [T k+1]) of the example of this number, read when they are looked at."""
    shard, place = divmod(number, self.examples_per_shard)
    starts, tokens, log_p = self._opened(shard)
    here = slice(starts[place], starts[place + 1])
    return tokens[here], log_p[here]

  # Maps of files, of which the system keeps in memory what it has room for; each is two open files.
  @functools.lru_cache(maxsize=128)  # noqa: B019  (lives as long as its stage)
  def _opened(self, shard: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    path = self._path(shard)
    starts = np.concatenate([[0], np.cumsum(self.lengths[self.numbers(shard)])])
    arrays = (np.load(path / name, mmap_mode="r") for name in ("tokens.npy", "log_p.npy"))
    return starts, *arrays

  def _path(self, shard: int) -> pathlib.Path:
    return self.folder / f"shard_{shard:05}"

  def _require_same(self, content: Mapping[str, Any]) -> None:
    earlier = Identity.from_json(content["made_from"])
    changed = self.made_from.changes(earlier) if earlier else ["it does not say what it is of"]
    if content["examples_per_shard"] != self.examples_per_shard:
      changed.append(f"it has {content['examples_per_shard']} examples in a shard")
    if changed:
      raise errors.ConfigError(
        f"{self.folder} holds what another teacher said, or on other data: {'; '.join(changed)}. {_ADVICE}"
      )


def beside(
  batch: Mapping[str, np.ndarray], caches: Sequence[TeacherCache], numbers: np.ndarray
) -> dict[str, np.ndarray]:
  """The batch with what the teacher says at its target tokens.

  Args:
    caches: of its tasks.
    numbers: [B] of the rows' examples, counted through the tasks in their order; -1: a row that only fills
      the batch.
  """
  rows, length = batch["decoder_target_tokens"].shape
  count = caches[0].count
  tokens = np.zeros((rows, length, count), np.int32)
  log_p = np.full((rows, length, count + 1), LOWEST, np.float32)
  starts = np.cumsum([0, *(len(each.lengths) for each in caches)])
  for row, number in enumerate(numbers):
    if number < 0:
      continue
    task = int(np.searchsorted(starts, number, side="right")) - 1
    own_tokens, own_log_p = caches[task].of(int(number - starts[task]))
    tokens[row, : len(own_tokens)] = own_tokens
    log_p[row, : len(own_log_p)] = own_log_p
  return {**batch, TOKENS: tokens, LOG_P: log_p}
