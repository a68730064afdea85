"""What methods train and cost is read from their records, stage by stage and seed by seed."""

import dataclasses
import json
import statistics

import pytest

from promot_jax import guarded_json
from promot_jax.evaluation import averages, report, runs
from promot_jax.evaluation.records import RunRecord, StageRecord, TaskResult
from promot_jax.evaluation.results import ResultStore

BACKBONE = 2000


def evaluated(
  folder, method, *, seed=0, stages=(), off=None, on=None, device="1 x cpu", tuned=90.0
):
  """Writes a record and the scores of a run; `stages` are (name, trained, seconds of a step)."""
  store = ResultStore(folder)
  store.write_run(
    RunRecord(
      method=method,
      printed={"lora": "LoRA", "ia3": "IA3", "bitfit": "BitFit"}.get(method, ""),
      trained_on="rte" if stages else "none",
      seed=seed,
      selected="tune-20",
      backbone="T5 tiny",
      data="micro",
      stages=[
        StageRecord(name=name, trained=trained, backbone=BACKBONE, step_seconds=seconds)
        for name, trained, seconds in stages
      ],
      environment={"device": device},
    )
  )

  def put(task, shots, state, metric, score):
    store.write(
      "tune-20",
      TaskResult(
        task=task, shots=shots, method=state, metric=metric, scores={metric: score}, count=7
      ),
    )

  attached = on is not None
  put("rte", 0, "attached" if attached else "none", "accuracy", tuned)
  for task, metric in averages.UNSEEN_TASKS.items():
    if off is not None:
      put(task, 1, "detached" if attached else "none", metric, off)
    if on is not None:
      put(task, 1, "attached", metric, on)


@pytest.fixture
def study(tmp_path):
  evaluated(tmp_path / "pretrained", "pretrained", off=57.0, tuned=36.0)
  for seed, (full, light) in enumerate([(0.2, 0.05), (0.4, 0.3)]):
    folder = tmp_path / str(seed)
    evaluated(folder / "ft", "fine_tuning", seed=seed, stages=[("model", BACKBONE, full)], off=31.0)
    evaluated(
      folder / "lora", "lora", seed=seed, stages=[("lora", 10, light)], off=57.0, on=23.0 + seed
    )
    evaluated(
      folder / "promot",
      "promot",
      seed=seed,
      stages=[("prompt", 6, light), ("model", BACKBONE, 2 * full)],
      off=43.0,
      on=11.0,
      tuned=94.0,
    )
  return tmp_path


def costs_of(folder):
  (section,) = report.build(runs.collect([folder])).sections
  return section.costs


def cell(table, label, group, header):
  (row,) = [row for row in table.rows if f"{row.label} {row.detail}".strip() == label]
  headings = [(column.group, column.header) for column in table.columns]
  return row.cells[headings.index((group, header))]


def test_each_stage_has_its_parameters_and_its_share_of_the_backbone(study):
  table = costs_of(study)
  assert [f"{row.label} {row.detail}".strip() for row in table.rows] == [
    "Pretrained",
    "Standard fine-tuning",
    "ProMoT stage 1: prompt",
    "ProMoT stage 2: model",
    "LoRA",
  ]
  assert cell(table, "Standard fine-tuning", "Trained parameters", "number").text() == "2,000"
  assert cell(table, "LoRA", "Trained parameters", "share (%)").text() == "0.500"
  assert cell(table, "ProMoT stage 1: prompt", "Trained parameters", "share (%)").text() == "0.300"
  assert cell(table, "Pretrained", "Trained parameters", "number") is None


def test_step_times_are_ratios_to_fine_tuning_of_the_same_seed(study):
  table = costs_of(study)
  assert cell(table, "Standard fine-tuning", "Step", "/ fine-tuning").text() == "1.00 ±0.00"
  ratio = cell(table, "LoRA", "Step", "/ fine-tuning")
  assert ratio.value == pytest.approx((0.05 / 0.2 + 0.3 / 0.4) / 2)
  assert ratio.spread == pytest.approx(statistics.stdev([0.05 / 0.2, 0.3 / 0.4]))
  assert cell(table, "LoRA", "Step", "ms").value == pytest.approx(1000 * (0.05 + 0.3) / 2)
  assert cell(table, "ProMoT stage 2: model", "Step", "/ fine-tuning").value == pytest.approx(2.0)


def test_norm_average_stands_with_the_method_off_and_on(study):
  table = costs_of(study)
  assert cell(table, "LoRA", "Norm. Avg", "1-shot, off").value == 57
  assert cell(table, "LoRA", "Norm. Avg", "1-shot, on").value == pytest.approx(23.5)
  assert cell(table, "ProMoT stage 2: model", "Norm. Avg", "1-shot, off").value == 43
  assert cell(table, "ProMoT stage 2: model", "rte", "tuned task").value == 94
  assert cell(table, "ProMoT stage 1: prompt", "rte", "tuned task") is None
  assert cell(table, "Standard fine-tuning", "Norm. Avg", "1-shot, on") is None


def test_times_of_another_device_or_seed_are_not_compared(study):
  stages = [("ia3", 5, 0.01)]
  evaluated(study / "elsewhere", "ia3", stages=stages, off=57.0, on=40.0, device="1 x TPU")
  evaluated(study / "other", "bitfit", seed=9, stages=stages, off=57.0, on=40.0)
  table = costs_of(study)
  for label in ("IA3", "BitFit"):
    assert cell(table, label, "Step", "ms").value == 10
    assert cell(table, label, "Step", "/ fine-tuning") is None


def test_columns_that_nobody_can_fill_are_left_out(tmp_path):
  evaluated(tmp_path, "lora", stages=[("lora", 10, None)], off=57.0)
  headings = [(column.group, column.header) for column in costs_of(tmp_path).columns]
  assert headings == [
    ("Trained parameters", "number"),
    ("Trained parameters", "share (%)"),
    ("rte", "tuned task"),
    ("Norm. Avg", "1-shot, off"),
  ]


def test_runs_that_recorded_no_stages_have_no_such_table(study):
  for path in study.rglob("run.json"):
    path.write_text(guarded_json.text({**json.loads(path.read_text()), "stages": []}))
  assert costs_of(study) is None


def test_every_form_of_the_report_shows_the_table(study, tmp_path):
  shown, written = report.write(
    [study], tmp_path / "out" / "report", formats=("html", "md", "csv", "json", "txt")
  )
  title = "What each method trains, costs and keeps"
  assert title in report.text(shown)
  for path in written:
    assert title in path.read_text(), path
  figures = json.loads((tmp_path / "out" / "report.json").read_text())["sections"][0]["figures"]
  (number,) = [
    f["value"]
    for f in figures
    if f["row"] == "LoRA"
    and f["detail"] == ""
    and f["method"] == "Trained parameters"
    and f["value"] > 5
  ]
  assert number == 10


def test_what_a_method_adds_is_not_counted_as_the_model(study):
  (section,) = report.build(runs.collect([study])).sections
  (model,) = [ours for aspect, ours, _ in section.differences if aspect == "model"]
  assert model == "T5 tiny, 2,000 weights"


def test_a_record_survives_its_file(tmp_path):
  evaluated(tmp_path, "lora", stages=[("lora", 10, 0.25)], off=1.0)
  (stage,) = ResultStore(tmp_path).read_run().stages
  assert dataclasses.asdict(stage) == {
    "name": "lora",
    "trained": 10,
    "backbone": BACKBONE,
    "step_seconds": 0.25,
  }
