"""Errors: what each means on the wire, and that nothing internal is told."""

import inspect
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcphost import errors
from mcphost.errors import McpHostError, Problem, WireError, to_wire

CLASSES = [
    each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, BaseException)
]  # fmt: skip
PUBLIC = [each for each in CLASSES if not each.__name__.startswith("_")]

WIRE = [
    (errors.UpstreamProtocolError("x"), 200, -32603, "server-protocol", False),
    (errors.Unauthenticated(), 401, 401, "unauthenticated", False),
    (errors.Forbidden("x"), 403, 403, "forbidden", False),
    (errors.NotFound("x"), 404, 404, "not-found", False),
    (errors.SessionNotFound(), 404, 404, "session-not-found", False),
    (errors.BadHttp(415, "x"), 415, 415, "bad-http", False),
    (errors.RateLimited("x", retry_after=0.25), 429, 429, "rate-limited", True),
    (errors.QuotaUsedUp("x", retry_after=3600), 429, 429, "quota", True),
    (errors.Overloaded("x", retry_after=2), 503, 503, "overloaded", True),
    (errors.CallTimeout(1.5), 200, 504, "timeout", False),
    (errors.CannotAsk("x"), 200, 424, "cannot-ask", False),
    (errors.Unanswered(600.0), 200, 408, "unanswered", False),
    (errors.WorkerDied("x"), 200, 502, "worker-died", False),
    (errors.WorkerGone(), 200, 410, "worker-gone", False),
    (errors.WorkerUnavailable("x"), 200, 503, "worker-unavailable", True),
]


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_tree_that_the_module_prints(kind: type[BaseException]) -> None:
    assert issubclass(kind, McpHostError)
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_no_code_of_ours_lies_where_the_specification_forbids_it(kind: type[McpHostError]) -> None:
    assert kind.rpc_code == errors.INTERNAL_ERROR or kind.rpc_code > 0


def test_reasons_are_stable_words_and_no_two_leaves_share_one() -> None:
    leaves = [kind for kind in PUBLIC if not any(kind in other.__mro__[1:] for other in CLASSES)]
    reasons = [kind.reason for kind in leaves]
    assert len(set(reasons)) == len(reasons)
    assert all(reason.replace("-", "").isalpha() and reason.islower() for reason in reasons)


@pytest.mark.parametrize(
    ("error", "status", "code", "reason", "retryable"), WIRE, ids=lambda each: type(each).__name__
)
def test_each_error_means_this_on_the_wire(
    error: McpHostError, status: int, code: int, reason: str, retryable: bool
) -> None:
    wire = to_wire(error)
    assert (wire.status, wire.code, wire.message) == (status, code, str(error))
    assert isinstance(wire.data, dict)
    assert (wire.data["reason"], wire.data["retryable"]) == (reason, retryable)
    assert json.dumps(wire.data)


@pytest.mark.parametrize(
    "error", [ValueError("secret"), KeyError("secret"), RecursionError(), BaseException("secret")]
)
def test_the_text_of_an_unexpected_exception_is_never_told(error: BaseException) -> None:
    assert to_wire(error) == WireError(
        500, -32603, "internal error", {"reason": "internal", "retryable": False}
    )


@pytest.mark.parametrize(("code", "status"), [*errors.MODERN_STATUS.items(), (-32603, 400), (7, 400)])
def test_a_clients_offence_has_the_code_and_status_of_the_specification(code: int, status: int) -> None:
    error = errors.DownstreamProtocolError(code, "text", data={"a": 1})
    assert to_wire(error) == WireError(status, code, "text", {"a": 1})
    assert error.request_id == b""


def test_a_missing_token_is_answered_with_a_challenge() -> None:
    headers = to_wire(errors.Unauthenticated()).headers
    assert headers == ((b"www-authenticate", b'Bearer realm="mcphost"'),)


def test_refused_http_carries_its_own_headers() -> None:
    error = errors.BadHttp(405, "use POST", headers=((b"allow", b"POST"),))
    assert (to_wire(error).status, to_wire(error).headers) == (405, ((b"allow", b"POST"),))


@settings(deadline=None)
@given(st.floats(0, 1e6), st.sampled_from([errors.RateLimited, errors.Overloaded]))
def test_whoever_waits_as_long_as_the_header_says_waits_long_enough(seconds: float, kind: type) -> None:
    wire = to_wire(kind("later", retry_after=seconds))
    ((name, value),) = wire.headers
    assert name == b"retry-after"
    assert max(1, seconds) <= int(value) < max(1, seconds) + 1
    assert isinstance(wire.data, dict)
    assert wire.data["retryAfter"] == pytest.approx(seconds, abs=0.0006)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("p.yaml", 3, 5, "a.b", "is wrong"), "p.yaml:3:5: a.b: is wrong"),
        (Problem("p.yaml", 0, 0, "", "is empty"), "p.yaml: is empty"),
        (Problem("p", 1, 1, "a", "bad", value="5"), "p:1:1: a: bad (got 5)"),
        (
            Problem("p", 1, 1, "a", "bad", value="5", allowed="1 or 2", suggestion="2"),
            "p:1:1: a: bad (got 5; allowed: 1 or 2; did you mean 2?)",
        ),
    ],
)
def test_a_problem_reads_like_this(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_an_invalid_policy_tells_every_problem_in_order() -> None:
    problems = [Problem("p", 1, 1, "a", "bad"), Problem("p", 2, 1, "b", "worse")]
    error = errors.PolicyInvalid(problems)
    assert str(error) == "p:1:1: a: bad\np:2:1: b: worse"
    assert error.problems == tuple(problems)


def test_an_unreadable_policy_tells_its_path() -> None:
    error = errors.PolicyUnreadable("/etc/p.yaml", "is a directory")
    assert (str(error), error.path) == ("/etc/p.yaml: is a directory", "/etc/p.yaml")


def test_a_servers_own_error_goes_out_as_it_came() -> None:
    error = errors.ServerError(-32602, "no", b'{"a" : 1.10}')
    wire = to_wire(error)
    assert (wire.status, wire.code, wire.message) == (200, -32602, "no")
    assert bytes(wire.data) == b'{"a" : 1.10}'  # type: ignore[call-overload]
    assert error.data == {"a": 1.1}
    assert to_wire(errors.ServerError(1, "bare")).data is None
