"""Runs the command line: `python -m leveret`."""

import sys

from leveret.broker.cli import main

sys.exit(main())
