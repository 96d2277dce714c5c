"""Marks that stories share."""

from __future__ import annotations

import pytest

from e2e.suite.kube import THOROUGH

rarely = pytest.mark.skipif(not THOROUGH, reason="takes long: with COPPICE_THOROUGH=1, as CI has it once a week")
