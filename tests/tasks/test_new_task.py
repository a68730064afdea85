"""One more file is one more task: found, shown, planned and trained on, with nothing else touched."""

import textwrap

import pytest

import tasks
from promot_jax import errors
from promot_jax.cli.main import main
from promot_jax.data.task import DERIVED, Source
from promot_jax.micro import world

FILE = '''
"""Which of two colours a sentence names: a task that exists for this test."""

from promot_jax.data import templates, tfds
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import accuracy
from promot_jax.micro import world


def _draw(dice):
  words = [dice.pick(("dog", "cat", "bird", "horse")) for _ in range(4)]
  return {"text": f"the {' '.join(words)} is here", "label": int(dice.chance(0.5))}


def _template(record: Record) -> templates.Rendered:
  return templates.labelled(f"{record['text']} answer:", ("True", "False")[record["label"]])


TASK = Task(
  name="colours",
  fields=(("text",), ("label",)),
  template=_template,
  labels=("True", "False"),
  first_token=True,
  metric="accuracy",
  metric_fns=(accuracy.accuracy,),
  sources={
    "tfds": Source(origin=tfds.DataSet(task="colours", published="colours:1.0.0")),
    "micro": world.source("colours", _draw, pretrained=False),
  },
)
'''
TASK = "--gin.MIXTURE_OR_TASK_NAME='colours'"


@pytest.fixture
def colours(tmp_path, monkeypatch):
  """The new task's file, in a folder that the package also searches."""
  folder = tmp_path / "more_tasks"
  folder.mkdir()
  (folder / "colours.py").write_text(textwrap.dedent(FILE))
  monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(folder)])
  monkeypatch.setattr(world, "SPLIT_SIZES", {"validation": 8, "test": 8, "train": 32})
  yield
  import sys

  sys.modules.pop("tasks.colours", None)
  tasks.__dict__.pop("colours", None)


def test_it_is_found_by_name_and_shown_with_demonstrations(colours, capsys):
  assert "colours" in tasks.task_names() and "colours_4shot" in tasks.names()
  assert main(["inspect", "data", "colours_1shot", "--source=micro", "--n=2"]) == 0
  shown = capsys.readouterr().out
  assert "colours_1shot.micro, split validation, first 2 examples" in shown
  assert shown.count("is here answer:") == 4


@pytest.mark.parametrize("source", ["micro", "tfds"])
def test_it_can_be_planned_also_in_epochs_of_an_unknown_size(colours, source, tmp_path, capsys):
  recipe = "promot_rte_micro.gin" if source == "micro" else "promot_rte.gin"
  flags = [f"--gin_file={recipe}", TASK, f"--model_dir={tmp_path / 'run'}"]
  flags += [
    "--gin.TRAIN_STEPS=None",
    "--gin.TRAIN_EPOCHS=2",
    "--gin.INITIAL_CHECKPOINT_PATH='random'",
  ]
  flags += ["--gin.EVAL_PERIOD=None", "--gin.EVAL_EPOCHS=1", "--gin.TRAIN_EXAMPLES=None"]
  done = main(["train", *flags, "--dry_run"])
  captured = capsys.readouterr()
  assert done == 0, captured.err
  assert f"colours.{source}" in captured.out
  counted = "an assumed number" if source == "tfds" else "32 examples, counted again"
  assert counted in captured.out


def test_it_can_be_trained_on(colours, tmp_path, capsys):
  flags = ["--gin_file=prompt_tune_rte_micro.gin", TASK, "--gin.PROMPT_STEPS=2"]
  flags += [
    "--gin.PROMPT_EVAL_PERIOD=2",
    "--gin.BATCH_SIZE=8",
    "--gin.UNSEEN_TASKS=[]",
  ]
  done = main(["train", *flags, f"--model_dir={tmp_path / 'run'}"])
  captured = capsys.readouterr()
  assert done == 0, captured.err
  assert "colours" in captured.out


def test_the_file_and_its_value_have_one_name(tmp_path, monkeypatch):
  (tmp_path / "wrong.py").write_text("TASK = 3\n")
  monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
  with pytest.raises(errors.ConfigError, match="must hold a Task of the name 'wrong' as TASK"):
    tasks.find("wrong")


def test_a_source_that_a_task_does_not_have_is_named_with_those_it_has():
  with pytest.raises(
    errors.ConfigError, match="'rte' has no source 'web'; it has: tfds, files, micro"
  ):
    tasks.find("rte").source("web")


def test_sizes_of_derived_splits_follow_from_train():
  source = Source(origin=world.Twin(name="x", listed=iter), sizes={"train": 2490})
  assert [source.size(split) for split in ("train", *DERIVED, "test")] == [2490, 2241, None, None]
