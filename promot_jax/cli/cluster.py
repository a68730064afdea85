"""Joins the processes of a run over several hosts, before any of them uses its devices.

Who takes part is said by flags, by the environment, or is found out: on a Cloud TPU slice, under
SLURM and under Open MPI the processes find each other.  A process that belongs to no cluster is left
alone, at no cost.
"""

import argparse
import glob
import importlib.util
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from promot_jax import signals
from promot_jax.errors import ConfigError, PeerLost

T = TypeVar("T")

_TPU_CHIPS = ("/dev/accel*", "/dev/vfio/[0-9]*")
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_LISTS_OF_TPU_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")  # set on GKE
_MARGIN_SECONDS = 60  # JAX's own limit, behind ours: it ends the process without a sentence
_SIGNS_OF_A_LOST_PEER = ("gloo", "connection closed by peer", "coordination service", "heartbeat")


def connect(values: argparse.Namespace) -> None:
  """Joins the cluster that flags and environment describe, if they describe one.

  Raises:
    ConfigError: flags that contradict each other, or processes that cannot be reached.
  """
  if processes() > 1:  # has joined before
    return
  arguments = _given(values, os.environ)
  if arguments is None:
    return
  import jax

  # Before the wait, which may be long: else a missing host looks like a command that hangs.
  if not values.quiet and arguments.get("process_id", 0) == 0 and "num_processes" in arguments:
    print(
      f"hosts     process 0 of {arguments['num_processes']} waits at"
      f" {arguments['coordinator_address']} for the others, at most {values.peer_wait_seconds} s",
      file=sys.stderr,
    )
  # JAX would catch SIGTERM for its own protocol; `signals.py` does, also for one process.
  jax.config.update("jax_enable_preemption_service", False)
  waited = values.peer_wait_seconds
  # JAX waits in C++, where no exception reaches it: a thread ends the process from outside.
  deadline = threading.Timer(waited, _give_up, (arguments, waited))
  deadline.daemon = True
  deadline.start()
  try:
    jax.distributed.initialize(
      initialization_timeout=waited + _MARGIN_SECONDS,
      heartbeat_timeout_seconds=values.heartbeat_seconds,
      **arguments,
    )
  except Exception as error:
    if not arguments and "should be defined" in str(error):
      return  # a TPU machine without anything that tells of others
    raise ConfigError(
      f"the processes of this run could not be joined ({_first_line(error)}). Start the same command"
      " on every host, or pass --process_count=1 to run on this one alone."
    ) from error
  finally:
    deadline.cancel()
  signals.current().at_once = False  # the others learn of a signal with the next step
  _keep_stdout_clean()


def is_named(values: argparse.Namespace) -> bool:
  """Whether flags or environment describe a run of several processes; reads nothing else.

  Raises:
    ConfigError: as `connect`.
  """
  return hasattr(values, "peer_wait_seconds") and _given(values, os.environ) is not None


def _give_up(arguments: Mapping, seconds: int) -> None:
  """Ends a process whose peers did not come, before JAX's C++ does it without a sentence."""
  count, number = arguments.get("num_processes"), arguments.get("process_id")
  address = arguments.get("coordinator_address")
  # Process 0 is the one that can be asked: it is missing, or some of the others are.
  if number and address and not _listens(address):
    missing = f"process 0 of {count} at {address}, where nobody listens"
  elif number is None:
    missing = "the other processes of this run"
  else:
    others = [str(each) for each in range(count or 2) if each != number]
    shown = ", ".join(others[:8]) + ("" if len(others) <= 8 else ", ...")
    one = "process" if len(others) == 1 else "one or more of the processes"
    missing = f"{one} {shown} of {count} at {address}"
  text = (
    f"ERROR  waited {seconds} s for {missing}. Start the same command on every host within that time,"
    " raise --peer_wait_seconds, or pass --process_count=1 to run on this host alone.\n"
    f"       (exit {PeerLost.exit_code}, process {number or 0})\n"
  )
  try:
    # Straight to the descriptor: os._exit flushes none of Python's buffers.
    os.write(2, text.encode())
  finally:
    os._exit(PeerLost.exit_code)


def _listens(address: str) -> bool:
  host, port = address.rsplit(":", 1)
  try:
    socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    return True
  except OSError:
    return False


def processes() -> int:
  """Number of processes that were joined; 1 for a process that is alone."""
  jax = sys.modules.get("jax")
  return jax.process_count() if jax is not None and jax.distributed.is_initialized() else 1


def number() -> int:
  """Which of the joined processes this is; 0 for a process that is alone."""
  return sys.modules["jax"].process_index() if processes() > 1 else 0


