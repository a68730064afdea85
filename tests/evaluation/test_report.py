"""Reports made from result folders alone."""

import json
import os
import pathlib
import statistics
import subprocess
import sys

import pytest

from hand_made_results import edit, evaluate_by_hand
from promot_jax import errors
from promot_jax.evaluation import averages, escaping, plots, report, runs


@pytest.fixture
def study(tmp_path):
  """Pretrained once, fine-tuning and ProMoT with three seeds."""
  evaluate_by_hand(tmp_path / "pretrained", "pretrained", tuned=36.0, unseen=45.0)
  for seed, (kept, lost) in enumerate([(41.0, 30.0), (43.0, 24.0), (42.0, 36.0)]):
    evaluate_by_hand(tmp_path / f"promot-{seed}", "promot", seed=seed, unseen=kept)
    evaluate_by_hand(
      tmp_path / f"ft-{seed}", "fine_tuning", seed=seed, unseen=lost, share=50.0 + seed
    )
  return tmp_path


def figure(table, label, group, kind="ours"):
  (row,) = [row for row in table.rows if f"{row.label} {row.detail}".startswith(label)]
  (index,) = [
    i for i, column in enumerate(table.columns) if (column.group, column.kind) == (group, kind)
  ]
  return row.cells[index]


def test_a_copy_of_a_run_is_no_second_seed(tmp_path):
  first = evaluate_by_hand(tmp_path / "a", "promot", seed=1, unseen=41.0)
  evaluate_by_hand(tmp_path / "b", "promot", seed=1, unseen=41.0)
  evaluate_by_hand(tmp_path / "c", "promot", seed=2, unseen=43.0)
  told = []
  found = runs.collect([tmp_path], report=told.append)
  assert [run.record.seed for run in found] == [1, 2]
  assert len(told) == 1 and "seed 1" in told[0] and str(first) in told[0]
  cell = runs.average_cell(found, shots=1)
  assert cell.count == 2 and cell.spread == pytest.approx(statistics.stdev([41.0, 43.0]))


def test_a_pretrained_model_that_was_measured_twice_has_no_spread(tmp_path):
  evaluate_by_hand(tmp_path / "a", "pretrained")
  evaluate_by_hand(tmp_path / "b", "pretrained")
  evaluate_by_hand(tmp_path / "c", "pretrained", tasks={"cb": "accuracy"})  # another list
  told = []
  found = runs.collect([tmp_path], report=told.append)
  assert len(found) == 2 and len(told) == 1
  assert runs.average_cell(found[:1], shots=1).spread is None


def test_several_seeds_give_mean_sample_deviation_and_difference(study):
  (section,) = report.build(runs.collect([study])).sections
  cell = figure(section.main, "Norm. Avg 1-shot", "Standard fine-tuning")
  assert cell.value == 30
  assert cell.spread == pytest.approx(statistics.stdev([30.0, 24.0, 36.0]))
  assert (cell.kind, cell.count, cell.difference) == ("sd", 3, -15.0)
  base = figure(section.main, "Norm. Avg 1-shot", "Pretrained")
  assert (base.value, base.kind, base.difference) == (45.0, "ci", None)


def test_quoted_figures_stand_beside_ours_with_their_table(study):
  (section,) = report.build(runs.collect([study])).sections
  cell = figure(section.main, "Norm. Avg 1-shot", "ProMoT", "quoted")
  assert (cell.text(), cell.source) == ("20.10 (+2.58)", "Wang et al. 2024, Table 3")
  assert figure(section.main, "cb", "Pretrained", "quoted").text() == "46.43"
  assert any("Tables 3" in note for note in section.main.notes)


