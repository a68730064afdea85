"""Nothing outside of a model directory is changed through the links in it."""

import os

import pytest

from promot_jax import errors
from promot_jax.checkpoints import links
from promot_jax.checkpoints.lease import FILE, Lease
from promot_jax.checkpoints.store import Store
from promot_jax.cli import config_record, gin_config
from promot_jax.training import events

PLACES = ["stages", "stages/model", "stages/model/checkpoint_3", "train/metrics.jsonl"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["a file", "a folder", "nothing"])
def test_a_link_that_leads_out_is_refused_before_anything_is_written(tmp_path, place, kind):
  run, outside = tmp_path / "run", tmp_path / "outside"
  if kind == "a file":
    outside.write_text("precious")
  elif kind == "a folder":
    outside.mkdir()
  (run / place).parent.mkdir(parents=True)
  (run / place).symlink_to(outside)
  with pytest.raises(errors.ConfigError, match=r"is a link to .*outside.* Replace the link"):
    Lease(run)
  assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
    ["run"] + ["outside"] * (kind != "nothing")
  )
  if kind == "a file":
    assert outside.read_text() == "precious"


@pytest.mark.parametrize("kind", ["a file", "nothing"])
def test_a_link_in_place_of_the_lease_is_not_followed(tmp_path, kind):
  outside = tmp_path / "outside"
  if kind == "a file":
    outside.write_text("precious")
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / FILE).symlink_to(outside)
  with pytest.raises(errors.CannotWrite):
    Lease(tmp_path / "run")
  assert outside.exists() == (kind == "a file")
  assert kind == "nothing" or outside.read_text() == "precious"


def test_an_experiment_that_lies_outside_of_its_comparison_is_refused(tmp_path):
  (tmp_path / "outside").mkdir()
  (tmp_path / "run" / "inside").mkdir(parents=True)
  (tmp_path / "run" / "promot").symlink_to(tmp_path / "outside")
  with pytest.raises(errors.ConfigError, match="is a link to"):
    Lease(tmp_path / "run" / "promot", whole=tmp_path / "run")
  assert not list((tmp_path / "outside").iterdir())
  Lease(tmp_path / "run" / "inside", whole=tmp_path / "run").release()
  Lease(tmp_path / "run" / "promot").release()  # named by the user


def test_what_is_no_part_of_a_run_is_not_looked_at(tmp_path):
  (tmp_path / ".venv").mkdir()
  (tmp_path / ".venv" / "python").symlink_to("/usr/bin/env")
  Lease(tmp_path).release()


def test_a_pipe_is_refused(tmp_path):
  (tmp_path / "train").mkdir()
  os.mkfifo(tmp_path / "train" / "metrics.jsonl")
  with pytest.raises(errors.ConfigError, match="neither a file nor a folder"):
    Lease(tmp_path)


def test_links_that_stay_inside_and_a_directory_that_is_one_are_the_users_business(tmp_path):
  run = tmp_path / "disk" / "run"
  (run / "stages").mkdir(parents=True)
  (run / "stages" / "newest").symlink_to("model")
  (tmp_path / "link").symlink_to(run)
  with Lease(tmp_path / "link"):
    assert (run / FILE).is_file()
  links.require_inside(tmp_path / "absent")


def test_the_lease_of_one_file_is_not_taken_through_a_link(tmp_path):
  (tmp_path / "precious").write_text("precious")
  (tmp_path / ".answers.lease").symlink_to(tmp_path / "precious")
  with pytest.raises(errors.CannotWrite):
    Lease(tmp_path, file=".answers.lease", what="--output=answers")
  assert (tmp_path / "precious").read_text() == "precious"


def test_links_under_the_temporary_names_are_not_followed(tmp_path):
  """An archive may have one for every number of a process."""
  precious = tmp_path / "precious"
  precious.write_text("precious")
  run = tmp_path / "run"
  run.mkdir()
  (run / f".probe-{os.getpid()}").symlink_to(precious)
  Store(run).check_writable()
  for name in (".a.json.tmp", ".config.gin.tmp", ".config.flat.txt.tmp"):
    (run / f"{name}-{os.getpid()}").symlink_to(precious)
  Store(run).write_json("a.json", {"a": 1})
  (run / "recipe.gin").write_text("from __gin__ import dynamic_registration\nEXPERIMENT = 3\n")
  scanned = gin_config.read([str(run / "recipe.gin")], [])
  gin_config.build(scanned)
  config_record.write(run, scanned, command=[], changed=[])
  assert precious.read_text() == "precious"
  assert not (run / config_record.FLAT).is_symlink()
  stream = events.JsonLines(run / "metrics.jsonl")
  (run / f".metrics.jsonl.tmp-{os.getpid()}").symlink_to(precious)
  (run / "metrics.jsonl").write_bytes(b"torn")
  stream.rewind("model", 3)
  stream.close()
  assert precious.read_text() == "precious"
