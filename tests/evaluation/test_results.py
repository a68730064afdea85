"""Result files: round trips, atomicity, safe names, damage."""

import dataclasses
import json
import os
import random
import shutil

import numpy as np
import pytest

from promot_jax import errors, guarded_json
from promot_jax.evaluation import whole_files
from promot_jax.evaluation.records import Prediction, RunRecord, TaskResult
from promot_jax.evaluation.results import ResultStore

RESULT = TaskResult(
  task="cb",
  shots=4,
  method="detached",
  metric="accuracy",
  scores={"accuracy": 46.43},
  count=56,
  split="validation",
  standard_errors={"accuracy": 6.66},
  settings={"decoding": "Greedy()"},
  fingerprint="f" * 64,
)
PREDICTION = Prediction(
  task="cb",
  shots=4,
  index=0,
  input='é "quoted"\nline',
  targets=["True", "Yes"],
  prediction="True",
  raw="<extra_id_0> True",
  score=100.0,
  log_probability=-0.5,
)


def test_results_and_predictions_come_back_as_written(tmp_path):
  store = ResultStore(tmp_path)
  store.write("tune-000300", RESULT, [PREDICTION])
  (found,) = store.results("tune-000300")
  assert found.checkpoint == "tune-000300"
  assert (found.scores, found.standard_errors, found.count) == (
    RESULT.scores,
    RESULT.standard_errors,
    56,
  )
  assert list(store.predictions("tune-000300", found)) == [PREDICTION]
  path = tmp_path / "tune-000300" / "cb.validation.4shot.detached.json"
  assert json.loads(path.read_text())["format"] == 1
  assert path.with_suffix(".jsonl").read_text().count("\n") == 1


def test_a_result_is_found_by_its_fingerprint_only(tmp_path):
  store = ResultStore(tmp_path)
  store.write("best", RESULT)
  assert store.find("best", RESULT).scores == RESULT.scores
  other = TaskResult(**{**vars(RESULT), "fingerprint": "0" * 64})
  assert store.find("best", other) is None
  assert store.find("last", RESULT) is None


def test_another_way_of_measuring_lies_beside_and_replaces_nothing(tmp_path):
  store = ResultStore(tmp_path)

  def measured(decoding, score, name, **changes):
    return dataclasses.replace(
      RESULT,
      settings={"decoding": decoding, "max_target_length": 8, "options": {"a": [score]}},
      scores={"accuracy": score},
      fingerprint=name * 64,
      **changes,
    )

  plan, other = measured("Beam()", 50.0, "a"), measured("Greedy()", 40.0, "b")
  third = measured("Greedy()", 30.0, "c", limit=4)
  for result in (plan, other, third):
    store.write("best", result, [dataclasses.replace(PREDICTION, raw=str(result.score))])
  for result in (plan, other, third):
    found = store.find("best", result)
    assert found is not None and found.score == result.score
    (prediction,) = store.predictions("best", found)
    assert prediction.raw == str(result.score)
  store.write("best", measured("Greedy()", 45.0, "d"))  # the same way, of other weights or data
  store.write("best", measured("Beam()", 55.0, "e"))
  found = {(r.settings["decoding"], r.limit, r.score) for r in store.results("best")}
  assert found == {("Beam()", None, 55.0), ("Greedy()", None, 45.0), ("Greedy()", 4, 30.0)}


def test_states_of_the_method_and_bank_rows_do_not_overwrite_each_other(tmp_path):
  store = ResultStore(tmp_path)
  for state, row in (("none", 0), ("detached", 0), ("attached", 0), ("attached", 1)):
    store.write("best", TaskResult(**{**vars(RESULT), "method": state, "bank_row": row}))
  assert len(store.results("best")) == 4


def test_a_result_of_an_earlier_version_is_found_by_its_former_names(tmp_path):
  store = ResultStore(tmp_path)
  wanted = dataclasses.replace(RESULT, method="attached", bank_row=2)
  store.write("best", wanted, [PREDICTION])
  (path,) = (tmp_path / "best").glob("*.json")
  content = json.loads(path.read_text())
  content["prompt"], content["prompt_id"] = content.pop("method"), content.pop("bank_row")
  path.write_text(guarded_json.text(content))
  for found in (store.find("best", wanted), *store.results("best")):
    assert (found.method, found.bank_row, found.scores) == ("attached", 2, wanted.scores)
    assert len(list(store.predictions("best", found))) == 1


