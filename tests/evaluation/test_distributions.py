"""Reports of runs that were measured in and out of distribution, the method attached to both."""

import pytest

from promot_jax.evaluation import planes, report, runs
from promot_jax.evaluation.records import Prediction, RunRecord, TaskResult
from promot_jax.evaluation.results import ResultStore

SHARES = (0.25, 0.5)


def measured(
  folder,
  method,
  inside,
  outside,
  *,
  state="none",
  tasks=("webnlg_seen", "webnlg_unseen"),
  metric="bleu",
  **record,
):
  """Writes what one seed of a row leaves."""
  store = ResultStore(folder)
  values = {"backbone": "micro decoder", "data": "micro", "backbone_trained": state == "none"}
  store.write_run(
    RunRecord(
      method=method,
      trained_on=tasks[0],
      selected="last",
      unseen=tasks[1:],
      **{**values, **record},
    )
  )
  for task, score in zip(tasks, (inside, outside), strict=True):
    result = TaskResult(
      task=task,
      shots=0,
      method=state,
      metric=metric,
      scores={metric: score},
      count=9,
      split="test",
    )
    answer = Prediction(
      task=task,
      shots=0,
      index=0,
      input="a",
      targets=["a"],
      prediction="a",
      raw="a",
      score=None,
      log_probability=-1.0,
    )
    store.write("last", result, [answer])


@pytest.fixture
def made(tmp_path):
  measured(tmp_path / "full", "fine_tuning", 60.0, 30.0)
  measured(tmp_path / "light", "prefix_tuning", 50.0, 40.0, state="attached")
  for kind, best in (("ensemble", 0.5), ("cocktail", 0.25)):
    for share in SHARES:
      measured(
        tmp_path / f"{kind}{share}",
        f"{kind}_prefix-light_weight-{share}",
        62.0 + share,
        44.0 - share,
        row=f"{kind}_prefix",
        point={"LIGHT_WEIGHT": share},
        validation=90.0 if share == best else 80.0,
        printed=f"{kind.title()}, prefix (light weight {share})",
      )
  return report.build(runs.collect([tmp_path]))


def test_the_main_table_has_what_was_measured_with_the_method_on(made):
  (section,) = made.sections
  (row,) = [row for row in section.main.rows if row.label == "webnlg_unseen"]
  scores = {
    column.group: cell.value for column, cell in zip(section.main.columns, row.cells, strict=True)
  }
  assert scores["prefix tuning"] == 40.0 and scores["Standard fine-tuning"] == 30.0
  assert "but kept on of prefix tuning" in section.main.notes[0]
  # Nothing is left for the table of what was measured in both ways.
  assert not [table for table in section.tables if "method off and on" in table.title]


def test_what_an_earlier_plan_measured_with_the_method_off_changes_nothing(tmp_path):
  planned = {f"{task}.0shot.attached": "test" for task in ("webnlg_seen", "webnlg_unseen")}
  for outside, state in ((7.0, "detached"), (40.0, "attached")):
    measured(tmp_path, "prefix_tuning", 50.0, outside, state=state, measured=planned)
  (run,) = runs.collect([tmp_path])
  assert len(run.reported) == 4 and run.keeps_method_on
  assert runs.average_cell([run], shots=0).value == 40.0


def test_table_1_has_the_chosen_shares_and_its_means(made):
  table, means = made.papers
  assert table.title.startswith("Table 1 of Hewitt et al. 2021")
  ours = {
    (row.label, column.group): cell.value
    for row in table.rows
    for column, cell in zip(table.columns, row.cells, strict=True)
    if cell and column.kind == "ours"
  }
  inside = "webnlg_seen, in distribution, bleu"
  outside = "webnlg_unseen, out of distribution, bleu"
  assert ours == {
    ("Standard fine-tuning", inside): 60.0,
    ("Standard fine-tuning", outside): 30.0,
    ("Prefix tuning", inside): 50.0,
    ("Prefix tuning", outside): 40.0,
    ("Ensemble, prefix", inside): 62.5,
    ("Ensemble, prefix", outside): 43.5,
    ("Cocktail, prefix", inside): 62.25,
    ("Cocktail, prefix", outside): 43.75,
  }
  assert [row.cells[0].text() for row in means.rows] == [
    "75.0",
    "83.3",
    "+25.0",
    "+45.0",
    "+24.5",
    "+45.8",
  ]


def test_data_sets_with_models_and_rates_of_their_own_make_one_table(made, tmp_path):
  del made  # its runs lie there
  measured(
    tmp_path / "xsum",
    "fine_tuning",
    21.0,
    15.0,
    tasks=("xsum_id", "xsum_ood"),
    metric="rouge2",
    backbone="micro T5",
    variant="learning rate 0.001",
  )
  tables = report.build(runs.collect([tmp_path])).papers
  (table,) = [each for each in tables if each.title.startswith("Table 1 of Hewitt")]
  ours = {column.group for column in table.columns if column.kind == "ours"}
  assert {name.partition(",")[0] for name in ours} == {
    "webnlg_seen",
    "webnlg_unseen",
    "xsum_id",
    "xsum_ood",
  }


def test_curves_are_told_by_line_and_mark_and_the_rows_beside_them_are_there(made):
  (section,) = made.sections
  plot = planes.points(section.group)
  (axis,) = plot.figure.axes
  assert axis.get_ylabel() == "webnlg_unseen, 0-shot"
  drawn = {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
  assert set(drawn) == {
    "ensemble prefix",
    "cocktail prefix",
    "prefix tuning",
    "Standard fine-tuning",
  }
  curves = [drawn["ensemble prefix"], drawn["cocktail prefix"]]
  assert len({line.get_linestyle() for line in curves}) == 2
  assert len({line.get_marker() for line in drawn.values()}) == 4
  assert "cocktail prefix 0.25 (chosen) 62.2 and 43.8" in plot.words
