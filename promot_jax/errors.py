"""Failures that a user can act on, each with the exit code the command line returns.

Raise these where the cause is known.  The message is one sentence that names the thing, its value,
what was expected and the next step; the command line prints it without a traceback.
"""


class PromotError(Exception):
  """Base of every failure that is reported to the user as one sentence.

  `of_all`: every process of a run over several hosts raises it, so that one may speak for all.
  """

  exit_code = 1
  of_all = False


class ConfigError(PromotError):
  """A wrong flag, gin binding, pattern, task name or value.  Never worth a retry."""

  exit_code = 2


class DataError(PromotError):
  """Records that cannot be used: malformed, empty, or missing fields."""

  # As in sysexits.h: 65 data, 71 system, 73 cannot create, 74 input or output, 75 try again.
  exit_code = 65


class OutOfResources(PromotError):
  """The machine has too little memory, device memory, files or threads for what was asked."""

  exit_code = 71


class CannotWrite(PromotError):
  """The output directory is read-only, full, or below a file."""

  exit_code = 73


class DamagedCheckpoint(PromotError):
  """A checkpoint does not match its checksums, or is not one at all."""

  exit_code = 74


class DamagedRecord(DamagedCheckpoint):
  """A record beside the checkpoints (a marker, a score, a result) is not as it was written."""


class Preempted(PromotError):
  """The process was asked to stop and has saved its state; the same command goes on."""

  exit_code = 75


class PeerLost(PromotError):
  """Another process of a run over several hosts has ended; started again, the run goes on."""

  # That of Preempted: for a scheduler both mean that the same command goes on.
  exit_code = 75


class Diverged(PromotError):
  """The loss or a gradient became NaN or infinite."""

  exit_code = 76


class ModelDirInUse(PromotError):
  """Another live run holds the model directory."""

  exit_code = 77
