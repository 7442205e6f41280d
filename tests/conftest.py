"""Settings for all tests: hypothesis tries the same in every run, and a slow machine fails no test."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("leveret", derandomize=True, deadline=None, database=None)
settings.load_profile("leveret")
