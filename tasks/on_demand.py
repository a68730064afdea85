"""Registrations that wait until a name is asked for: tasks with a user's own vocabulary."""

from promot_jax.data import vocabularies


def register(name: str, vocabulary: str) -> None:
  """Puts a task that `catalog.resolve` named for a user's own vocabulary into seqio's registry.

  Every other name is registered by the import of its module.
  """
  if vocabularies.reference(vocabulary) is not None:
    from tasks import registration  # imports seqio, and with it TensorFlow

    registration.add_on_demand(name, vocabulary)
