"""A record is read as it was written, or refused in one sentence; seeded loops over what can happen."""

import json
import random

import pytest

from promot_jax import guarded_json
from promot_jax.errors import DamagedCheckpoint

CONTENT = {"step": 300, "score": 71.25, "why": "the maximum", "history": [{"step": 300}], 7: (1, 2)}
SHAPE = {"step": int, "score": (int, float), "why": str, "history": list}


def written(folder) -> "tuple":
  path = folder / "stage_complete.json"
  path.write_text(guarded_json.text(CONTENT))
  return path, path.read_bytes()


def read(path):
  return guarded_json.read(path, shape=SHAPE, advice="Delete it.")


def test_a_record_comes_back_as_json_holds_it(tmp_path):
  path, _ = written(tmp_path)
  record = read(path)
  assert record.guarded
  assert record.content == {**{k: v for k, v in CONTENT.items() if k != 7}, "7": [1, 2]}
  assert read(tmp_path / "absent.json") is None
  assert [each.name for each in tmp_path.iterdir()] == ["stage_complete.json"]


def test_every_flipped_bit_and_every_cut_is_found_or_changes_nothing(tmp_path):
  path, data = written(tmp_path)
  before = read(path).content
  random_ = random.Random(5)
  changed = [data[:length] for length in range(len(data) - 1)]
  for _ in range(600):
    other = bytearray(data)
    other[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    changed.append(bytes(other))
  refused = 0
  for content in changed:
    path.write_bytes(content)
    try:
      record = read(path)
    except DamagedCheckpoint as error:
      refused += 1
      assert str(error).startswith(str(path)) and str(error).endswith(" Delete it.")
      assert "\n" not in str(error)
    else:  # blanks between two fields
      assert record.guarded and record.content == before
  assert refused > 0.9 * len(changed)


@pytest.mark.parametrize(
  "content",
  [b"", b"[]", b"null", b'"x"', b"{}", b"7", b"true", b"\xff\xfe\x00", b"\x00" * 40, b"[" * 99999],
)
def test_another_shape_is_one_sentence(tmp_path, content):
  path = tmp_path / "score.json"
  path.write_bytes(content)
  with pytest.raises(DamagedCheckpoint, match=r"score\.json (is|has) .*Delete it\.$"):
    read(path)


@pytest.mark.parametrize("field", ["step", "why", "history"])
@pytest.mark.parametrize("value", [None, [], {}, "x", True, 1.5])
def test_a_record_of_an_earlier_version_is_read_if_its_shape_is_right(tmp_path, field, value):
  path = tmp_path / "old.json"
  old = {"step": 1, "score": 2, "why": "w", "history": []}
  path.write_text(json.dumps(old))
  record = read(path)
  assert record.content == old and not record.guarded
  path.write_text(json.dumps({**old, field: value}))
  kinds = SHAPE[field] if isinstance(SHAPE[field], tuple) else (SHAPE[field],)
  if type(value) in kinds:
    assert not read(path).guarded
  else:
    with pytest.raises(DamagedCheckpoint, match=f"field '{field}'"):
      read(path)


def test_a_number_that_is_not_finite_is_never_written():
  with pytest.raises(ValueError):
    guarded_json.text({**CONTENT, "score": float("nan")})


def test_damaged_files_set_aside_never_replace_each_other(tmp_path):
  names = []
  for number in range(3):
    path = tmp_path / "run.json"
    path.write_text(str(number))
    names.append(guarded_json.set_aside(path).name)
  assert names == ["run.json.damaged", "run.json.damaged-2", "run.json.damaged-3"]
