"""Decoded images are kept between test runs, in pytest's own cache folder."""

import pytest


@pytest.fixture(autouse=True)
def kept_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = request.config.cache
    if cache is not None:
        monkeypatch.setenv("FEDBENCH_CACHE", str(cache.mkdir("fedbench-data")))