def damaged(data: bytes, seed: int) -> list[bytes]:
  """What can become of a file: cut, one bit flipped, a digit changed, replaced by something else."""
  random_ = random.Random(seed)
  found = [b"", b"[]", b"null", b'"x"', b"{}", b"7", b"\xff\xfe\x00\x80"]
  found += [data[:length] for length in random_.sample(range(len(data) - 1), 12)]
  for _ in range(30):
    other = bytearray(data)
    other[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    found.append(bytes(other))
  digits = [place for place, byte in enumerate(data) if chr(byte).isdigit()]
  for place in random_.sample(digits, min(10, len(digits))):
    digit = str((int(chr(data[place])) + 1) % 10).encode()
    found.append(data[:place] + digit + data[place + 1 :])
  return found


@pytest.mark.parametrize("name", ["json", "jsonl"])
def test_a_damaged_result_is_reported_kept_and_evaluated_again(tmp_path, name):
  lines: list[str] = []
  store = ResultStore(tmp_path, report=lines.append)
  store.write("best", RESULT, [PREDICTION])
  (path,) = (tmp_path / "best").glob(f"*.{name}")
  sound, files = path.read_bytes(), set((tmp_path / "best").iterdir())
  for content in damaged(sound, 7):
    path.write_bytes(content)
    lines.clear()
    store = ResultStore(tmp_path, report=lines.append)
    found = store.find("best", RESULT)
    if found is not None:  # a blank between two fields
      assert (found.scores, found.count) == (RESULT.scores, RESULT.count)
      assert name == "json"
      continue
    store.find("best", RESULT)
    assert len(lines) == 1 and str(path) in lines[0] and "runs this evaluation again" in lines[0]
    store.write("best", RESULT, [PREDICTION])
    assert "is kept as" in lines[1]
    assert path.read_bytes() == sound
    (aside,) = set((tmp_path / "best").iterdir()) - files
    assert aside.read_bytes() == content
    aside.unlink()


def test_deleted_predictions_are_no_damage(tmp_path):
  store = ResultStore(tmp_path)
  store.write("best", RESULT, [PREDICTION])
  (path,) = (tmp_path / "best").glob("*.jsonl")
  path.unlink()
  found = store.find("best", RESULT)
  assert found.scores == RESULT.scores
  assert list(store.predictions("best", found)) == []


def test_results_of_an_earlier_version_are_read_and_cut_predictions_noticed(tmp_path):
  lines: list[str] = []
  store = ResultStore(tmp_path, report=lines.append)
  store.write("best", dataclasses.replace(RESULT, count=2), [PREDICTION, PREDICTION])
  (path,), (file,) = (sorted((tmp_path / "best").glob(f"*.{e}")) for e in ("json", "jsonl"))
  old = {
    key: value
    for key, value in json.loads(path.read_text()).items()
    if key not in ("sha256", "guarded", "predictions_sha256")
  }
  path.write_text(json.dumps(old))
  assert store.find("best", RESULT).count == 2
  whole = file.read_bytes()
  for cut in (len(whole) // 2, len(whole) // 4 * 3, len(whole) // 5):
    file.write_bytes(whole[:cut])
    assert store.find("best", RESULT) is None
  file.write_bytes(whole)
  assert len(lines) == 1
  for field, value in (("scores", []), ("count", "2"), ("task", None), ("shots", {})):
    path.write_text(json.dumps({**old, field: value}))
    assert store.find("best", RESULT) is None
    assert store.results("best") == []


def test_a_changed_line_of_a_journal_is_left_out(tmp_path):
  journal = ResultStore(tmp_path).journal("best")
  entries = [
    {"fingerprint": "a", "index": i, "tokens": [10, 2 + i], "score": -i / 3} for i in (0, 1)
  ]
  journal.append(entries)
  assert list(journal.read()) == entries
  lines = journal.path.read_bytes().splitlines(keepends=True)
  for content in damaged(lines[0].rstrip(b"\n"), 3):
    if b"\n" in content:
      continue
    journal.path.write_bytes(content + b"\n" + lines[1])
    found = list(journal.read())
    assert found[-1] == entries[1] and found[:-1] in ([], [entries[0]])


@pytest.mark.parametrize("line", [b'{"a": "\\ud800"}', b"[" * 100_000, b'{"a": ' * 100_000])
def test_a_line_of_a_journal_of_which_there_is_no_digest_is_left_out(tmp_path, line):
  journal = ResultStore(tmp_path).journal("best")
  entry = {"fingerprint": "a", "index": 1}
  journal.append([entry])
  journal.path.write_bytes(line + b"\n" + journal.path.read_bytes())
  assert list(journal.read()) == [entry]


def test_unknown_fields_of_a_later_version_are_ignored(tmp_path):
  store = ResultStore(tmp_path)
  store.write_run(RunRecord(method="promot", trained_on="rte", seed=3))
  path = tmp_path / "run.json"
  later = {**json.loads(path.read_text()), "new_field": 1}
  path.write_text(guarded_json.text(later))
  assert store.read_run() == RunRecord(method="promot", trained_on="rte", seed=3)


def test_numpy_values_and_nan_become_plain_json(tmp_path):
  record = RunRecord(
    method="promot",
    settings={"steps": np.int64(300), "rates": np.asarray([0.5, 1.0]), "bad": float("nan")},
  )
  ResultStore(tmp_path).write_run(record)
  settings = ResultStore(tmp_path).read_run().settings
  assert settings == {"steps": 300, "rates": [0.5, 1.0], "bad": None}


def test_checkpoints_are_in_natural_order(tmp_path):
  store = ResultStore(tmp_path)
  for name in ("tune-1000", "tune-200", "pretrained", "tune-30"):
    store.write(name, RESULT)
  assert store.checkpoints() == ["pretrained", "tune-30", "tune-200", "tune-1000"]


def test_a_copied_folder_is_no_checkpoint(tmp_path):
  store = ResultStore(tmp_path)
  store.write("tune-30", RESULT)
  shutil.copytree(tmp_path / "tune-30", tmp_path / "tune-30 (copy)")
  assert store.checkpoints() == ["tune-30"]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x\n"])
def test_names_cannot_leave_the_folder(tmp_path, name):
  with pytest.raises(errors.ConfigError, match="cannot name a result"):
    ResultStore(tmp_path).write(name, RESULT)
  with pytest.raises(errors.ConfigError, match="cannot name a result"):
    ResultStore(tmp_path).write("best", TaskResult(**{**vars(RESULT), "task": f"../{name}"}))


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
  path = tmp_path / "run.json"
  whole_files.write_json(path, {"old": 1})

  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "replace", full)
  with pytest.raises(errors.CannotWrite, match="No space left on device"):
    whole_files.write_json(path, {"new": 2})
  assert json.loads(path.read_text()) == {"old": 1}
  assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_the_journal_skips_a_line_cut_by_a_crash(tmp_path):
  journal = ResultStore(tmp_path).journal("best")
  journal.append([{"fingerprint": "a", "index": 0}])
  with journal.path.open("a") as file:
    file.write('{"fingerprint": "a", "ind')
  journal.append([{"fingerprint": "a", "index": 1}])
  assert [entry["index"] for entry in journal.read()] == [0, 1]
  journal.append([{"fingerprint": "b", "index": 0}])  # of a stopped one, measured in another way
  journal.remove({"a"})
  assert [entry["fingerprint"] for entry in journal.read()] == ["b"]
  journal.remove({"b"})
  assert list(journal.read()) == [] and not journal.path.exists()


def test_equal_values_have_equal_fingerprints():
  assert whole_files.fingerprint({"a": 1, "b": [2]}) == whole_files.fingerprint({"b": [2], "a": 1})
  assert whole_files.fingerprint({"a": 1}) != whole_files.fingerprint({"a": 2})
