"""Who else could write where things are kept that are trusted later."""

import os
import stat

import pytest

from promot_jax import cache_folders
from promot_jax.data import cache
from promot_jax.errors import ConfigError

ROOT = os.getuid() == 0
OTHER = 54321


@pytest.fixture(autouse=True)
def no_more_than_asked():
  before = os.umask(0o022)
  yield
  os.umask(before)


def test_a_new_folder_is_private_and_so_is_what_is_made_above_it(tmp_path):
  folder = tmp_path / "a" / "b"
  cache_folders.make_private(folder, what="cache")
  assert [stat.S_IMODE(place.stat().st_mode) for place in (folder, folder.parent)] == [0o700] * 2
  assert cache_folders.weakness(folder) == ""


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o1775, 0o702])
def test_a_folder_that_others_can_write_is_refused_sticky_or_not(tmp_path, mode):
  folder = tmp_path / "open"
  folder.mkdir()
  if mode & stat.S_IWGRP and ROOT:
    os.chown(folder, 0, OTHER)
  folder.chmod(mode)
  if mode & stat.S_IWGRP and not mode & stat.S_IWOTH and not ROOT:
    pytest.skip("only root can give a folder to another group")
  with pytest.raises(ConfigError, match=r"writable by .*Run chmod g.*-w|go-w"):
    cache_folders.make_private(folder, what="cache")


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o555])
def test_a_folder_that_others_can_only_read_is_taken(tmp_path, mode):
  folder = tmp_path / "read"
  folder.mkdir()
  folder.chmod(mode)
  assert cache_folders.weakness(folder) == ""


@pytest.mark.skipif(not ROOT, reason="only root can give a folder away")
@pytest.mark.parametrize("where", ["itself", "above"])
def test_a_folder_of_another_user_is_refused(tmp_path, where):
  folder = tmp_path / "theirs" / "cache"
  folder.mkdir(parents=True)
  os.chown(folder if where == "itself" else folder.parent, OTHER, OTHER)
  with pytest.raises(ConfigError, match=f"belongs to user {OTHER}"):
    cache_folders.make_private(folder, what="cache")


def test_above_a_sticky_bit_is_enough_and_nothing_else(tmp_path):
  above = tmp_path / "shared"
  folder = above / "mine"
  folder.mkdir(parents=True)
  above.chmod(0o1777)
  assert cache_folders.weakness(folder) == ""
  above.chmod(0o777)
  assert f"{above} is writable by everybody" in cache_folders.weakness(folder)


def test_links_are_followed_and_what_they_pass_counts(tmp_path):
  target, between = tmp_path / "target", tmp_path / "between"
  target.mkdir()
  between.mkdir()
  (between / "second").symlink_to("../target")
  (tmp_path / "first").symlink_to(between / "second")
  assert cache_folders.weakness(tmp_path / "first") == ""
  between.chmod(0o777)
  assert f"{between} is writable" in cache_folders.weakness(tmp_path / "first")
  between.chmod(0o755)
  target.chmod(0o1777)
  assert f"{target} is writable" in cache_folders.weakness(tmp_path / "first")


@pytest.mark.skipif(not ROOT, reason="only root can give a link away")
def test_a_link_of_another_user_is_refused(tmp_path):
  (tmp_path / "target").mkdir()
  link = tmp_path / "link"
  link.symlink_to(tmp_path / "target")
  os.chown(link, OTHER, OTHER, follow_symlinks=False)
  assert f"the link {link} belongs to user {OTHER}" in cache_folders.weakness(link)


def test_links_in_a_circle_are_no_endless_search(tmp_path):
  (tmp_path / "a").symlink_to("b")
  (tmp_path / "b").symlink_to("a")
  with pytest.raises(OSError, match="too many links"):
    cache_folders.weakness(tmp_path / "a")


@pytest.mark.parametrize("given", ["", "relative/folder"])
def test_an_empty_or_relative_cache_home_means_the_default(monkeypatch, tmp_path, given):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.setenv("XDG_CACHE_HOME", given)
  assert cache_folders.default("xla") == tmp_path / ".cache" / "promot_jax" / "xla"


def test_examples_are_not_cached_where_others_can_write(monkeypatch, tmp_path, caplog):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  folder = cache.default_dir()
  assert folder == tmp_path / "promot_jax" / "examples"
  folder.chmod(0o1777)
  assert cache.default_dir() is None
  assert "not cached" in caplog.text