def together(call: Callable[[], T]) -> T:
  """`hosts.together`, without importing JAX for a process that is alone."""
  if processes() == 1:
    return call()
  from promot_jax import hosts

  return hosts.together(call)


def peer_lost(error: Exception) -> PeerLost | None:
  """What to say about an error that means that another process has ended; None for others."""
  text = str(error).lower()
  if processes() == 1 or not any(sign in text for sign in _SIGNS_OF_A_LOST_PEER):
    return None
  return PeerLost(
    f"another process of this run has ended ({_first_line(error)}). Stop the others and start the"
    " same command on all hosts again: it goes on from the newest checkpoint."
  )


def _given(values: argparse.Namespace, environment: Mapping[str, str]) -> dict | None:
  """Arguments of jax.distributed.initialize; empty: JAX finds them; None: a process alone."""
  address = values.coordinator_address or environment.get("JAX_COORDINATOR_ADDRESS")
  count = _number("--process_count", values.process_count, environment.get("JAX_NUM_PROCESSES"))
  process = _number("--process_id", values.process_id, environment.get("JAX_PROCESS_ID"))
  # Also where a cluster would be found: --process_count=1 takes one host out of it.
  if count == 1:
    return None
  # What only the environment says is another program's as much: it is no mistake without an
  # address.
  if not address and (values.process_count is not None or values.process_id is not None):
    raise ConfigError(
      "--process_count and --process_id need --coordinator_address=HOST:PORT, where process 0 listens."
    )
  if not address:
    return {} if _is_found_out(environment) else None
  host, _, port = address.rpartition(":")
  if not host or not port.isdecimal():
    raise ConfigError(f"--coordinator_address={address} has no port; write HOST:PORT.")
  if not (port.isascii() and len(port) < 6 and 1 <= int(port) <= 65535):
    raise ConfigError(f"--coordinator_address={address}: a port is a number from 1 to 65535.")
  # The address alone is taken over where the cluster tells the rest.
  if count is None and process is None and _is_found_out(environment):
    return {"coordinator_address": address}
  if count is None or process is None:
    raise ConfigError(
      f"--coordinator_address={address} also needs --process_count=N and, different on every host,"
      " --process_id=0 to N-1."
    )
  if not 0 <= process < count:
    raise ConfigError(
      f"--process_id={process} must be at least 0 and below --process_count={count}."
    )
  if process == 0:
    _check_port(address)
  return {"coordinator_address": address, "num_processes": count, "process_id": process}


def _is_found_out(environment: Mapping[str, str]) -> bool:
  """Whether JAX can find out about the other processes, and there may be any."""
  # JAX's own marks of SLURM; a job of one process has nobody to join.
  if all(name in environment for name in _SLURM):
    return int(environment["SLURM_NTASKS"]) > 1
  if "OMPI_MCA_orte_hnp_uri" in environment:
    return int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
  platforms = environment.get("JAX_PLATFORMS", "")
  # A TPU machine is asked about others only if this process is going to use its chips.
  if platforms and "tpu" not in platforms:
    return False
  if not any(glob.glob(pattern) for pattern in _TPU_CHIPS):
    return False
  if importlib.util.find_spec("libtpu") is None:
    return False
  for name in _LISTS_OF_TPU_HOSTS:
    if name in environment:
      return "," in environment[name]
  return "TPU_SKIP_MDS_QUERY" not in environment  # the machine's metadata tell


def _keep_stdout_clean() -> None:
  """Sends what C++ libraries say about their connections to stderr; results stay alone on stdout."""
  sys.stdout.flush()
  # Gloo's C++ writes to descriptor 1 whatever Python has there: it gets stderr, and Python what
  # was 1.
  ours = os.dup(1)
  os.dup2(2, 1)
  sys.stdout = os.fdopen(ours, "w", buffering=1)


def _number(flag: str, given: int | None, from_environment: str | None) -> int | None:
  if given is not None or not from_environment:
    return given
  try:
    return int(from_environment)
  except ValueError:
    raise ConfigError(
      f"{flag} is taken from the environment, where it is '{from_environment}'; it must be a number."
    ) from None


def _check_port(address: str) -> None:
  """Whether process 0 can listen: JAX may end without a sentence where it cannot."""
  port = address.rsplit(":", 1)[1]
  with socket.socket() as probe:
    # Connections of a former run that are still closing do not count as a port that is taken.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(("", int(port)))
    except OSError as error:
      raise ConfigError(
        f"--coordinator_address={address}: process 0 cannot listen on port {port}"
        f" ({error.strerror}); choose another one for all processes."
      ) from None


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0][:200]
