"""Checkpoints are whole or absent, checked byte by byte, and kept by the stated policy."""

import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from promot_jax import errors
from promot_jax.checkpoints import disk
from promot_jax.checkpoints.store import Keep, Store


def leaves_of(step: int) -> dict[str, np.ndarray]:
  random = np.random.default_rng(step)
  return {
    "trainable/encoder/prompt/prompt": random.normal(size=(3, 8)).astype(np.float32),
    "trainable/layers/0/kernel": np.asarray(jnp.asarray(random.normal(size=(8, 5)), jnp.bfloat16)),
    "opt_state/0/count": np.int32(step),
    "step": np.int32(step),
  }


def make_store(folder: pathlib.Path, **options) -> tuple[Store, list[str]]:
  lines: list[str] = []
  return Store(folder, report=lines.append, **options), lines


def saved_store(folder: pathlib.Path, steps: tuple[int, ...]) -> None:
  store, _ = make_store(folder)
  for step in steps:
    store.save(step, leaves_of(step), {"note": f"step {step}"})
  store.close()


def assert_same(found: dict, expected: dict) -> None:
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    assert found[name].dtype == value.dtype, name
    np.testing.assert_array_equal(np.asarray(found[name]), value, err_msg=name)


def data_file(step_directory: pathlib.Path) -> pathlib.Path:
  """The largest array file."""
  files = [path for path in (step_directory / "arrays").rglob("*") if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def flip_byte(path: pathlib.Path, position: int) -> None:
  content = bytearray(path.read_bytes())
  content[position] ^= 0x10
  path.write_bytes(content)


def test_restored_arrays_and_metadata_equal_the_saved_ones(tmp_path):
  saved_store(tmp_path, (4, 7))
  store, lines = make_store(tmp_path)
  checkpoint = store.restore(4)
  assert_same(checkpoint.leaves, leaves_of(4))
  assert checkpoint.metadata == {"note": "step 4"}
  assert checkpoint.step == 4
  assert store.steps() == [4, 7]
  assert store.restore_latest().step == 7
  assert lines == []


def test_a_part_of_the_arrays_is_read_by_prefix(tmp_path):
  saved_store(tmp_path, (4,))
  store, _ = make_store(tmp_path)
  found = store.restore(4, prefix="trainable/").leaves
  expected = {k: v for k, v in leaves_of(4).items() if k.startswith("trainable/")}
  assert_same(found, expected)
  assert_same(store.restore(4, expected, prefix="trainable/").leaves, expected)


def test_arrays_restored_onto_another_mesh_are_equal(tmp_path):
  devices = np.array(jax.devices())
  if len(devices) < 8:
    pytest.skip("needs 8 simulated devices")
  value = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
  one = NamedSharding(
    Mesh(devices.reshape(4, 2), ("data", "model")), PartitionSpec("data", "model")
  )
  store, _ = make_store(tmp_path)
  store.save(
    1,
    {"w": jax.device_put(value, one), "n": jax.device_put(np.int32(3), one.mesh.devices[0, 0])},
    {},
  )
  for shape, spec in (((1, 4), (None, "model")), ((2, 1), ("data",)), ((1, 1), ())):
    mesh = Mesh(devices[: shape[0] * shape[1]].reshape(shape), ("data", "model"))
    wanted = NamedSharding(mesh, PartitionSpec(*spec))
    everywhere = NamedSharding(mesh, PartitionSpec())
    abstract = {
      "w": jax.ShapeDtypeStruct((8, 12), np.float32, sharding=wanted),
      "n": jax.ShapeDtypeStruct((), np.int32, sharding=everywhere),
    }
    found = store.restore(1, abstract).leaves
    assert found["w"].sharding == wanted
    assert found["n"].sharding == everywhere
    np.testing.assert_array_equal(np.asarray(found["w"]), value)
    assert int(found["n"]) == 3


def test_other_names_shapes_or_types_are_refused_with_a_table(tmp_path):
  saved_store(tmp_path, (4,))
  store, _ = make_store(tmp_path)
  abstract = {name: np.zeros_like(value) for name, value in leaves_of(4).items()}
  del abstract["step"]
  abstract["trainable/encoder/prompt/prompt"] = np.zeros((6, 8), np.float32)
  abstract["trainable/layers/1/kernel"] = np.zeros((8, 5), np.float32)
  with pytest.raises(errors.ConfigError) as caught:
    store.restore_latest(abstract)
  rows = [line.split() for line in str(caught.value).splitlines()[1:]]
  assert rows == [
    ["name", "expected", "found"],
    ["step", "-", "int32[]"],
    ["trainable/encoder/prompt/prompt", "float32[6,8]", "float32[3,8]"],
    ["trainable/layers/1/kernel", "float32[8,5]", "-"],
  ]
  assert store.steps() == [4]


def test_one_flipped_byte_anywhere_is_detected(tmp_path):
  saved_store(tmp_path, (4,))
  directory = tmp_path / "checkpoint_4"
  files = sorted(path for path in directory.rglob("*") if path.is_file())
  assert len(files) > 4
  random = np.random.default_rng(0)
  for path in files:
    original = path.read_bytes()
    if not original:
      continue
    flip_byte(path, int(random.integers(len(original))))
    store, _ = make_store(tmp_path)
    with pytest.raises(errors.DamagedCheckpoint):
      store.restore(4)
    path.write_bytes(original)
  store, _ = make_store(tmp_path)
  assert_same(store.restore(4).leaves, leaves_of(4))


@pytest.mark.parametrize(
  "damage", ["flip", "cut", "delete", "cut manifest", "delete manifest", "cut metadata", "empty"]
)
def test_damage_of_the_newest_step_falls_back_loudly_to_the_older_one(tmp_path, damage):
  saved_store(tmp_path, (100, 150, 200))
  newest = tmp_path / "checkpoint_200"
  target = {
    "cut manifest": newest / "manifest.json",
    "delete manifest": newest / "manifest.json",
    "cut metadata": newest / "metadata.json",
  }.get(damage, data_file(newest))
  if damage == "flip":
    flip_byte(target, 20)
  elif damage.startswith("cut"):
    target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
  elif damage.startswith("delete"):
    target.unlink()
  else:
    for path in sorted(newest.rglob("*"), reverse=True):
      path.rmdir() if path.is_dir() else path.unlink()
  store, lines = make_store(tmp_path)
  checkpoint = store.restore_latest()
  assert checkpoint.step == 150
  assert_same(checkpoint.leaves, leaves_of(150))
  assert store.steps() == [100, 150]
  assert (tmp_path / "checkpoint_200.damaged").is_dir()
  assert len(lines) == 1
  assert "checkpoint_200 is damaged" in lines[0]
  assert "using step 150" in lines[0]
  store.save(200, leaves_of(200), {})
  assert store.restore_latest().step == 200


def test_an_explicit_damaged_step_is_an_error(tmp_path):
  saved_store(tmp_path, (100, 150))
  flip_byte(data_file(tmp_path / "checkpoint_150"), 9)
  store, _ = make_store(tmp_path)
  with pytest.raises(errors.DamagedCheckpoint, match=r"another SHA-256.*Other steps there: 100"):
    store.restore(150)
  with pytest.raises(errors.DamagedCheckpoint, match="does not exist"):
    store.restore(120)
  assert (tmp_path / "checkpoint_150").is_dir()


def test_all_damaged_is_never_a_start_from_the_beginning(tmp_path):
  saved_store(tmp_path, (100, 150))
  for step in (100, 150):
    flip_byte(data_file(tmp_path / f"checkpoint_{step}"), 9)
  for _ in range(2):  # repeating the command changes nothing
    store, _ = make_store(tmp_path)
    with pytest.raises(errors.DamagedCheckpoint, match="No sound checkpoint is left"):
      store.restore_latest()
  for step in (100, 150):
    (tmp_path / f"checkpoint_{step}").rename(tmp_path / f"checkpoint_{step}.damaged")
  with pytest.raises(errors.DamagedCheckpoint, match="No sound checkpoint is left"):
    make_store(tmp_path)[0].restore_latest()


def test_nothing_saved_restores_nothing(tmp_path):
  store, _ = make_store(tmp_path / "absent")
  assert store.restore_latest() is None
  assert store.steps() == []
  assert store.latest() is None
  assert not (tmp_path / "absent").exists()


def test_unfinished_directories_are_ignored_said_and_removed_by_the_next_save(tmp_path):
  saved_store(tmp_path, (100,))
  (tmp_path / "checkpoint_150.tmp-4242").mkdir()
  (tmp_path / "checkpoint_50.deleted-4242").mkdir()
  store, lines = make_store(tmp_path)
  assert store.restore_latest().step == 100
  assert [line for line in lines if "checkpoint_150.tmp-4242 is unfinished and ignored" in line]
  store.save(150, leaves_of(150), {})
  assert store.unfinished() == []
  assert store.steps() == [100, 150]


def test_a_checkpoint_of_another_library_is_refused_and_left_alone(tmp_path):
  (tmp_path / "checkpoint_1000000" / "state").mkdir(parents=True)
  with pytest.raises(errors.ConfigError, match="another library"):
    make_store(tmp_path)[0].restore_latest()
  assert (tmp_path / "checkpoint_1000000" / "state").is_dir()


def test_the_last_ones_and_the_best_are_kept(tmp_path):
  store, _ = make_store(tmp_path, keep=Keep(last=2, mode="max", small_bytes=0))
  for step, score in ((10, 0.2), (20, 0.7), (30, 0.7), (40, 0.1), (50, 0.3)):
    store.save(step, leaves_of(step), {})
    store.record_score(step, score, {"accuracy": score})
  assert store.best() == 20  # the earliest of a tie
  assert store.steps() == [20, 40, 50]
  store.save(60, leaves_of(60), {})
  store.record_score(60, 0.9, {"accuracy": 0.9})
  assert store.steps() == [50, 60]
  assert store.score(60) == {"score": 0.9, "metrics": {"accuracy": 0.9}}


def test_the_lowest_score_is_the_best_where_asked(tmp_path):
  store, _ = make_store(tmp_path, keep=Keep(last=1, mode="min", small_bytes=0))
  for step, score in ((10, 0.4), (20, 0.1), (30, 0.5)):
    store.save(step, leaves_of(step), {})
    store.record_score(step, score, {"loss": score})
  assert store.steps() == [20, 30]


def test_small_checkpoints_are_never_deleted_unless_told(tmp_path):
  store, _ = make_store(tmp_path, keep=Keep(last=1))
  for step in range(5):
    store.save(step, leaves_of(step), {})
  assert store.steps() == [0, 1, 2, 3, 4]


def test_a_damaged_score_counts_as_not_evaluated(tmp_path):
  saved_store(tmp_path, (10,))
  store, lines = make_store(tmp_path)
  store.record_score(10, 0.5, {})
  (tmp_path / "checkpoint_10" / "score.json").write_text("{")
  assert store.best() is None
  assert "score.json is empty or cut off" in lines[-1]
  assert store.restore_latest().step == 10


def test_the_copy_is_taken_before_save_returns(tmp_path):
  value = np.ones((300, 400), np.float32)
  store, lines = make_store(tmp_path, background_bytes=0)
  store.save(1, {"w": value}, {})
  value[:] = 7
  store.wait()
  assert np.all(store.restore(1).leaves["w"] == 1)
  assert [line for line in lines if line.startswith("saved step 1 (480 kB")]


def test_saved_is_said_only_after_the_commit(tmp_path):
  store, _ = make_store(tmp_path, background_bytes=0)
  seen = []
  store.report = lambda line: seen.append((line, store.steps()))
  for step in (1, 2):
    store.save(step, leaves_of(step), {})
  store.close()
  assert [steps for _, steps in seen] == [[1], [1, 2]]


def test_the_error_of_a_background_write_surfaces_at_the_next_poll(tmp_path):
  store, _ = make_store(tmp_path / "run", background_bytes=0)
  store.save(1, leaves_of(1), {})
  store.wait()
  (tmp_path / "run").rename(tmp_path / "moved")
  (tmp_path / "run").write_text("in the way")
  store.save(2, leaves_of(2), {})
  while store.writing:
    pass
  with pytest.raises(errors.CannotWrite, match="Could not save checkpoint 2"):
    store.poll()
  store.poll()  # reported once


def test_saving_a_step_twice_is_refused(tmp_path):
  saved_store(tmp_path, (4,))
  store, _ = make_store(tmp_path)
  with pytest.raises(ValueError, match="exists already"):
    store.save(4, leaves_of(4), {})


def test_a_path_below_a_file_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.CannotWrite, match="Not a directory"):
    make_store(tmp_path / "file" / "run")[0].check_writable()