def test_tables_without_printed_average_get_a_marked_mean(tmp_path):
  evaluate_by_hand(tmp_path / "joint", "joint")
  (section,) = report.build(runs.collect([tmp_path])).sections
  cell = figure(section.main, "Norm. Avg 1-shot", "Joint tuning", "quoted")
  # Table 6, joint: CB 83.93, WiC 50.47, TriviaQA 0.75, WebQuestions 0.64, the others 0.
  assert cell.text() == f"{(83.93 + 50.47 + 0.75 + 0.64) / 8:.2f}†"
  assert any(note.startswith("†") for note in section.main.notes)


def test_the_tuned_task_is_read_with_the_prompt_attached(study):
  (section,) = report.build(runs.collect([study])).sections
  assert figure(section.main, "rte", "ProMoT").value == 90
  assert figure(section.main, "rte", "Pretrained").value == 36


def test_an_incomplete_suite_has_no_average_and_says_what_is_missing(tmp_path):
  folder = evaluate_by_hand(tmp_path / "run", "promot")
  for path in folder.glob("*/xsum.*"):
    path.unlink()
  (section,) = report.build(runs.collect([tmp_path])).sections
  assert figure(section.main, "Norm. Avg 1-shot", "ProMoT") is None
  assert any("ProMoT (seed 0, 1-shot) lacks xsum" in note for note in section.main.notes)


def test_learning_rates_and_training_tasks_get_tables_of_their_own(study):
  evaluate_by_hand(study / "low", "promot", variant="learning rate 0.003")
  evaluate_by_hand(study / "fr", "promot", trained_on="wmt14_en_fr")
  sections = report.build(runs.collect([study])).sections
  assert [section.title for section in sections] == [
    "Tuned on rte",
    "Tuned on rte, learning rate 0.003",
    "Tuned on wmt14_en_fr",
  ]
  assert all("pretrained" in section.group.runs for section in sections)


@pytest.mark.parametrize("earlier", [False, True])
def test_prompt_tuning_stands_beside_every_learning_rate_of_the_backbone(tmp_path, earlier):
  said = {"backbone_trained": None} if earlier else {}  # which earlier versions did not record
  for rate in ("0.01", "0.003"):
    evaluate_by_hand(tmp_path / rate, "promot", variant=f"learning rate {rate}", **said)
  evaluate_by_hand(tmp_path / "prompt", "prompt_tuning", **said)
  sections = report.build(runs.collect([tmp_path])).sections
  assert sorted(section.title for section in sections) == [
    "Tuned on rte, learning rate 0.003",
    "Tuned on rte, learning rate 0.01",
  ]
  assert all(set(section.group.runs) == {"promot", "prompt_tuning"} for section in sections)
  assert all(len(section.group.runs["promot"]) == 1 for section in sections)


def test_a_method_that_nobody_listed_stands_last_under_its_own_name(tmp_path):
  evaluate_by_hand(tmp_path / "b", "new_b", printed="New method", backbone_trained=False)
  evaluate_by_hand(tmp_path / "a", "new_a", printed="New method", backbone_trained=False)
  evaluate_by_hand(tmp_path / "c", "new_c", printed="Has a place", column=5)
  evaluate_by_hand(tmp_path / "ft", "fine_tuning")
  evaluate_by_hand(tmp_path / "d", "of_an_earlier_version")
  (section,) = report.build(runs.collect([tmp_path])).sections
  group = section.group
  assert [group.name(method) for method in group.runs] == [
    "Standard fine-tuning",
    "Has a place",
    "New method (new_a)",  # two of one name are told apart
    "New method (new_b)",
    "of an earlier version",
  ]
  assert "New method (new_a)" in report.text(report.build(runs.collect([tmp_path])))


def test_a_perfect_score_of_a_few_examples_is_not_called_certain(tmp_path):
  folder = evaluate_by_hand(tmp_path / "run", "promot", tuned=100.0)
  path = next(folder.glob("*/rte.*.json"))
  edit(path, count=8, standard_errors={"accuracy": 0.0})
  made = report.build(runs.collect([tmp_path]))
  for shown in (report.text(made), report.markdown(made)):
    assert "100.00 [67.6, 100.0]" in shown  # Wilson's for 8 of 8
    assert "±0.00" not in shown


