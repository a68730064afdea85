"""What libraries write while data are read: notes are kept off the screen, errors are shown."""

import os

import pytest

from promot_jax.data.quiet import quiet

NOTES = (
  b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
  b"I0000 00:00:1795866306.249120    4864 port.cc:153] oneDNN custom operations are on.\n"
)
ERROR = b"E0000 00:00:1795866306.250370    4864 reader.cc:31] A record is corrupted.\n"


def test_a_failure_shows_errors_of_libraries_and_none_of_their_notes(capfd):
  with pytest.raises(ValueError), quiet():
    os.write(2, NOTES + ERROR + b"Some other words\n")
    raise ValueError
  assert capfd.readouterr().err == ERROR.decode() + "Some other words\n"
