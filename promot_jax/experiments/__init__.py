"""Whole experiments: what to run (`experiment`), what is wrong with it before it runs (`shapes`), running
it (`execute`), and several that share what they have in common (`comparison`).
"""

from promot_jax import task_package

task_package.bind()  # before any module here imports tasks
