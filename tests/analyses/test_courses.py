"""Which steps of which runs an analysis is about, and what it refuses."""

import dataclasses
import pathlib

import pytest

from promot_jax.analyses import courses
from promot_jax.errors import ConfigError, DataError
from promot_jax.methods.prompt import SoftPrompt
from tiny_experiments import MODEL, PROMPT, experiment, opened


def kept(folder, *steps, stage="model", **changes):
  """A run with listed steps that nobody could restore."""
  for step in steps:
    place = folder / "stages" / stage / f"checkpoint_{step}"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text("{}")
  return opened(experiment(**{"model_dir": str(folder), "stages": [MODEL], **changes}))


def test_a_course_begins_with_what_its_stage_began_with(tmp_path):
  (course,), notes = courses.of([kept(tmp_path, 2, 4)])
  assert [(each.step, each.checkpoint.name) for each in course.moments] == [
    (0, "pretrained"),
    (2, "model-2"),
    (4, "model-4"),
  ]
  assert notes == []
  (course,), _ = courses.of([kept(tmp_path / "b", 2, 4)], steps=[4])
  assert [each.step for each in course.moments] == [4]


def test_a_stage_is_chosen_by_name(tmp_path):
  changes = {"stages": [PROMPT, MODEL], "method": SoftPrompt(length=3)}
  run = kept(tmp_path, 2, 4, stage="prompt", **changes)
  (course,), _ = courses.of([run], stage="prompt")
  assert [each.checkpoint.name for each in course.moments] == ["pretrained", "prompt-2", "prompt-4"]
  with pytest.raises(ConfigError, match="no stage 'promt'; it has prompt, model"):
    courses.of([run], stage="promt")


def test_what_is_no_course_is_told_or_refused(tmp_path):
  with pytest.raises(ConfigError, match="no run is named"):
    courses.of([])
  with pytest.raises(ConfigError, match=r"notes\.txt is no model directory"):
    courses.of([pathlib.Path("notes.txt")])
  with pytest.raises(DataError, match="trains nothing"):
    courses.of([kept(tmp_path, stages=[])])
  with pytest.raises(DataError, match="stages/model has no checkpoints"):
    courses.of([kept(tmp_path)])
  with pytest.raises(DataError, match=r"only 1 checkpoint \(step 4\), and this needs 2"):
    courses.of([kept(tmp_path / "one", 4)], least=2)
  whole = kept(tmp_path / "two", 2, 4)
  with pytest.raises(ConfigError, match="no step 3; it has 0 and 2, 4"):
    courses.of([whole], steps=[0, 3])
  # Beside a run that has a course, one without is told.
  (course,), (note,) = courses.of([kept(tmp_path, stages=[]), whole], least=2)
  assert course.directory is whole and "trains nothing" in note


def test_runs_of_one_name_are_told_apart_by_seed_or_folder(tmp_path):
  runs = [kept(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
  assert courses.names(runs) == ["tuned seed 0", "tuned seed 1"]
  same = [kept(tmp_path / name) for name in "ab"]
  assert courses.names(same) == [f"tuned ({tmp_path / name})" for name in "ab"]


def test_runs_of_different_tasks_have_no_axis_in_common(tmp_path):
  found, _ = courses.of([kept(tmp_path / "a", 2)])
  other = dataclasses.replace(found[0].directory.experiment, task="snli")
  others, _ = courses.of([found[0].directory, opened(other)])
  with pytest.raises(ConfigError, match=r"tuned on rte and .* on snli"):
    courses.one_tuned_task(others)
