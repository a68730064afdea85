"""Metrics reach files and people; a broken sink never stops a run."""

import dataclasses
import io
import json
import os
import struct

import pytest

from promot_jax.training.events import Console, Events, JsonLines, Progress, Scalars, progress_text
from promot_jax.training.tensorboard import TensorBoard, crc32c


def scalars(step, *, stage="prompt", kind="train", **values):
  return Scalars(stage=stage, kind=kind, step=step, values=values)


class Terminal(io.StringIO):
  def isatty(self):
    return True


PROGRESS = Progress(
  stage="prompt",
  step=312,
  steps=500,
  loss=0.41234,
  learning_rate=0.3,
  tokens_per_second=18234.0,
  steps_per_second=4.7,
  seconds_left=3640.2,
)


def test_progress_says_step_loss_rate_and_time_left():
  assert progress_text(PROGRESS) == (
    "prompt  step 312/500  loss 0.4123  learning rate 0.3  18.2k tokens/s  4.7 steps/s"
    "  left 1:00:40"
  )


def test_progress_without_measurements_says_the_step_only():
  assert progress_text(Progress(stage="model", step=0, steps=9)) == "model  step 0/9"


def test_a_terminal_gets_a_bar_that_lines_replace():
  stream = Terminal()
  console = Console(stream, width=121)
  console.progress(PROGRESS)
  console.line("saved step 312")
  console.close()
  assert stream.getvalue().startswith("prompt  ██████████████░░░░░░░░░  step 312/500")
  assert stream.getvalue().endswith("\r\x1b[Ksaved step 312\n")


EVALUATION = Progress(
  stage="promot model-300",
  step=412,
  steps=864,
  unit="example",
  tasks=(3, 9),
  steps_per_second=25.13,
  seconds_left=18.0,
)


def test_an_evaluation_says_examples_tasks_rate_and_time_left():
  assert progress_text(EVALUATION) == (
    "promot model-300  example 412/864  task 3/9  25.1 examples/s  left 0:00:18"
  )


@pytest.mark.parametrize("event", [PROGRESS, EVALUATION], ids=["training", "evaluation"])
@pytest.mark.parametrize("columns", [1, 10, 20, 40, 80, 200])
def test_a_bar_fits_every_width_and_says_the_most_important(event, columns):
  shown = progress_text(event, width=columns)
  assert len(shown) <= columns
  if columns >= 20:
    assert f"{event.step}/{event.steps}" in shown
  if columns >= 80:
    assert "left" in shown and event.stage in shown
  if columns == 200:
    assert "/s" in shown and "█" in shown and "░" in shown


def test_the_width_is_asked_of_the_terminal_before_each_bar(monkeypatch):
  class Resized(Terminal):
    def fileno(self):
      return 7

  columns = iter([40, 200])
  monkeypatch.setattr("os.get_terminal_size", lambda number: os.terminal_size((next(columns), 24)))
  stream = Resized()
  console = Console(stream)
  console._seconds = 0.0
  console.progress(PROGRESS)
  console.progress(PROGRESS)
  narrow, wide = stream.getvalue().split("\r\x1b[K")
  assert len(narrow) < 40 < len(wide) < 200


def test_a_terminal_that_is_not_utf_8_gets_a_plain_bar():
  raw = io.BytesIO()
  stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
  stream.isatty = lambda: True
  Console(stream, width=120).progress(PROGRESS)
  assert b"prompt  ####" in raw.getvalue()


def test_names_cannot_send_escape_sequences_to_a_terminal():
  stream = Terminal()
  console = Console(stream, width=120)
  console.line("data \x1b]0;title\x07 \u202e read")
  assert stream.getvalue() == "data ⟨U+001B⟩]0;title⟨U+0007⟩ ⟨U+202E⟩ read\n"


def test_a_long_name_is_cut_at_its_beginning():
  event = Progress(stage="prompt_tuning prompt-500", step=96, steps=180, unit="example")
  assert progress_text(event, width=39) == "…ompt_tuning prompt-500  example 96/180"


def test_a_finished_bar_leaves_an_empty_line_to_whoever_prints_next():
  stream = Terminal()
  console = Console(stream, width=80)
  console.progress(dataclasses.replace(EVALUATION, step=800))
  console.progress(dataclasses.replace(EVALUATION, step=864))
  assert stream.getvalue().endswith("\r\x1b[K")


def test_a_file_gets_one_line_an_interval_and_no_control_characters():
  stream = io.StringIO()
  console = Console(stream, seconds=3600)
  for _ in range(5):
    console.progress(PROGRESS)
  console.scalars(scalars(300, kind="validation", accuracy=0.718))
  console.scalars(scalars(300, loss=1.0))
  assert stream.getvalue().splitlines() == [
    progress_text(PROGRESS),
    "prompt validation at step 300: accuracy 0.718",
  ]


def test_json_lines_hold_stage_kind_step_and_values(tmp_path):
  sink = JsonLines(tmp_path / "logs" / "metrics.jsonl")
  sink.scalars(scalars(10, loss=0.5, ratio=float("nan")))
  sink.close()
  (record,) = [json.loads(line) for line in (tmp_path / "logs/metrics.jsonl").open()]
  assert record.pop("time") > 1e9
  assert record == {"stage": "prompt", "kind": "train", "step": 10, "loss": 0.5, "ratio": None}


