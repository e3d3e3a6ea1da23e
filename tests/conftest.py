"""What every test runs under."""

import os

# Before torch is loaded: see pmrl_cli/cli/main.py. Tests share the machine with each other and with what they start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