def test_a_difference_that_rests_on_one_task_is_said_to(study):
  for path in study.glob("promot-*/*/xsum.*.json"):
    edit(path, scores={"rouge2": 98.0})
  made = report.build(runs.collect([study]))
  (section,) = made.sections
  (note,) = [note for note in section.main.notes if "comes from one task" in note]
  # 42 against 45 on seven tasks, 98 against 45 on xsum: (53 - 21) / 8 = +4
  assert note == (
    "ProMoT minus Pretrained, Norm. Avg 1-shot: the sign comes from one task, xsum (+4.00 in all, "
    "xsum +53.00, the mean of the other 7 -3.00)."
  )
  assert note in report.as_json(made)["sections"][0]["notes"]
  assert escaping.markdown(note) in report.markdown(made)
  assert "the sign comes from one task" in report.text(made)


def test_published_figures_do_not_stand_beside_own_data(tmp_path):
  own = {
    "data": "own: rte my_set:1.0.0",
    "data_sets": {"rte": "my_set:1.0.0 (40 validation examples)", "cb": "super_glue/cb:1.0.2"},
    "own_tasks": ["rte"],
  }
  evaluate_by_hand(tmp_path / "base", "pretrained", **own)
  evaluate_by_hand(tmp_path / "run", "promot", **own)
  (section,) = report.build(runs.collect([tmp_path])).sections
  quoted = {
    (column.group, row.label)
    for row in section.main.rows
    for column, cell in zip(section.main.columns, row.cells, strict=True)
    if cell and column.kind == "quoted"
  }
  assert quoted  # the pretrained model's on the published sets
  assert {group for group, _ in quoted} == {"Pretrained"}
  assert "rte" not in {label for _, label in quoted}
  stated = {aspect: ours for aspect, ours, _ in section.differences}
  assert stated["data"] == (
    "own data, not the published sets: rte from my_set:1.0.0 (40 validation examples); the published "
    "sets: super_glue/cb:1.0.2"
  )


def test_published_sets_of_original_files_are_not_said_to_be_of_tfds(tmp_path):
  sets = {"rte": "glue_rte/dev.tsv (277 validation examples)"}
  evaluate_by_hand(tmp_path / "run", "promot", data="files", data_sets=sets)
  (section,) = report.build(runs.collect([tmp_path])).sections
  stated = {aspect: ours for aspect, ours, _ in section.differences}
  assert stated["data"] == f"the published sets: {sets['rte']}"


def test_data_whose_origin_was_not_recorded_are_not_called_the_real_ones(tmp_path):
  evaluate_by_hand(tmp_path / "run", "promot", data="tfds")
  (section,) = report.build(runs.collect([tmp_path])).sections
  stated = {aspect: ours for aspect, ours, _ in section.differences}
  assert "not recorded" in stated["data"]


def test_every_checkpoint_is_listed_with_its_method(study):
  (section,) = report.build(runs.collect([study])).sections
  stated = {aspect: ours for aspect, ours, _ in section.differences}
  assert stated["checkpoint"] == (
    "Standard fine-tuning: tune-20 (seed 0), tune-20 (seed 1), tune-20 (seed 2); "
    "ProMoT: tune-20 (seed 0), tune-20 (seed 1), tune-20 (seed 2)"
  )


def test_runs_that_are_no_seeds_of_one_another_are_pointed_out(study):
  for seed, rate in ((7, 0.01), (8, 0.003)):
    evaluate_by_hand(study / str(rate), "promot", seed=seed, settings={"learning rate": rate})
  (section,) = report.build(runs.collect([study])).sections
  (warning,) = [note for note in section.main.notes if note.startswith("Warning")]
  assert "ProMoT has runs that differ in learning rate" in warning


