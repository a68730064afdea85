"""What a teacher says, on the disk: whole shards only, checked, of one teacher and one split."""

import dataclasses
import json

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.checkpoints import disk
from promot_jax.identity import Identity, part
from promot_jax.models.readout import LOWEST
from promot_jax.training import teacher_cache
from promot_jax.training.teacher_cache import TeacherCache
from promot_jax.training.top_tokens import LOG_P, TOKENS

LENGTHS = np.array([2, 3, 1, 4, 2])


def made(folder, **changes):
  identity = Identity(parts={"teacher": part("light", about="runs/light"), "data": part("rte")})
  values = {"folder": folder, "made_from": identity, "lengths": LENGTHS, "count": 2}
  return TeacherCache(**{**values, "examples_per_shard": 2, **changes})


def said(number, *, rest=0.25):
  """Tokens and log p that tell the example and the place of the token."""
  places = np.arange(LENGTHS[number])
  tokens = np.stack([100 * number + places, 100 * number + places + 50], axis=-1).astype(np.int32)
  p = [(1 - rest) * 0.75, (1 - rest) * 0.25, rest]
  return tokens, np.log(np.tile(p, (len(places), 1))).astype(np.float32)


def filled(cache, shards):
  for shard in shards:
    each = [said(number) for number in cache.numbers(shard)]
    cache.write(shard, [tokens for tokens, _ in each], [log_p for _, log_p in each])
  return cache


def test_a_cache_goes_on_with_the_shards_that_are_missing(tmp_path):
  cache = made(tmp_path / "kept")
  assert cache.begin() == [0, 1, 2]
  filled(cache, [0, 2])
  (cache.folder / "shard_00001.tmp-77").mkdir()  # of a process that was killed
  assert made(tmp_path / "kept").begin() == [1]
  assert not list(cache.folder.glob("*.tmp-*"))
  filled(cache, [1])
  assert made(tmp_path / "kept").begin() == []
  rest = cache.check()
  assert (rest.tokens, rest.largest) == (12, pytest.approx(0.25))
  assert rest.total == pytest.approx(3.0)
  assert "all others have 0.25 of a target token's mass on average, 0.25 at most" in str(rest)
  assert "off by no more than 0.5 and 0.5" in str(rest)


def test_rows_find_what_is_kept_by_the_numbers_of_their_examples(tmp_path):
  one = filled(made(tmp_path / "one"), range(3))
  other = filled(made(tmp_path / "other", lengths=LENGTHS[:3]), range(2))
  batch = {"decoder_target_tokens": np.zeros((4, 6), np.int32)}
  numbers = np.array([3, 6, -1, 0])  # of the second task the example 1
  found = teacher_cache.beside(batch, [one, other], numbers)
  assert found["decoder_target_tokens"] is batch["decoder_target_tokens"]
  for row, number in enumerate([3, 1, None, 0]):
    length = 0
    if number is not None:
      tokens, log_p = said(number)
      length = len(tokens)
      np.testing.assert_array_equal(found[TOKENS][row, :length], tokens)
      np.testing.assert_array_equal(found[LOG_P][row, :length], log_p)
    assert (found[LOG_P][row, length:] == np.float32(LOWEST)).all()
  assert found[TOKENS].shape == (4, 6, 2) and found[LOG_P].shape == (4, 6, 3)


@pytest.mark.parametrize("file", ["log_p.npy", "rest.json", "manifest.json"])
def test_a_damaged_shard_is_named_and_the_others_stay(tmp_path, file):
  cache = filled(made(tmp_path), range(3))
  cache.begin()
  path = tmp_path / "shard_00001" / file
  path.write_bytes(path.read_bytes()[:-1] + b"x")
  with pytest.raises(
    errors.DamagedCheckpoint, match=r"shard_00001 is damaged: .*Delete it and"
  ) as e:
    cache.check()
  assert e.value.exit_code == 74 and "these 2 examples again" in str(e.value)
  for each in path.parent.iterdir():
    each.unlink()
  path.parent.rmdir()
  assert cache.begin() == [1]


def test_what_another_teacher_said_is_refused(tmp_path):
  made(tmp_path).begin()
  other = Identity(parts={"teacher": part("full", about="runs/full"), "data": part("rte")})
  with pytest.raises(errors.ConfigError, match=r"the teacher changed: runs/full .* was runs/light"):
    made(tmp_path, made_from=other).begin()
  with pytest.raises(errors.ConfigError, match="2 examples in a shard"):
    made(tmp_path, examples_per_shard=4).begin()
  record = tmp_path / teacher_cache.RECORD
  record.write_text(json.dumps({**json.loads(record.read_text()), "examples_per_shard": 3}))
  with pytest.raises(errors.DamagedRecord, match=r"not as it was written.*TEACHER_CACHE"):
    made(tmp_path).begin()


def test_a_disk_that_is_too_small_is_refused_before_the_teacher_is_asked(tmp_path, monkeypatch):
  cache = made(tmp_path)
  assert cache.nbytes([0, 1, 2]) == 12 * (2 * 4 + 3 * 4) + 3 * disk.AROUND
  usage = dataclasses.make_dataclass("Usage", ["free"])(cache.nbytes([0, 1, 2]) - 1)
  monkeypatch.setattr(teacher_cache.shutil, "disk_usage", lambda folder: usage)
  with pytest.raises(
    errors.CannotWrite, match=r"needs 393 kB, and .* has 393 kB free.*fewer tokens"
  ):
    cache.begin()
  assert list(tmp_path.iterdir()) == []
  with pytest.raises(errors.CannotWrite, match="Not a directory"):
    (tmp_path / "file").write_text("")
    made(tmp_path / "file" / "kept").begin()
