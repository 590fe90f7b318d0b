"""What every test may rely on: one event loop, and no test left out unseen where that is forbidden."""

import os

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With MCPHOST_FORBID_SKIPS=1 a skipped test is a failed one: that machine is meant to have everything."""
    report = yield
    if report.skipped and os.environ.get("MCPHOST_FORBID_SKIPS") == "1" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped where no skip is allowed: {reason}"
    return report