def test_format_shares_are_shown_by_method(study):
  (section,) = report.build(runs.collect([study])).sections
  (table,) = [table for table in section.further if "format" in table.title]
  assert figure(table, "trivia_qa 1-shot", "Standard fine-tuning").value == 51
  assert figure(table, "trivia_qa 1-shot", "ProMoT").value == 0


def test_what_differs_is_said_from_the_records(study):
  (section,) = report.build(runs.collect([study])).sections
  stated = {aspect: (ours, paper) for aspect, ours, paper in section.differences}
  assert stated["model"] == ("T5 tiny", "mT5 XXL, 13 billion weights")
  assert stated["seeds"][0] == "3 (0, 1, 2)"
  assert "micro world" in stated["data"][0]
  assert "cb test 50" in stated["test sets"][0]


def test_a_folder_without_results_is_refused(tmp_path):
  with pytest.raises(errors.DataError, match="No evaluated model"):
    runs.collect([tmp_path])


def test_a_reported_checkpoint_that_was_not_evaluated_is_refused(tmp_path):
  evaluate_by_hand(tmp_path / "run", "promot", selected="tune-999")
  with pytest.raises(errors.DataError, match=r"'tune-999' is reported, but only tune-20"):
    runs.collect([tmp_path])


def test_every_format_is_written_and_says_the_same(study, tmp_path):
  output = tmp_path / "out" / "report.html"
  _, written = report.write([study], output, formats=("html", "md", "csv", "json", "txt", "png"))
  names = {path.name for path in written}
  assert {f"report.{ending}" for ending in ("html", "md", "csv", "json", "txt")} <= names
  assert {"report-norm-avg.png", "report-tasks.png", "report-trade-off.png"} <= names
  for path in written:
    if path.suffix == ".png":
      assert path.read_bytes().startswith(b"\x89PNG")
    else:
      shown = "42.0" if path.suffix in (".csv", ".json") else "42.00"  # ProMoT's mean of 3 seeds
      assert shown in path.read_text()
  figures = json.loads((tmp_path / "out" / "report.json").read_text())["sections"][0]["figures"]
  quoted = [f for f in figures if f["kind"] == "quoted"]
  assert quoted
  assert all(f["source"].startswith("Wang et al. 2024, Table") for f in quoted)


@pytest.mark.parametrize(
  ("metrics", "said"),
  [
    ({"cb": "accuracy", "own": "f1"}, "Scores are 0 to 100."),
    (
      {"cb": "accuracy", "own": "nist", "other": "ter"},
      "Scores: accuracy 0 to 100; ter 0 to any number, lower is better; nist 0 to any number.",
    ),
    ({"own": "mine"}, "Scores: mine of no stated range; accuracy 0 to 100."),
  ],
)
def test_scores_are_said_to_be_on_their_own_scales(tmp_path, metrics, said):
  evaluate_by_hand(tmp_path / "a", "fine_tuning", unseen=7.5, tasks=metrics)
  (section,) = report.build(runs.collect([tmp_path])).sections
  assert section.main.notes[0].startswith(said)


def test_records_that_were_left_out_are_counted(tmp_path):
  notes = {"skipped": {"malformed records": 2, "empty targets": 1}}
  evaluate_by_hand(tmp_path / "a", "fine_tuning", notes=notes)
  written = report.text(report.build(runs.collect([tmp_path])), width=400)
  assert "left out because they could not be used" in written
  assert "(MALFORMED, EMPTY_TARGETS): 3 of cb test, 3 of rte test, " in written


def test_an_unknown_format_is_refused(study, tmp_path):
  with pytest.raises(errors.ConfigError, match="'pdf'"):
    report.write([study], tmp_path / "report", formats=("pdf",))


def test_a_dollar_sign_in_a_name_is_no_formula_of_the_plots(tmp_path):
  evaluate_by_hand(tmp_path / "run", "cost $\\bad{$ of $x$")
  report.write([tmp_path], tmp_path / "report.html", formats=("html", "png"))
  assert list(tmp_path.rglob("*.png"))


