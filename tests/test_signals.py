"""What is asked of the signals by those who work; real signals to real commands are in tests/faults."""

import os
import subprocess
import sys
import textwrap

import pytest

from promot_jax import signals


def ended_by_a_signal(body: str) -> tuple[int, str]:
  """Exit code and output of a process that runs `body` with signals caught."""
  script = (
    "import os, signal, time, pathlib\nfrom promot_jax import signals\n"
    + "with signals.catch(report=None, grace_seconds=1) as stop:\n"
    + textwrap.indent(textwrap.dedent(body), "  ")
  )
  done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=os.environ
  )
  return done.returncode, done.stderr


def test_importing_signals_imports_nothing_heavy():
  # What an editable installation imports when Python starts, pathlib among it, is not ours.
  code = (
    "import sys; before = set(sys.modules); from promot_jax.cli import main;"
    " print(*set(sys.modules) - before)"
  )
  out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  found = set(out.stdout.split())
  assert "promot_jax.signals" in found
  assert not {"jax", "numpy", "argparse", "tempfile", "pathlib"} & found


def test_nothing_to_save_ends_at_once_with_the_given_code():
  code, text = ended_by_a_signal("""
    stop.nothing_to_save = True
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
  """)
  assert code == 75
  assert "SIGINT: stopped; there was nothing to save. Repeat the same command" in text


def test_the_grace_time_ends_a_process_that_does_not_ask():
  code, text = ended_by_a_signal("""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
  """)
  assert code == 75
  assert "SIGTERM: finishing the step" in text and "the grace time is over" in text


def test_what_is_half_written_is_undone_and_a_rename_is_not_divided(tmp_path):
  (tmp_path / "half").write_text("half")
  (tmp_path / "new").write_text("whole")
  code, _ = ended_by_a_signal(f"""
    stop.nothing_to_save = True
    folder = pathlib.Path({str(tmp_path)!r})
    with signals.undone_at_end((folder / "half").unlink):
      with signals.undivided():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
        (folder / "new").rename(folder / "renamed")
      time.sleep(30)
  """)
  assert code == 75
  assert [path.name for path in tmp_path.iterdir()] == ["renamed"]


def test_the_sentence_reaches_the_screen_while_stderr_is_turned_elsewhere():
  code, text = ended_by_a_signal("""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    stop.nothing_to_save = True
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
  """)
  assert code == 75 and "nothing to save" in text


def test_a_signal_after_the_end_keeps_the_code_of_the_finished_work():
  code, text = ended_by_a_signal("""
    stop.ended = 7
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
  """)
  assert (code, text) == (7, "")


def test_a_nested_use_shares_the_outer_one_and_handlers_are_given_back():
  import signal

  former = signal.getsignal(signal.SIGTERM)
  with signals.catch() as outer, signals.catch(at_once=False) as inner:
    assert inner is outer is signals.current()
    assert not outer.at_once
  assert signal.getsignal(signal.SIGTERM) is former
  assert signals.current().requested is None


@pytest.mark.parametrize("error", [None, ValueError("x")])
def test_nothing_is_undone_while_no_signal_comes(error):
  calls = []
  try:
    with signals.undone_at_end(lambda: calls.append(1)):
      if error:
        raise error
  except ValueError:
    pass
  assert not calls and not signals._undo
