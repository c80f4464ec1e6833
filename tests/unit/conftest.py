"""How what Hypothesis makes up is tried."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# On a busy host any example may take a second of which we had the core for a millisecond.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
