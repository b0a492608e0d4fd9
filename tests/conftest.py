"""What every test runs under: few threads, no colour, no debugging switches, reproducible examples."""

from __future__ import annotations

import os

# Before anything imports torch, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["NO_COLOR"] = "1"
os.environ["COLUMNS"] = "100"
for _name in [name for name in os.environ if name.startswith("SSLCTL_")]:
    del os.environ[_name]

from hypothesis import settings  # noqa: E402 - after the environment is set

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None, max_examples=100)
settings.load_profile("repeatable")
