"""The templates that come with the built-in world."""

import pathlib

import pytest

import tasks
from promot_jax.data import promptsource
from promot_jax.data.templated import TemplatedData
from promot_jax.errors import ConfigError
from promot_jax.micro import vocabulary, wordings, world

FILES = sorted(pathlib.Path(wordings.folder()).rglob("templates.yaml"))
NAMES = {"trivia_qa/unfiltered": "trivia_qa"}


def test_there_are_templates_for_the_six_data_sets():
  assert len(FILES) == 6


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_the_models_know_every_word_of_a_template_and_the_answer_is_the_tasks(file):
  folder = file.parent.relative_to(wordings.folder()).as_posix()
  task = tasks.find(NAMES.get(folder, file.parent.name))
  records = world.records(world.twin_of(task), "validation")[:20]
  for template in promptsource.read(str(file)):
    for record in records:
      made, own = template.render(record), task.render(record)
      assert made.target == own.target
      assert vocabulary.UNKNOWN not in vocabulary.vocabulary().encode(made.input), made.input


def test_a_folder_without_the_files_is_told_where_they_come_from(tmp_path):
  data = TemplatedData(
    name="rte_set", templates_file="rte.yaml", promptsource_folder=str(tmp_path), task="rte"
  )
  with pytest.raises(
    ConfigError, match=r"rte\.yaml was not found.*github\.com/bigscience-workshop"
  ):
    data.prompts  # noqa: B018  (reads the file)
