"""Scores of generated text through the field's own libraries; no JAX, no TensorFlow.

One module for each metric.  A metric is a small frozen dataclass called as
`metric(targets, predictions)`; the lower-case name in its module has the default settings and can
stand in a seqio task's `metric_fns`.  `registry.METRICS` finds them by name, docs/metrics.md says which
official scorer each one equals.  `confidence.estimate` adds standard errors to any of them.
"""
