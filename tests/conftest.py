"""What every test may rely on: one event loop, and no test left out unseen where that is forbidden."""

import os

import pytest
from xdist.scheduler import LoadScopeScheduling

# Tests in here look at the whole machine, or load it, so one process runs them, one after the other.
OF_THE_MACHINE = frozenset(
    {"attacks", "chaos", "deploy", "egress", "fuzz", "sandbox", "servers", "vm", "workloads"}
)


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


class ByFile(LoadScopeScheduling):
    """Shares the tests between processes file by file, since a file's tests share what is dear to make."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folders = file.split("/")
        return "of the machine" if OF_THE_MACHINE.intersection(folders) else file


def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)
