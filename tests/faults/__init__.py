"""Faults put into real runs: what happened, what was lost (nothing), and that the next launch ends as if undisturbed.

`python -m tests.faults` runs all of them and writes docs/faults.md; `test_faults.py` is a part that `make test` runs.
"""
