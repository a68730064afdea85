"""Names, splits and versions of the tasks."""

import subprocess
import sys

import pytest

import tasks
from promot_jax import errors


def test_names_are_completed_with_source_and_vocabulary():
  assert tasks.resolve("rte") == "rte.tfds.t5"
  assert tasks.resolve("xsum_4shot", vocabulary="mt5") == "xsum_4shot.tfds.mt5"
  assert tasks.resolve("cb_1shot", source="micro") == "cb_1shot.micro"
  assert tasks.resolve("rte", source="micro", target="sentinel") == "rte.micro.sentinel"
  assert tasks.resolve("rte.tfds.mt5") == "rte.tfds.mt5"
  assert tasks.resolve("rte_and_wmt14_en_fr_1shot") == "rte_and_wmt14_en_fr_1shot.tfds.t5"


@pytest.mark.parametrize(
  ("name", "hint"),
  [
    ("rtee", r"'rtee' is not known; did you mean rte\b"),
    ("xsum_2shot", r"did you mean .*xsum_1shot"),
    ("zzz", r"there are: boolq, cb, copa, dart, e2e"),
    ("rte.micr", r"did you mean rte.micro"),
  ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, hint):
  with pytest.raises(errors.ConfigError, match=hint):
    tasks.resolve(name)


def test_wrong_options_are_refused():
  for options in ({"source": "tdfs"}, {"vocabulary": "t6"}, {"target": "wrapped"}):
    with pytest.raises(errors.ConfigError, match=next(iter(options.values()))):
      tasks.resolve("rte", **options)
  with pytest.raises(errors.ConfigError, match=r"'strikt' .*strict"):
    tasks.splits("rte", selection="strikt")


def test_the_paper_selects_and_reports_on_the_validation_split_and_strict_does_not():
  paper, strict = tasks.splits("rte"), tasks.splits("rte", selection="strict")
  assert (paper.train, paper.select, paper.report) == ("train", "validation", "validation")
  assert (strict.train, strict.select, strict.report) == (
    "train_strict",
    "selection",
    "validation",
  )


@pytest.mark.parametrize("selection", ["paper", "strict"])
def test_tasks_with_public_test_labels_select_on_validation(selection):
  found = tasks.splits("wmt14_en_fr", selection=selection)
  assert (found.train, found.select, found.report) == ("train", "validation", "test")


def test_web_questions_has_no_validation_split_to_select_on():
  found = tasks.splits("web_questions_1shot")
  assert (found.train, found.select, found.report) == ("train_strict", "selection", "test")


def test_the_micro_world_has_labelled_test_splits():
  found = tasks.splits("rte", selection="strict", source="micro")
  assert (found.train, found.select, found.report) == ("train", "validation", "test")


def test_a_mixture_has_members_with_its_shots_and_source():
  assert tasks.members("rte_and_wmt14_en_fr") == ["rte", "wmt14_en_fr"]
  assert tasks.members("rte_and_wmt14_en_fr_1shot.micro") == [
    "rte_1shot.micro",
    "wmt14_en_fr_1shot.micro",
  ]
  assert tasks.members("rte_1shot") == ["rte_1shot"]


def published(name):
  return tasks.find(name).source("tfds").origin.name


def test_versions_are_those_of_the_paper():
  assert published("rte_4shot.micro") == "super_glue/rte:1.0.2"
  assert published("trivia_qa") == "trivia_qa/rc.nocontext:1.1.0"
  assert published("wmt14_en_fr") == "wmt14_translate/fr-en:0.0.3"
  metrics = {
    **dict.fromkeys(["rte", "cb", "wic", "snli", "openbookqa"], "accuracy"),
    **dict.fromkeys(["trivia_qa", "web_questions"], "exact_match"),
    **dict.fromkeys(["wmt14_en_fr", "wmt16_en_de", "wmt16_en_ro"], "bleu"),
    **dict.fromkeys(["xsum", "wiki_lingua"], "rouge2"),
  }
  assert {name: tasks.find(name).metric for name in metrics} == metrics


def test_names_are_known_without_seqio_and_registering_reads_no_file():
  code = (
    "import sys, tasks; tasks.resolve('rte_1shot'); assert 'seqio' not in sys.modules;"
    "import builtins, seqio; real = builtins.open; read = [];"
    "builtins.open = lambda f, *a, **k: (read.append(str(f)), real(f, *a, **k))[1];"
    "tasks.register(); builtins.open = real;"
    "print([f for f in read if not f.endswith(('.py', '.pyc'))],"
    " len(seqio.TaskRegistry.names()), len(seqio.MixtureRegistry.names()))"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  sources = [tasks.find(name).sources for name in tasks.task_names()]
  vocabularies = sum(2 * ("tfds" in found) + ("micro" in found) for found in sources)
  versions = vocabularies * 3 * 2  # demonstrations, raw and sentinel targets
  assert done.stdout.strip().splitlines()[-1] == f"[] {versions} 18"
