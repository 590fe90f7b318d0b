"""What the broker's tests share."""

import pytest


@pytest.fixture(params=["legacy", "modern"])
def client_era(request: pytest.FixtureRequest) -> str:
    return request.param
