"""Results with an answer for each example, for what compares them one by one."""

from promot_jax.evaluation.records import Prediction, RunRecord, TaskResult
from promot_jax.evaluation.results import ResultStore
from promot_jax.metrics import accuracy
from promot_jax.metrics.metric import describe


def answer(
  folder,
  answers,
  targets,
  *,
  metric=accuracy.accuracy,
  checkpoint="tune-20",
  task="cb",
  shots=1,
  method="none",
  settings=None,
  inputs=None,
  limit=None,
):
  """Stores what an evaluation leaves that got these answers to questions with these targets."""
  statistics = metric.statistics(targets, answers)
  (name,) = metric.names
  result = TaskResult(
    task=task,
    shots=shots,
    method=method,
    metric=name,
    scores=metric.summarize(statistics.sum(axis=0)),
    count=len(answers),
    split="test",
    limit=limit,
    settings={"decoding": "Greedy()", "metrics": [describe(metric)], **(settings or {})},
  )
  predictions = [
    Prediction(
      task=task,
      shots=shots,
      index=index,
      input=inputs[index] if inputs else f"question {index}",
      targets=target,
      prediction=text,
      raw=text,
      score=metric.summarize(row)[name],
      log_probability=-1.0,
    )
    for index, (text, target, row) in enumerate(zip(answers, targets, statistics, strict=True))
  ]
  ResultStore(folder).write(checkpoint, result, predictions)
  return folder


def run_of(folder, method, *, seed=0, unseen=("cb",)):
  """Says how a folder's model was made."""
  record = RunRecord(
    method=method,
    seed=seed,
    trained_on="none" if method == "pretrained" else "rte",
    backbone="T5 tiny",
    data="micro",
    selected="tune-20",
    unseen=unseen,
    backbone_trained=method != "pretrained",
  )
  ResultStore(folder).write_run(record)
  return folder
