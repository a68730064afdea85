"""Which processes a command joins: flags, environment, or none."""

import argparse

import pytest

from promot_jax.cli import cluster, flags
from promot_jax.errors import ConfigError

SLURM = {
  "SLURM_JOB_ID": "7",
  "SLURM_STEP_NODELIST": "node[1-2]",
  "SLURM_NTASKS": "2",
  "SLURM_PROCID": "1",
  "SLURM_LOCALID": "0",
}


def given(environment=None, **values):
  fields = {"coordinator_address": None, "process_count": None, "process_id": None}
  return cluster._given(argparse.Namespace(**{**fields, **values}), environment or {})


def test_a_process_without_flags_and_cluster_is_alone(monkeypatch):
  monkeypatch.setattr(cluster, "_TPU_CHIPS", ())
  assert given() is None
  assert cluster.processes() == 1 and cluster.number() == 0


def test_flags_say_who_takes_part():
  arguments = given(coordinator_address="10.0.0.1:1234", process_count=3, process_id=2)
  assert arguments == {
    "coordinator_address": "10.0.0.1:1234",
    "num_processes": 3,
    "process_id": 2,
  }


def test_the_environment_says_what_flags_leave_out():
  environment = {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
  assert given(environment) == {"coordinator_address": "h:1", "num_processes": 2, "process_id": 1}
  assert given(environment, process_count=5)["num_processes"] == 5


def test_slurm_and_open_mpi_are_left_to_jax_if_there_is_more_than_one_process():
  assert given(SLURM) == {}
  assert given({**SLURM, "SLURM_NTASKS": "1"}) is None
  mpi = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}
  assert given({**mpi, "OMPI_COMM_WORLD_SIZE": "4"}) == {}
  assert given({**mpi, "OMPI_COMM_WORLD_SIZE": "1"}) is None


def test_a_tpu_slice_is_left_to_jax(monkeypatch, tmp_path):
  (tmp_path / "accel0").touch()
  monkeypatch.setattr(cluster, "_TPU_CHIPS", (str(tmp_path / "accel*"),))
  monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: object())
  assert given({"TPU_WORKER_HOSTNAMES": "a,b"}) == {}
  assert given({"TPU_WORKER_HOSTNAMES": "localhost"}) is None
  assert given({}) == {}  # a TPU VM: its metadata tell
  assert given({"TPU_SKIP_MDS_QUERY": "1"}) is None
  assert given({"JAX_PLATFORMS": "cpu"}) is None


def test_one_process_is_alone_wherever_it_runs():
  assert given(SLURM, process_count=1) is None


@pytest.mark.parametrize(
  ("values", "words"),
  [
    ({"process_count": 2, "process_id": 0}, "need --coordinator_address"),
    ({"coordinator_address": "h:1"}, "also needs --process_count"),
    ({"coordinator_address": "h", "process_count": 2, "process_id": 1}, "has no port"),
    ({"coordinator_address": "h:1", "process_count": 2, "process_id": 2}, "must be at least 0"),
  ],
)
def test_flags_that_contradict_each_other_are_refused(values, words):
  with pytest.raises(ConfigError, match=words):
    given(**values)


def test_a_number_in_the_environment_must_be_one():
  with pytest.raises(ConfigError, match="'many'; it must be a number"):
    given({"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "many"})


def test_a_port_that_is_taken_is_refused_by_the_process_that_would_listen():
  import socket

  with socket.socket() as taken:
    taken.bind(("", 0))
    taken.listen()
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(ConfigError, match="cannot listen on port"):
      given(coordinator_address=address, process_count=2, process_id=0)
    assert given(coordinator_address=address, process_count=2, process_id=1)


@pytest.mark.parametrize("command", ["train", "eval", "infer"])
def test_the_flags_exist_where_devices_are_used(command):
  needed = ["--input=x"] if command == "infer" else []
  both = [
    flags.parse([command, *needed, "--process_count=4", "--coordinator_address=h:1", name])
    for name in ("--process_id=3", "--process_index=3")  # the second is T5X's name
  ]
  assert {each.values.process_id for each in both} == {3}


def test_an_error_of_a_collective_is_called_a_lost_process(monkeypatch):
  error = ValueError("Gloo all-reduce failed: Connection closed by peer")
  assert cluster.peer_lost(error) is None  # alone: something else
  monkeypatch.setattr(cluster, "processes", lambda: 2)
  assert "start the same command on all hosts again" in str(cluster.peer_lost(error))
  assert cluster.peer_lost(KeyError("x")) is None


def test_a_process_joins_once(monkeypatch):
  monkeypatch.setattr(cluster, "processes", lambda: 2)
  monkeypatch.setattr(cluster, "_given", lambda *_: pytest.fail("it has joined before"))
  cluster.connect(argparse.Namespace(quiet=True))