def test_rewinding_removes_later_and_torn_lines_of_the_stage_only(tmp_path):
  path = tmp_path / "metrics.jsonl"
  sink = JsonLines(path)
  sink.scalars(scalars(30, stage="first", loss=1))
  for step in (10, 20, 30):
    sink.scalars(scalars(step, loss=1))
    sink.scalars(scalars(step, kind="validation", accuracy=1))
  sink.close()
  with path.open("a") as stream:
    stream.write('{"stage": "prompt", "step": 5')
  sink = JsonLines(path)
  sink.rewind("prompt", 20)
  sink.scalars(scalars(20, kind="validation", accuracy=2))
  sink.close()
  records = [json.loads(line) for line in path.open()]
  assert [(r["stage"], r["kind"], r["step"]) for r in records] == [
    ("first", "train", 30),
    ("prompt", "train", 10),
    ("prompt", "validation", 10),
    ("prompt", "train", 20),
    ("prompt", "validation", 20),
  ]


def test_a_failing_sink_is_dropped_with_a_line_and_the_others_go_on(tmp_path):
  class Broken(JsonLines):
    def scalars(self, event):
      raise OSError(28, "No space left on device")

  stream = io.StringIO()
  path = tmp_path / "metrics.jsonl"
  events = Events([Broken(tmp_path / "broken.jsonl"), Console(stream), JsonLines(path)])
  for step in (1, 2):
    events.scalars(scalars(step, loss=1.0))
  events.close()
  assert stream.getvalue() == (
    "Broken failed and gets no more events: [Errno 28] No space left on device\n"
  )
  assert len(path.read_text().splitlines()) == 2


def test_two_sinks_that_fail_on_one_event_are_dropped_with_a_line_each():
  class Broken(Console):
    def scalars(self, event):
      raise OSError(28, "No space left on device")

    def line(self, text):
      raise OSError(28, "No space left on device")

  stream = io.StringIO()
  events = Events([Broken(io.StringIO()), Broken(io.StringIO()), Console(stream)])
  events.scalars(scalars(1, loss=1.0))
  assert (
    stream.getvalue().splitlines()
    == ["Broken failed and gets no more events: [Errno 28] No space left on device"] * 2
  )


def test_crc32c_of_the_published_test_vectors():
  """RFC 3720, appendix B.4, and the check value of the CRC catalogue."""
  assert crc32c(bytes(32)) == 0x8A9136AA
  assert crc32c(b"\xff" * 32) == 0x62A8AB43
  assert crc32c(bytes(range(32))) == 0x46DD794E
  assert crc32c(b"123456789") == 0xE3069283


def test_tensorboard_reads_the_scalars_back(tmp_path):
  event_pb2 = pytest.importorskip(
    "tensorboard.compat.proto.event_pb2", reason="needs tensorboard to read the files"
  )
  sink = TensorBoard(tmp_path)
  sink.rewind("prompt", 20)
  sink.scalars(scalars(21, loss=0.25, accuracy=0.5))
  sink.scalars(scalars(300, loss=-2.0))
  sink.scalars(scalars(300, kind="validation", accuracy=1.0))
  sink.close()
  (path,) = (tmp_path / "prompt" / "train").iterdir()
  content, events = path.read_bytes(), []
  while content:
    (length,) = struct.unpack("<Q", content[:8])
    events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
    content = content[16 + length :]
  assert events[0].file_version == "brain.Event:2"
  assert (events[1].session_log.status, events[1].step) == (event_pb2.SessionLog.START, 21)
  found = [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in events[2:]]
  assert found == [(21, {"loss": 0.25, "accuracy": 0.5}), (300, {"loss": -2.0})]
  assert len(list((tmp_path / "prompt" / "validation").iterdir())) == 1


def test_tensorboard_itself_loads_the_file(tmp_path):
  pytest.importorskip("tensorboard", reason="needs tensorboard to read the files")
  from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

  sink = TensorBoard(tmp_path)
  sink.scalars(scalars(21, loss=0.25))
  sink.close()
  (path,) = (tmp_path / "prompt" / "train").iterdir()
  reader = PyRecordReader_New(str(path).encode())  # checks both checksums of each record
  reader.GetNext()
  reader.GetNext()
  with pytest.raises(Exception, match="No more events"):
    reader.GetNext()


def test_damaged_lines_of_metrics_are_removed_and_counted(tmp_path):
  path, told = tmp_path / "metrics.jsonl", []
  sink = JsonLines(path, report=told.append)
  for step in (1, 2, 3):
    sink.scalars(scalars(step, stage="a", loss=0.5))
  sink.close()
  first, second, third = path.read_bytes().splitlines(keepends=True)
  bad = b'[]\n7\n\xff\xfe\n{"stage": 3}\n' + second[:9] + b"\n"
  path.write_bytes(first + bad + "\u2028".encode() + b"\n" + third + second[:20])
  sink = JsonLines(path, report=told.append)
  sink.rewind("a", 2)
  assert path.read_bytes() == first
  (line,) = told  # what a kill tore at the end is no damage
  assert f"{path}: 6 of 8 lines cannot be read" in line
  sink.scalars(scalars(2, stage="a", loss=0.5))
  sink.close()
  assert path.read_bytes().count(b"\n") == 2