def test_too_little_space_is_said_with_sizes_before_training(tmp_path):
  with pytest.raises(errors.CannotWrite, match=r"needs 1000 TB but .* free"):
    make_store(tmp_path)[0].check_writable(10**15)


def test_the_room_for_a_small_step_includes_the_files_around_its_values(tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=24_600))
  with pytest.raises(errors.CannotWrite, match=r"needs 147 kB \(values 16.4 kB.* has 24.6 kB free"):
    make_store(tmp_path)[0].check_writable(16_400)


def test_a_step_takes_no_more_room_than_is_asked_for(tmp_path):
  store, _ = make_store(tmp_path)
  store.save(1, {"w": np.ones((2048,), np.float32), "v": np.ones((2048,), np.float32)}, {})
  store.wait()
  used = sum(path.stat().st_blocks * 512 for path in store.path(1).rglob("*"))
  assert 2 * 8192 < used <= disk.step_size(2 * 8192)


def test_a_url_is_refused():
  with pytest.raises(errors.ConfigError, match="gs://"):
    Store("gs://bucket/run")


FULL = """
import resource, sys, numpy as np
if len(sys.argv) > 2:
  resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
from promot_jax import errors
from promot_jax.checkpoints.store import Keep, Store
store = Store(sys.argv[1], report=print, keep=Keep(last=None))
random = np.random.default_rng(0)
try:
  for step in range(1, 20):
    size = 10 if step == 1 else 300_000
    store.save(step, {"w": random.normal(size=size).astype(np.float32)}, {})
except errors.CannotWrite as error:
  print("REFUSED", error)
  print("LEFT", store.steps(), store.unfinished(), [store.verify(s) for s in store.steps()])
  sys.exit(error.exit_code)
"""


