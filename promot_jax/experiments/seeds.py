"""Seeds of rows that differ in nothing else, such as a second full tuning beside the first."""

RECIPE_VALUES = ("further",)


def further(*, seed: int, offset: int) -> int:
  """A seed that follows a run's own, so that each run of several seeds has another one in this row too."""
  return seed + offset
