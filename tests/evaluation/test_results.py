"""Result files: round trips, atomicity, safe names, damage."""

import json
import os

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.evaluation import results
from promot_jax.evaluation.results import Prediction, ResultStore, RunRecord, TaskResult

RESULT = TaskResult(
  task="cb",
  shots=4,
  prompt="detached",
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


def test_prompt_states_and_bank_rows_do_not_overwrite_each_other(tmp_path):
  store = ResultStore(tmp_path)
  for prompt, row in (("none", 0), ("detached", 0), ("attached", 0), ("attached", 1)):
    store.write("best", TaskResult(**{**vars(RESULT), "prompt": prompt, "prompt_id": row}))
  assert len(store.results("best")) == 4


def test_a_damaged_result_is_evaluated_again_but_not_reported(tmp_path):
  store = ResultStore(tmp_path)
  store.write("best", RESULT)
  (path,) = (tmp_path / "best").glob("*.json")
  path.write_text(path.read_text()[:40])
  assert store.find("best", RESULT) is None
  with pytest.raises(errors.DataError, match="delete it and evaluate again"):
    store.results("best")


def test_unknown_fields_of_a_later_version_are_ignored(tmp_path):
  store = ResultStore(tmp_path)
  store.write_run(RunRecord(method="promot", trained_on="rte", seed=3))
  path = tmp_path / "run.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), "new_field": 1}))
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


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x\n"])
def test_names_cannot_leave_the_folder(tmp_path, name):
  with pytest.raises(errors.ConfigError, match="cannot name a result"):
    ResultStore(tmp_path).write(name, RESULT)
  with pytest.raises(errors.ConfigError, match="cannot name a result"):
    ResultStore(tmp_path).write("best", TaskResult(**{**vars(RESULT), "task": f"../{name}"}))


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
  path = tmp_path / "run.json"
  results.write_json(path, {"old": 1})

  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "replace", full)
  with pytest.raises(errors.CannotWrite, match="No space left on device"):
    results.write_json(path, {"new": 2})
  assert json.loads(path.read_text()) == {"old": 1}
  assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_the_journal_skips_a_line_cut_by_a_crash(tmp_path):
  journal = ResultStore(tmp_path).journal("best")
  journal.append([{"fingerprint": "a", "index": 0}])
  with journal.path.open("a") as file:
    file.write('{"fingerprint": "a", "ind')
  journal.append([{"fingerprint": "a", "index": 1}])
  assert [entry["index"] for entry in journal.read()] == [0, 1]
  journal.remove()
  assert list(journal.read()) == []


def test_equal_values_have_equal_fingerprints():
  assert results.fingerprint({"a": 1, "b": [2]}) == results.fingerprint({"b": [2], "a": 1})
  assert results.fingerprint({"a": 1}) != results.fingerprint({"a": 2})
