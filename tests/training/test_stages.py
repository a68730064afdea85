"""A stage is a value that is checked when it is made."""

import pytest

from promot_jax import errors


def test_wrong_values_of_a_stage_are_config_errors(tiny):
  for change, message in (
    ({"name": "a/b"}, "name='a/b'"),
    ({"steps": -1}, "steps=-1"),
    ({"microbatches": 3}, "microbatches=3 must be a divisor of batch_size=4"),
    ({"select": "first"}, "select='first' must be 'best', 'last', or a function"),
    ({"mode": "up"}, "mode='up'"),
    ({"eval_period": 0}, "eval_period=0"),
  ):
    fields = {"name": "x", "trainable": ".*", "steps": 3, **change}
    with pytest.raises(errors.ConfigError, match=message):
      tiny.make_stage(**fields)
