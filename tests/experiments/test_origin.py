"""Runs go on over the data and the weights they were begun with; a damaged choice has a way on."""

import dataclasses
import json
import pathlib
import shutil

import pytest

from promot_jax import guarded_json
from promot_jax.checkpoints import sources
from promot_jax.checkpoints.store import Store
from promot_jax.cli.main import main
from promot_jax.decoding import strategies
from promot_jax.errors import ConfigError, DamagedCheckpoint, DataError
from promot_jax.evaluation import report, runs
from promot_jax.experiments import checkpoint_names, data, execute, measurement, origin, way_on
from promot_jax.experiments.restored import Restored
from promot_jax.identity import Identity, Part, digest
from promot_jax.methods.prompt import SoftPrompt
from promot_jax.training import choice
from tiny_experiments import MODEL, PROMPT, REPORT, SHORT, Lines, experiment, opened


def one_stage(folder: pathlib.Path, **changes):
  values = {"method": SoftPrompt(length=5), "stages": [PROMPT], "evaluation": REPORT, **SHORT}
  return experiment("prompt_tuning", model_dir=str(folder), **{**values, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp("origin") / "run"
  return folder, execute.execute(one_stage(folder))[0]


@pytest.fixture
def run(finished, tmp_path):
  """A copy of the finished run, to be damaged."""
  shutil.copytree(finished[0], tmp_path / "run")
  return tmp_path / "run"


def again(folder: pathlib.Path, *, allow_change: bool = False, **changes):
  sink = Lines()
  made = one_stage(folder, **changes)
  (outcome,) = execute.execute(made, sinks=[sink], allow_change=allow_change)
  return outcome, sink.lines


def measured(directory):
  """(name, results) of the chosen checkpoint."""
  chosen = checkpoint_names.named(directory, "chosen")
  tasks = data.report_tasks(directory.experiment, directory.session.reader)
  return chosen.name, measurement.measure(directory, chosen, tasks, models=Restored(directory))


def damage(step: pathlib.Path) -> None:
  files = [path for path in (step / "arrays").rglob("*") if path.is_file()]
  path = max(files, key=lambda each: each.stat().st_size)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(bytes(content))


def test_a_stage_goes_on_over_the_data_it_was_begun_with_only(run):
  stage = run / "stages" / "prompt"
  (stage / "stage_complete.json").unlink()
  shutil.rmtree(stage / "checkpoint_4")
  with pytest.raises(ConfigError, match=r"training data changed: 29 records .*, was 30 records"):
    again(run, train_limit=29)
  with pytest.raises(ConfigError, match=r"validation data changed: 6 records .*, was 7 records"):
    again(run, validation_limit=6)
  outcome, lines = again(run, train_limit=29, allow_change=True)
  assert any("the training data changed: 29 records" in line for line in lines)
  assert outcome.selected.startswith("prompt-")
  stored = json.loads((stage / "checkpoint_4" / "metadata.json").read_text())["metadata"]
  assert set(stored["made_from"]) == {
    "training data",
    "validation data",
    "start weights",
    "teacher",
    "anchor",
    "settings",
    "code",
    "values",
  }


def test_a_complete_stage_is_compared_with_the_data_of_today(run):
  marker = run / "stages" / "prompt" / "stage_complete.json"
  with pytest.raises(ConfigError, match=r"is complete, and the training data changed: 29 records"):
    again(run, train_limit=29)
  with pytest.raises(
    ConfigError, match=r"the validation data changed: 6 records .*, was 7 records"
  ):
    again(run, validation_limit=6)
  kept = marker.read_bytes()
  _, lines = again(run, train_limit=29, allow_change=True)
  assert any(line.startswith("the training data changed: 29 records") for line in lines)
  assert marker.read_bytes() == kept
  _, lines = again(run)
  assert not any("data changed" in line or "not compared" in line for line in lines)
  old = json.loads(kept)
  del old["made_from"], old["sha256"], old["guarded"]
  marker.write_text(json.dumps(old))
  _, lines = again(run, train_limit=29)
  assert sum("did not record its data" in line for line in lines) == 1


def test_a_complete_stage_whose_data_are_gone_is_still_used(run, monkeypatch):
  def gone(*args, **options):
    raise DataError("There is no data set.")

  monkeypatch.setattr(origin, "of_data", gone)
  _, lines = again(run)
  assert any("cannot be read and are not compared: There is no data set." in line for line in lines)


def identity_of(**parts: str) -> Identity:
  named = {name.replace("_", " "): Part(digest=digest(text)) for name, text in parts.items()}
  return Identity(parts=named)


def test_other_code_is_shown_and_other_values_are_refused():
  stored = identity_of(code="a", values="1", settings="x").to_json()
  (line,) = choice.compare(
    identity_of(code="b", values="1", settings="y"), stored, where="checkpoint_3"
  )
  assert line.startswith("the code changed")
  with pytest.raises(ConfigError, match="checkpoint_3 cannot go on: the values changed"):
    choice.compare(identity_of(code="b", values="2"), stored, where="checkpoint_3")
  (line,) = choice.compare(identity_of(code="b"), None, where="checkpoint_3")
  assert "did not record" in line


def test_a_part_of_the_examples_lies_beside_the_reported_scores(finished, run):
  _, outcome = finished
  made = one_stage(run)
  part = dataclasses.replace(made, evaluation=dataclasses.replace(made.evaluation, limit=2))
  found = measured(opened(part))[1]
  assert [(result.count, result.limit) for result in found] == [(2, 2)] * 3
  (read,) = runs.collect([run])
  assert sorted((r.task, r.count, dict(r.scores)) for r in read.reported) == sorted(
    (r.task, r.count, dict(r.scores)) for r in outcome.results
  )
  _, lines = again(run)
  assert any("none to run" in line for line in lines)


@pytest.mark.parametrize(
  "change",
  [
    {"strategy": strategies.Sample(temperature=0.7)},
    {"feature_lengths": {"inputs": 32, "targets": 3}, "task_lengths": {}},
    {"shots": (0,)},
  ],
)
def test_another_way_of_measuring_leaves_the_reported_scores(finished, run, change):
  _, outcome = finished
  made = one_stage(run)
  other = dataclasses.replace(made, evaluation=dataclasses.replace(made.evaluation, **change))
  name = outcome.selected
  before = {path.name: path.read_bytes() for path in (run / "evaluation" / name).iterdir()}
  assert measured(opened(other))[0] == name
  after = {path.name: path.read_bytes() for path in (run / "evaluation" / name).iterdir()}
  assert before.items() < after.items()
  (read,) = runs.collect([run])
  assert {(r.task, r.shots, r.fingerprint) for r in outcome.results} <= {
    (r.task, r.shots, r.fingerprint) for r in read.reported
  }
  _, lines = again(run)
  assert any("none to run" in line for line in lines)


def test_a_result_of_other_answers_or_other_weights_of_one_name_is_not_used(run):
  (path,) = run.glob("evaluation/*/rte.test.0shot.attached*.json")
  record = json.loads(path.read_text())
  for part in ("data", "start weights"):
    other = {**record["made_from"], part: {"digest": "0" * 16, "about": "before"}}
    path.write_text(guarded_json.text({**record, "made_from": other}))
    lines: list[str] = []
    wanted = {**record["made_from"], "start weights": {"digest": "1" * 16, "about": "now"}}
    store = runs.ResultStore(run / "evaluation", report=lines.append)
    (stored,) = [each for each in store.results(path.parent.name) if each.task == "rte"]
    result = dataclasses.replace(stored, made_from=wanted)
    assert store.find(path.parent.name, result) is None
    assert f"the {part} changed" in lines[0] and "was before" in lines[0]


def test_a_damaged_choice_is_replaced_by_the_next_best_step_and_evaluated(finished, run):
  _, outcome = finished
  stage = run / "stages" / "prompt"
  step = int(outcome.selected.removeprefix("prompt-"))
  (other,) = {2, 4} - {step}
  damage(stage / f"checkpoint_{step}")
  for path in run.glob("evaluation/*/*.json*"):
    path.unlink()
  directory = opened(one_stage(run))
  with pytest.raises(DamagedCheckpoint, match=f"--checkpoint=prompt:{other}"):
    Restored(directory).model(checkpoint_names.named(directory, f"prompt:{step}"))
  found, lines = again(run)
  assert found.selected == f"prompt-{other}"
  assert "the next best one" in found.why
  assert any(f"checkpoint_{step} is damaged" in line for line in lines)
  assert (stage / f"checkpoint_{step}.damaged").is_dir()
  assert again(run)[0].selected == f"prompt-{other}"
  for path in stage.glob("checkpoint_*"):
    shutil.rmtree(path)
  with pytest.raises(DamagedCheckpoint, match="restore it from a copy"):
    again(run)


def test_no_other_step_is_offered_below_a_later_stage(finished, run):
  stages = (PROMPT, MODEL)
  stores = [Store(run / "stages" / stage.name) for stage in stages]
  done = choice.marker(stores[0])
  damage(run / "stages" / "prompt" / f"checkpoint_{done['step']}")
  shutil.copytree(run / "stages" / "prompt", run / "stages" / "model")
  error = DamagedCheckpoint("checkpoint is damaged.")
  explained = way_on.explain(error, stages, 0, done["step"], stores[0])
  assert isinstance(explained, way_on.ChoiceDamaged)
  with pytest.raises(DamagedCheckpoint, match="Stage 'model' was trained on top of it"):
    way_on.choose_again(stages, stores, explained, imported=False)


def test_weights_are_told_apart_without_being_read(tmp_path):
  path = tmp_path / "weights.npz"
  seen = set()
  for content in (b"one", b"two!"):
    path.write_bytes(content)
    seen.add(sources.content(str(path)))
  assert len(seen) == 2 and "" not in seen
  path.unlink()
  assert [sources.content(text) for text in ("micro", "random", "gs://a/b", str(path))] == [""] * 4


def test_inspect_finds_damaged_metadata_and_lists_what_was_set_aside(run, capsys):
  stage = run / "stages" / "prompt"
  flags = ["inspect", "checkpoint", str(run), "--verify"]
  assert main(flags) == 0
  assert capsys.readouterr().out.count("checksums ok") == 2
  (stage / "checkpoint_2").rename(stage / "checkpoint_2.damaged")
  assert main(flags) == 0
  assert "checkpoint_2.damaged  set aside, not used" in capsys.readouterr().out
  (stage / "checkpoint_9").mkdir()
  assert main(flags) == 74
  assert "checkpoint_9  0 arrays  DAMAGED" in capsys.readouterr().out
  (stage / "checkpoint_9").rmdir()
  (stage / "checkpoint_2.damaged").rename(stage / "checkpoint_2")
  metadata = stage / "checkpoint_4" / "metadata.json"
  sound = metadata.read_bytes()
  for content in (b"", b"[]", b"null", b"7", b"{}", b"\xff", sound[:50], sound.replace(b"4", b"5")):
    metadata.write_bytes(content)
    assert main(flags) == 74
    out = capsys.readouterr().out
    assert out.count("DAMAGED") == 1 and out.count("checksums ok") == 1
  metadata.unlink()
  assert main(flags) == 74
  assert "metadata.json cannot be read" in capsys.readouterr().out
  metadata.write_bytes(sound)
  (stage / "stage_complete.json").write_text("[]")
  assert main(flags) == 74
  assert "stage_complete.json is a JSON list" in capsys.readouterr().out


def test_records_without_a_digest_are_told_once(run, capsys):
  _, lines = again(run)
  assert not any("no digest" in line for line in lines)
  edited = [run / "stages/prompt/stage_complete.json", *run.glob("evaluation/*/cb.*.json")]
  for path in edited:
    record = json.loads(path.read_text())
    path.write_text(
      json.dumps({name: record[name] for name in record if name not in ("sha256", "guarded")})
    )
  _, lines = again(run)
  (line,) = [line for line in lines if "no digest" in line]
  assert line.startswith(f"{len(edited)} records of an earlier version") and str(edited[0]) in line
  assert main(["inspect", "checkpoint", str(run), "--verify"]) == 0
  out = capsys.readouterr().out
  assert out.count("1 record of an earlier version carries no digest") == 1
  made, written = report.write([run], run / "report")
  assert made.remarks[0].startswith("1 record of") and "cb." in made.remarks[0]
  for path in written:
    if path.suffix in (".md", ".html", ".json"):
      assert path.read_text().count("carries no digest") == 1
  assert " ".join(report.text(made).split()).count("Note: 1 record of an earlier version") == 1
