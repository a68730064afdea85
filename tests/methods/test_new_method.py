"""A method that nobody has heard of: one file and one gin file, and nothing else is touched."""

import importlib
import json
import pathlib
import sys

import numpy as np
import pytest

import promot_jax.methods
from promot_jax.checkpoints import method_files
from promot_jax.cli import config_record, gin_config, recipe_values
from promot_jax.cli.main import main
from promot_jax.errors import ConfigError
from promot_jax.methods import discovery

METHOD = '''
"""A vector that is added to what each mlp gives."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from promot_jax.checkpoints.known_settings import Known
from promot_jax.checkpoints.peft import reader, writer
from promot_jax.checkpoints.stored import StoredArray
from promot_jax.methods import base, files, linears

RECIPE_VALUES = ("Shift",)

_TYPES = {
  "SHIFT": Known(
    used=frozenset(),
    informative=frozenset(
      {"peft_type", "task_type", "base_model_name_or_path", "inference_mode", "revision"}
    ),
    only={},
    unknown="delete it",
  )
}


def _read(path, context):
  arrays = reader.open_adapter(path, _TYPES).arrays
  leaves = {name.replace(".", "/"): np.asarray(array) for name, array in arrays.items()}
  return files.Stored(leaves=leaves, settings={"scale": 2.0})


def _write(path, trained, context):
  arrays = {}
  for name, leaf in trained.leaves.items():
    theirs = name.replace("/", ".")
    arrays[theirs] = StoredArray(
      name=theirs, shape=leaf.shape, dtype=leaf.dtype, read=lambda leaf=leaf: leaf
    )
  common = writer.common_config("SHIFT", encoder_decoder=True, base_model=context.base_model)
  return writer.write_adapter(path, common, arrays)


def _write_text(path, trained, context):
  path.write_text("\\n".join(trained.leaves))
  return path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shift(base.Method):
  """Vectors [D] behind every mlp; `scale` multiplies them."""

  parameters: ClassVar[str] = ".*/shift/vector"
  printed: ClassVar[str] = "Shifted layers"
  formats: ClassVar[files.Formats] = {
    files.PEFT: files.Format(types=_TYPES, read=_read, write=_write),
    "names": files.Format(write=_write_text),
  }

  scale: float = 1.0

  def attach(self, model, rngs):
    found = linears.chosen(model, ".*/mlp/wo", field="Shift")
    return linears.attach(model, found, "shift", lambda place: Vector(place.shape[1], self.scale))

  def detach(self, model):
    return linears.detach(model, "shift")


class Vector(linears.Part):
  def __init__(self, width, scale):
    self.vector = nnx.Param(jnp.zeros(width))
    self.scale = scale

  def after(self, x, y, *, key):
    return y + self.scale * self.vector[...].astype(y.dtype)


def helper():
  """Not listed."""
'''
RECIPE = """
from __gin__ import dynamic_registration
from promot_jax.experiments import experiment
from promot_jax.methods import shift
from promot_jax.training import schedules
from promot_jax.training import stages
include 'models/micro.gin'
include 'tasks/rte.gin'
include 'runs/micro.gin'
include 'runs/light_stage.gin'

LIGHT_STEPS = 2
LIGHT_EVAL_PERIOD = 2
BATCH_SIZE = 4
TRAIN_EXAMPLES = 8
VALIDATION_EXAMPLES = 4
experiment.EvaluationPlan:
  unseen = ['cb']
  limit = 2
shift.Shift.scale = 2.0
light_stage/shift/stages.Stage:
  name = 'shift'
  learning_rate = @light_stage/shift/schedules.create_learning_rate_scheduler()
light_stage/shift/schedules.create_learning_rate_scheduler.base_learning_rate = 0.1
shifted/experiment.Experiment:
  name = 'shifted'
  method = @shift.Shift()
  stages = [@light_stage/shift/stages.Stage()]
EXPERIMENT = @shifted/experiment.Experiment()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with the two files and a trained run, while the package is extended by it."""
  folder = tmp_path_factory.mktemp("new")
  (folder / "methods").mkdir()
  (folder / "methods" / "shift.py").write_text(METHOD)
  (folder / "shift.gin").write_text(RECIPE)
  promot_jax.methods.__path__.append(str(folder / "methods"))
  recipe_values.modules.cache_clear()
  importlib.invalidate_caches()
  assert main(["train", f"--gin_file={folder / 'shift.gin'}", *run(folder), "--quiet"]) == 0
  yield folder
  promot_jax.methods.__path__.pop()
  recipe_values.modules.cache_clear()
  sys.modules.pop("promot_jax.methods.shift", None)
  vars(promot_jax.methods).pop("shift", None)


