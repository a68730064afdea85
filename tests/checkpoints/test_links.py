"""Nothing outside of a model directory is changed through the links in it."""

import os

import pytest

from promot_jax import errors
from promot_jax.checkpoints import links
from promot_jax.checkpoints.lease import FILE, Lease

PLACES = [".lease", "stages", "stages/model", "stages/model/checkpoint_3", "train/metrics.jsonl"]


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


def test_a_pipe_is_refused(tmp_path):
  os.mkfifo(tmp_path / "metrics.jsonl")
  with pytest.raises(errors.ConfigError, match="neither a file nor a folder"):
    Lease(tmp_path)


def test_links_that_stay_inside_and_a_directory_that_is_one_are_the_users_business(tmp_path):
  run = tmp_path / "disk" / "run"
  (run / "stages").mkdir(parents=True)
  (run / "newest").symlink_to("stages")
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
