"""Questions on a given text, answered by words of it: SQuAD's and MRQA's files and their template."""

from collections.abc import Iterator
from typing import Any

from promot_jax.data import layouts, text_lines
from promot_jax.data.original_files import Files, Layout, Row, source
from promot_jax.data.task import Record, Source, Task
from promot_jax.data.templates import Rendered, references
from promot_jax.metrics import answer_f1

FIELDS = (("context",), ("question",), ("answers", "text"))


def template(record: Record) -> Rendered:
  """'question: ... context: ...', as T5 reads SQuAD, and prompt tuning (Lester et al., 2021) MRQA."""
  text = f"question: {record['question']} context: {record['context']}"
  return references(text, record["answers"]["text"])


def squad(*files: tuple[str, str]) -> tuple[Layout, ...]:
  """SQuAD's JSON.

  Args:
    files: split and path below DATA_DIR.
  """
  return tuple(
    Layout(splits={split: (path,)}, rows=layouts.of_document(_of_squad), record=_record)
    for split, path in files
  )


def out_of_domain(name: str, file: str, size: int, **others: Source) -> Task:
  """One of MRQA's six data sets that are tested on only, after training on SQuAD.

  Args:
    name: of the task.
    file: name of the data set's file below 'mrqa/', without its ending.
    size: questions.
    others: further sources by name.
  """
  return Task(
    name=name,
    fields=FIELDS,
    template=template,
    metric="f1",
    metric_fns=(answer_f1.f1,),
    sources={"files": _only_tested(file, size), **others},
  )


def _only_tested(file: str, size: int) -> Source:
  found = [
    # As MRQA packs them, or unpacked by the user.
    Layout(splits={"test": (f"mrqa/{file}{ending}",)}, rows=_of_mrqa, record=_record)
    for ending in (".jsonl.gz", ".jsonl")
  ]
  return source(*found, selection="test", sizes={"test": size})


def _of_squad(document: Any) -> Iterator[Any]:
  for article in document["data"]:
    for paragraph in article["paragraphs"]:
      for question in paragraph["qas"]:
        # All that annotators gave: a prediction is compared with each.
        answers = [answer["text"] for answer in question["answers"]]
        yield {**question, "context": paragraph["context"], "answers": answers}


def _of_mrqa(files: Files) -> Iterator[Row]:
  """Questions of JSON lines, one text a line; the first line tells what the file is."""
  for path in (path for paths in files for path in paths):
    for number, text in text_lines.stream_json_lines(path):
      # A line without questions is damaged, unless it is the header: it becomes one unusable
      # record.
      for question in text.get("qas", () if "header" in text else ({},)):
        yield f"{path}:{number}", {**question, "context": text.get("context")}


def _record(row: Record) -> Record:
  return {
    "context": layouts.text(row, "context"),
    # Without the blanks around it, which some of SQuAD's questions have.
    "question": layouts.text(row, "question").strip(),
    "answers": {"text": layouts.texts(row, "answers")},
  }