def test_settings_of_a_matplotlibrc_in_the_working_folder_are_not_followed(study, tmp_path):
  """With `text.usetex` it would run LaTeX, whose preamble may read files into the plots."""
  script = (
    "import sys\nfrom promot_jax.evaluation import report\n"
    "report.write([sys.argv[1]], sys.argv[2])\n"
    "import matplotlib\nprint(matplotlib.rcParams['text.usetex'])\n"
  )
  pages = []
  for name, settings in (("plain", ""), ("hostile", "text.usetex: True\nlines.linewidth: 50\n")):
    (tmp_path / name).mkdir()
    (tmp_path / name / "matplotlibrc").write_text(settings)
    command = [sys.executable, "-c", script, str(study), str(tmp_path / name / "report")]
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(report.__file__).parents[2])}
    run = subprocess.run(
      command, cwd=tmp_path / name, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(bool(settings)), "the settings were found, and not used"
    pages.append((tmp_path / name / "report.html").read_text())
  assert pages[0] == pages[1]


def test_equal_results_give_equal_pages(study, tmp_path):
  pages = []
  for name in ("a", "b"):
    report.write([study], tmp_path / name / "report.html", formats=("html",))
    pages.append((tmp_path / name / "report.html").read_bytes())
  assert pages[0] == pages[1]


def test_reports_import_neither_jax_nor_tensorflow():
  code = (
    "import sys; from promot_jax.evaluation import report, html, plots, task, scorer; "
    "bad = {'jax', 'tensorflow', 'seqio'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


OWN = {"my_task": "f1", "cb": "accuracy"}


def test_the_average_is_that_of_the_list_that_the_run_recorded(tmp_path):
  evaluate_by_hand(tmp_path / "a", "pretrained", unseen=45.0, tasks=OWN)
  evaluate_by_hand(tmp_path / "b", "promot", unseen=41.0, tasks=OWN)
  (section,) = report.build(runs.collect([tmp_path])).sections
  assert section.title == "Tuned on rte; unseen: cb, my_task"
  cell = figure(section.main, "Norm. Avg 1-shot", "ProMoT")
  assert (cell.value, cell.difference) == (41.0, -4.0)
  assert figure(section.main, "my_task 1-shot f1", "ProMoT").value == 41.0
  assert any("mean of the unseen tasks cb, my_task" in note for note in section.main.notes)
  printed = [row for row in section.main.rows if row.label == "Norm. Avg"]
  assert all(cell is None or not cell.printed for row in printed for cell in row.cells)
  assert "norm-avg" in plots.section_plots(section)


def test_runs_with_different_lists_never_share_a_table(tmp_path):
  evaluate_by_hand(tmp_path / "a", "pretrained", unseen=45.0)
  evaluate_by_hand(tmp_path / "b", "promot", unseen=41.0, seed=1)
  evaluate_by_hand(tmp_path / "c", "promot", unseen=60.0, seed=2, tasks=OWN)
  eight, own = sorted(
    report.build(runs.collect([tmp_path])).sections, key=lambda section: len(section.title)
  )
  assert (eight.title, own.title) == ("Tuned on rte", "Tuned on rte; unseen: cb, my_task")
  cell = figure(eight.main, "Norm. Avg 1-shot", "ProMoT")
  assert (cell.value, cell.count, cell.difference) == (41.0, 1, -4.0)
  cell = figure(own.main, "Norm. Avg 1-shot", "ProMoT")
  assert (cell.value, cell.difference) == (60.0, None)  # the pretrained model has another average


def test_the_order_of_a_list_is_no_difference():
  assert averages.ordered(reversed(averages.PUBLISHED)) == averages.PUBLISHED
  assert averages.ordered(None) == averages.PUBLISHED
  assert averages.ordered(["zebra", "cb", "apple"]) == ("cb", "apple", "zebra")
