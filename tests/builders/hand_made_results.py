"""Results of evaluations that never ran, for what reads them: reports, tables, plots."""

import json

from promot_jax import guarded_json
from promot_jax.evaluation import averages
from promot_jax.evaluation.records import Prediction, RunRecord, TaskResult
from promot_jax.evaluation.results import ResultStore


def edit(path, **changes):
  """Changes fields of a record as somebody does who knows of its digest."""
  path.write_text(guarded_json.text(json.loads(path.read_text()) | changes))


def evaluate_by_hand(
  folder,
  method,
  *,
  seed=0,
  tuned=90.0,
  unseen=40.0,
  shots=(1,),
  share=0.0,
  text="w",
  notes=None,
  tasks=averages.UNSEEN_TASKS,
  **record,
):
  """Writes what an evaluation leaves: the tuned task and the unseen tasks, all of one score."""
  store = ResultStore(folder)
  defaults = {"trained_on": "rte", "backbone": "T5 tiny", "data": "micro", "selected": "tune-20"}
  defaults["backbone_trained"] = method not in ("pretrained", "prompt_tuning")
  if method == "pretrained":
    defaults["trained_on"] = "none"
  if tasks is not averages.UNSEEN_TASKS:  # earlier records have no list
    defaults["unseen"] = tuple(tasks)
  store.write_run(RunRecord(**{"method": method, "seed": seed, **defaults, **record}))
  prompted = method.startswith(("promot", "prompt", "joint", "random"))

  def put(task, number, state, metric, score):
    result = TaskResult(
      task=task,
      shots=number,
      method=state,
      metric=metric,
      scores={metric: score, "format_share": share},
      standard_errors={metric: 2.0, "format_share": 0.0},
      count=50,
      split="test",
      notes=notes or {},
      settings={"decoding": "Greedy()", "metrics": [metric], "format": "outputs that are True"},
    )
    prediction = Prediction(
      task=task,
      shots=number,
      index=0,
      input=text,
      targets=[text],
      prediction=text,
      raw=text,
      score=0.0,
      log_probability=-1.0,
    )
    store.write("tune-20", result, [prediction])

  put("rte", 0, "attached" if prompted else "none", "accuracy", tuned)
  for number in shots:
    for task, metric in tasks.items():
      put(task, number, "detached" if prompted else "none", metric, unseen)
  return folder


def answer_by_hand(folder, method, answers, *, task="rte", metric="accuracy", seed=0):
  """Writes what an evaluation of one tuned task leaves: (input, accepted answers, output) each."""
  store = ResultStore(folder)
  store.write_run(
    RunRecord(method=method, trained_on=task, seed=seed, selected="tune-20", unseen=())
  )
  result = TaskResult(
    task=task,
    shots=0,
    method="none",
    metric=metric,
    scores={metric: 50.0},
    count=len(answers),
    split="test",
  )
  predictions = [
    Prediction(
      task=task,
      shots=0,
      index=index,
      input=asked,
      targets=targets,
      prediction=output,
      raw=f"<extra_id_0> {output}",
      score=100.0 * (output in targets),
      log_probability=-1.0,
    )
    for index, (asked, targets, output) in enumerate(answers)
  ]
  store.write("tune-20", result, predictions)
  return folder
