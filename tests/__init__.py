"""Tests mirror `dsel`: tests/x/test_y.py is about dsel/x/y.py."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several: the processes share the cores, not each all of them
    os.environ.setdefault("OMP_NUM_THREADS", "1")
