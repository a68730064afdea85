"""A data set that was prepared again is told from the one before, without TensorFlow."""

import os
import subprocess
import sys

import pytest

from tasks import reading


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Where a prepared version of SuperGLUE's RTE lies."""
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  made = tmp_path / "super_glue" / "rte" / "1.0.2"
  made.mkdir(parents=True)
  (made / "dataset_info.json").write_text(
    '{"splits": [{"name": "train", "shardLengths": ["250"]}]}'
  )
  (made / "super_glue-train.tfrecord-00000-of-00001").write_bytes(b"records")
  return made


def test_every_change_of_the_prepared_files_is_seen(folder):
  seen = [reading.digest("rte_1shot.tfds.t5")]
  description = folder / "dataset_info.json"
  description.write_text(description.read_text().replace("250", "251"))  # as long as before
  seen.append(reading.digest("rte.tfds.t5"))
  records = folder / "super_glue-train.tfrecord-00000-of-00001"
  records.write_bytes(b"recordt")
  os.utime(records, ns=(5, 5))
  seen.append(reading.digest("rte.tfds.mt5"))
  (folder / "super_glue-test.tfrecord-00000-of-00001").write_bytes(b"")
  seen.append(reading.digest("rte.tfds.hf:gpt2_0123abcd"))
  assert len(set(seen)) == 4 and "" not in seen


def test_what_is_not_prepared_here_has_no_digest(folder, monkeypatch):
  assert reading.digest("rte.micro") == ""
  assert reading.digest("cb.tfds.t5") == ""
  monkeypatch.setenv("PROMOT_TFDS_RTE", "super_glue/rte:9.9.9")
  assert reading.digest("rte.tfds.t5") == ""
  monkeypatch.setenv("TFDS_DATA_DIR", "gs://bucket/tfds")
  assert reading.digest("cb.tfds.t5") == ""


def test_looking_imports_no_tensorflow():
  code = "import sys; from tasks import reading; reading.digest('rte.tfds.t5'); "
  code += "sys.exit(str({'tensorflow', 'seqio'} & set(sys.modules) or 0) != '0')"
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
