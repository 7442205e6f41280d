"""Makes the modules of `interop-tests` importable: what they are made of is tested here, without a broker."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "interop-tests"))