def run(folder: pathlib.Path) -> list[str]:
  return [f"--model_dir={folder / 'run'}"]


def test_it_is_found_and_trains_what_its_pattern_says(folder, capsys):
  assert "Shift" in discovery.kinds()
  experiment = gin_config.build(gin_config.read([str(folder / "shift.gin")], []))
  assert experiment.stages[0].trainable == (".*/shift/vector",)
  assert main(["inspect", "model", str(folder / "shift.gin"), "--quiet"]) == 0
  assert "shift/vector" in capsys.readouterr().out


def test_its_row_stands_in_the_report_under_its_own_name(folder):
  text = (folder / "run" / "report.md").read_text()
  assert "Shifted layers" in text and "Tuned on rte" in text


def test_it_goes_through_a_method_file_and_answers(folder, capsys):
  file = folder / "shift.npz"
  assert main(["convert", str(folder / "run"), str(file), "--to=method"]) == 0
  described = method_files.read(file).method
  assert described == {"class": "promot_jax.methods.shift.Shift", "fields": {"scale": 2.0}}
  questions = folder / "questions.jsonl"
  questions.write_text('{"inputs": "Q: what is the sport of Hugo? A:"}\n')
  answers = []
  for name, flags in (("run", []), ("file", [f"--method={file}"])):
    output = folder / f"{name}.jsonl"
    command = ["infer", *run(folder), f"--input={questions}", f"--output={output}", "--prompt=on"]
    assert main([*command, *flags, "--quiet"]) == 0
    answers.append(json.loads(output.read_text()))
  assert answers[0] == answers[1]


def test_it_goes_through_the_adapter_that_it_declares(folder):
  adapter, again = folder / "adapter", folder / "again.npz"
  peft = ["convert", str(folder / "run"), str(adapter), "--to=peft", "--base_model=base"]
  assert main(peft) == 0
  assert json.loads((adapter / "adapter_config.json").read_text())["peft_type"] == "SHIFT"
  convert = ["convert", str(adapter), str(again), "--to=method"]
  assert main([*convert, "--model=micro"]) == 0
  trained = [method_files.read(path).leaves for path in (folder / "shift.npz", again)]
  assert set(trained[0]) == set(trained[1]) and len(trained[0]) == 4
  for name, leaf in trained[0].items():
    assert np.abs(leaf).max() > 0
    np.testing.assert_array_equal(leaf, trained[1][name])
  use = ["eval", *run(folder), f"--method={adapter}", "--tasks=rte", "--limit=2", "--quiet"]
  assert main([*use, f"--output={folder / 'scores'}"]) == 0


def test_a_format_of_its_own_is_written(folder):
  assert main(["convert", str(folder / "run"), str(folder / "names.txt"), "--to=names"]) == 0
  assert "mlp/wo/shift/vector" in (folder / "names.txt").read_text()


def test_what_cannot_be_done_with_it_says_so(folder, capsys):
  merge = ["convert", str(folder / "run"), str(folder / "merged"), "--to=hf", "--merge"]
  assert main(merge) == 2
  assert "What Shift adds has no place in the weights" in capsys.readouterr().err


def test_gin_files_may_name_what_it_lists_and_nothing_else(folder):
  (folder / "bad.gin").write_text(RECIPE + "\nshift.helper.x = 1\n")
  with pytest.raises(ConfigError, match=r"methods\.shift has no 'helper' for gin files"):
    gin_config.read([str(folder / "bad.gin")], [])
  (folder / "wrong.gin").write_text(RECIPE + "\nshift.Shift.scal = 1\n")
  with pytest.raises(ConfigError, match="Did you mean 'scale'"):
    gin_config.read([str(folder / "wrong.gin")], [])


def test_its_settings_are_fixed_once_a_run_has_started(folder):
  changed = gin_config.read([str(folder / "shift.gin")], ["shift.Shift.scale = 3.0"])
  with pytest.raises(ConfigError, match=r"Shift\.scale: 2\.0 -> 3\.0"):
    config_record.changes(changed, folder / "run", allow_change=False)