def run_full(directory: pathlib.Path, *limit: str) -> subprocess.CompletedProcess:
  repository = pathlib.Path(__file__).resolve().parents[2]
  return subprocess.run(
    [sys.executable, "-c", FULL, str(directory), *limit],
    capture_output=True,
    text=True,
    env={**os.environ, "PYTHONPATH": str(repository), "JAX_COMPILATION_CACHE_DIR": ""},
    timeout=120,
  )


def test_a_file_size_limit_ends_with_code_73_and_the_last_good_step(tmp_path):
  done = run_full(tmp_path / "run", "400000")
  assert done.returncode == 73, done.stdout + done.stderr
  assert "Could not save checkpoint 2" in done.stdout
  assert "Last good step: 1." in done.stdout
  assert "LEFT [1] [] [[]]" in done.stdout


def test_a_full_disk_ends_with_code_73_and_leaves_older_steps_intact(tmp_path):
  disk = tmp_path / "disk"
  disk.mkdir()
  mounted = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True
  )
  if mounted.returncode:
    pytest.skip("mounting a small file system needs root")
  try:
    done = run_full(disk / "run")
    assert done.returncode == 73, done.stdout + done.stderr
    assert (
      "No space left on device (1.33 MB (values 1.2 MB, the files around them 131 kB) needed,"
      in done.stdout
    )
    assert "Last good step: 4." in done.stdout
    assert "LEFT [1, 2, 3, 4] [] [[], [], [], []]" in done.stdout
  finally:
    subprocess.run(["umount", str(disk)], check=True)
