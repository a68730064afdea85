"""Damaged records of a finished run: one sentence, never a wrong figure, and a way on."""

import json
import pathlib
import random
import shutil

import pytest

from promot_jax import guarded_json
from promot_jax.errors import DamagedCheckpoint, PromotError
from promot_jax.evaluation import report
from promot_jax.experiments import execute


@pytest.fixture(scope="module")
def tiny(module_of_tests):
  """tests/experiments/test_execute.py, which knows how to make a small comparison."""
  return module_of_tests("experiments/test_execute")


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
  """(folder of a finished run of two stages, its outcome)."""
  folder = tmp_path_factory.mktemp("records") / "run"
  made = two_stages(tiny, folder)
  return folder, execute.execute(made)[0]


def two_stages(tiny, folder: pathlib.Path):
  method = tiny.SoftPrompt(length=5)
  stages = [tiny.PROMPT, tiny.MODEL]
  return tiny.experiment("promot", model_dir=str(folder), method=method, stages=stages)


def again(tiny, folder: pathlib.Path):
  sink = tiny.Lines()
  (outcome,) = execute.execute(two_stages(tiny, folder), sinks=[sink])
  return outcome, sink.lines


def mutations(data: bytes, seed: int, count: int) -> list[bytes]:
  random_ = random.Random(seed)
  shapes = [b"", b"[]", b"null", b'"x"', b"{}", b"7", b"\xff\xfe\x00\x80", b'{"step": "4"}']
  cuts = [data[:length] for length in random_.sample(range(len(data) - 1), 4)]
  digits = [place for place, byte in enumerate(data) if chr(byte).isdigit()]
  flips = []
  for place in random_.sample(digits, min(4, len(digits))):
    digit = str((int(chr(data[place])) + 1) % 10).encode()
    flips.append(data[:place] + digit + data[place + 1 :])
  every = [*shapes, *cuts, *flips]
  return random_.sample(every, min(count, len(every)))


RECORDS = [
  "stages/prompt/stage_complete.json",
  "stages/model/stage_complete.json",
  "stages/model/checkpoint_2/score.json",
  "stages/model/checkpoint_4/score.json",
  "stages/prompt/backbone.json",
  "evaluation/run.json",
  "evaluation/*/rte.test.0shot.attached.first5.json",
  "evaluation/*/cb.test.1shot.detached.first5.jsonl",
  "train/metrics.jsonl",
]


TRAINED = [name for name in RECORDS if "backbone" not in name]  # which a finished run never reads


@pytest.mark.parametrize(
  ("pattern", "count"),
  [(name, 1) for name in TRAINED]
  + [pytest.param(name, 9, marks=pytest.mark.slow) for name in TRAINED],
)
def test_training_again_mends_a_damaged_record_and_keeps_the_result(
  tiny, finished, tmp_path, pattern, count
):
  folder, outcome = finished
  (name,) = [path.relative_to(folder) for path in folder.glob(pattern)]
  for number, content in enumerate(mutations((folder / name).read_bytes(), count, count)):
    copy = tmp_path / str(number) / "run"
    shutil.copytree(folder, copy)
    (copy / name).write_bytes(content)
    found, lines = again(tiny, copy)
    assert found.selected == outcome.selected
    assert tiny.scores(found) == tiny.scores(outcome)
    if name.name not in ("metrics.jsonl", "score.json"):
      assert any(name.name in line and " kept as " in line for line in lines), (content, lines)
      assert list((copy / name).parent.glob(f"{name.name}.damaged*"))
    marker = json.loads((copy / "stages" / "model" / "stage_complete.json").read_text())
    assert f"model-{marker['step']}" == outcome.selected


@pytest.mark.parametrize("pattern", [name for name in RECORDS if "evaluation" in name])
def test_a_report_leaves_the_damaged_part_out_and_says_so(finished, tmp_path, pattern):
  folder, _ = finished
  (name,) = [path.relative_to(folder) for path in folder.glob(pattern)]
  for number, content in enumerate(mutations((folder / name).read_bytes(), 12, 3)):
    place = tmp_path / str(number)
    for run in ("sound", "damaged"):
      shutil.copytree(folder / "evaluation", place / run / "evaluation")
    record = (
      place / "sound" / "evaluation" / "run.json"
    )  # of another seed: a copy would be left out
    record.write_text(guarded_json.text(json.loads(record.read_text()) | {"seed": 77}))
    path = place / "damaged" / name
    path.write_bytes(content)
    formats = ("html", "md", "json")
    made, written = report.write(
      [place / "sound", place / "damaged"], place / "report", formats=formats
    )
    assert [line for line in made.left_out if str(path) in line], content
    for file in written:
      assert path.name in file.read_text().replace("\\", "")
    if name.name == "run.json":
      with pytest.raises(DamagedCheckpoint, match=r"run\.json"):
        report.write([place / "damaged"], place / "alone")


@pytest.mark.parametrize("pattern", [name for name in RECORDS if "stages" in name])
def test_other_commands_refuse_a_damaged_record_in_one_sentence(tiny, finished, tmp_path, pattern):
  folder, outcome = finished
  (name,) = [path.relative_to(folder) for path in folder.glob(pattern)]
  copy = tmp_path / "run"
  shutil.copytree(folder, copy)
  for content in mutations((folder / name).read_bytes(), 13, 16):
    (copy / name).write_bytes(content)
    directory = tiny.opened(two_stages(tiny, copy))
    try:
      chosen = tiny.checkpoint_names.named(directory, "chosen")
      tiny.Restored(directory).model(chosen)
    except PromotError as error:
      assert error.exit_code == 74 and str(copy / name) in str(error) and "\n" not in str(error)
    else:
      assert name.name == "score.json" and chosen.name == outcome.selected
