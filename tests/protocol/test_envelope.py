"""The ladder at the door: which era a posted message is, and the first thing that is wrong with it."""

import base64
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.errors import DownstreamProtocolError
from mcphost.protocol import envelope
from mcphost.protocol.envelope import META_CAPABILITIES, META_CLIENT, META_VERSION, Headers, Inbound

MODERN = "2026-07-28"


class Post:
    """A modern request that passes, for tests to break."""

    def __init__(self) -> None:
        self.meta: dict[str, object] = {META_VERSION: MODERN, META_CAPABILITIES: {}}
        self.body: dict[str, object] = {
            "jsonrpc": "2.0",
            "id": 7,
            "method": "tools/call",
            "params": {"name": "echo", "arguments": {"a": 1}, "_meta": self.meta},
        }
        self.headers: dict[str, str | None] = {"version": MODERN, "method": "tools/call", "name": "echo"}

    def read(self) -> Inbound:
        return envelope.read(json.dumps(self.body).encode(), Headers(**self.headers))


def refusal(read: Callable[[], object]) -> DownstreamProtocolError:
    with pytest.raises(DownstreamProtocolError) as caught:
        read()
    return caught.value


def outcome(read: Callable[[], object]) -> int | None:
    """The code of the refusal, None if there is none."""
    try:
        read()
    except DownstreamProtocolError as error:
        return error.rpc_code
    return None


def legacy(version: str | None = None, **members: object) -> Inbound:
    return envelope.read(json.dumps({"jsonrpc": "2.0", **members}).encode(), Headers(version=version))


def test_a_good_modern_request_is_cut_apart_once() -> None:
    inbound = Post().read()
    assert (inbound.era, inbound.method, inbound.id) == ("modern", "tools/call", b"7")
    assert inbound.params.keys() == {"name", "arguments", "_meta"}
    assert inbound.meta.keys() == {META_VERSION, META_CAPABILITIES}


# --- the rungs, top first -----------------------------------------------------------------------------


def _not_jsonrpc(post: Post) -> None:
    post.body["jsonrpc"] = "1.0"


def _params_no_object(post: Post) -> None:
    post.body["params"] = [1]


def _meta_no_object(post: Post) -> None:
    post.body["params"]["_meta"] = []  # type: ignore[index]


def _no_version(post: Post) -> None:
    del post.meta[META_VERSION]


def _no_capabilities(post: Post) -> None:
    post.meta[META_CAPABILITIES] = []


def _other_version_header(post: Post) -> None:
    post.headers["version"] = "2098-01-01"


def _no_method_header(post: Post) -> None:
    post.headers["method"] = None


def _other_name_header(post: Post) -> None:
    post.headers["name"] = "other"


def _unspoken_version(post: Post) -> None:
    post.meta[META_VERSION] = post.headers["version"] = "2099-01-01"


LADDER: list[tuple[Callable[[Post], None], int, str]] = [
    (_not_jsonrpc, -32600, "jsonrpc"),
    (_params_no_object, -32602, "params must be an object"),
    (_meta_no_object, -32602, "params._meta must be an object"),
    (_no_version, -32602, META_VERSION),
    (_no_capabilities, -32602, META_CAPABILITIES),
    (_other_version_header, -32020, "MCP-Protocol-Version does not match"),
    (_no_method_header, -32020, "Mcp-Method is required"),
    (_other_name_header, -32020, "Mcp-Name does not match"),
    (_unspoken_version, -32022, "unsupported protocol version"),
]


@given(st.sets(st.integers(0, len(LADDER) - 1), min_size=1))
def test_of_everything_that_is_wrong_the_first_rung_is_told(broken: set[int]) -> None:
    post = Post()
    for rung in sorted(broken, reverse=True):
        LADDER[rung][0](post)
    error = refusal(post.read)
    _, code, text = LADDER[min(broken)]
    assert error.rpc_code == code
    assert text in str(error)
    assert error.request_id == (b"" if min(broken) == 0 else b"7")


@pytest.mark.parametrize("header", ["method", "name"])
@pytest.mark.parametrize("value", [None, "", "Tools/Call", "echo "])
def test_a_mirrored_header_that_is_absent_or_different_is_refused(header: str, value: str | None) -> None:
    post = Post()
    post.headers[header] = value
    assert refusal(post.read).rpc_code == -32020


def test_an_unspoken_version_is_told_what_is_supported() -> None:
    post = Post()
    _unspoken_version(post)
    data = refusal(post.read).data
    assert data == {
        "supported": [MODERN, "2025-11-25", "2025-06-18", "2024-11-05"],
        "requested": "2099-01-01",
    }


@pytest.mark.parametrize("value", [None, 5, True, [MODERN], {"v": MODERN}])
def test_a_version_that_is_no_string_counts_as_absent(value: object) -> None:
    post = Post()
    post.meta[META_VERSION] = value
    assert refusal(post.read).rpc_code == -32602


@pytest.mark.parametrize("value", [None, 5, True, [], "{}"])
def test_capabilities_that_are_no_object_count_as_absent(value: object) -> None:
    post = Post()
    post.meta[META_CAPABILITIES] = value
    assert refusal(post.read).rpc_code == -32602


def test_client_info_is_optional_and_unknown_metadata_is_kept() -> None:
    post = Post()
    post.meta |= {META_CLIENT: {"name": "c", "version": "1"}, "com.example/trace": "t"}
    assert bytes(post.read().meta["com.example/trace"]) == b'"t"'


@pytest.mark.parametrize(
    ("method", "params", "name"),
    [("resources/read", {"uri": "file:///a"}, "file:///a"), ("prompts/get", {"name": "p"}, "p")],
)
def test_each_named_method_is_compared_by_its_own_member(
    method: str, params: dict[str, object], name: str
) -> None:
    post = Post()
    post.body |= {"method": method, "params": {**params, "_meta": post.meta}}
    post.headers |= {"method": method, "name": name}
    assert post.read().method == method
    post.headers["name"] = name.upper()
    assert refusal(post.read).rpc_code == -32020


@pytest.mark.parametrize("params", [{}, {"name": 5}, {"name": None}, {"name": ["echo"]}])
def test_a_call_that_names_nothing_does_not_match_any_header(params: dict[str, object]) -> None:
    post = Post()
    post.body["params"] = {**params, "_meta": post.meta}
    assert refusal(post.read).rpc_code == -32020


@pytest.mark.parametrize("method", ["tools/list", "server/discover", "completion/complete", "x/unknown"])
def test_a_method_without_a_name_needs_no_name_header(method: str) -> None:
    post = Post()
    post.body |= {"method": method, "params": {"_meta": post.meta}}
    post.headers |= {"method": method, "name": None}
    assert post.read().method == method


def test_the_last_of_two_names_is_judged_and_kept() -> None:
    post = Post()
    meta = json.dumps(post.meta)
    body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"evil","name":"echo","_meta":{meta}}}}}'
    inbound = envelope.read(body.encode(), Headers(**post.headers))
    assert bytes(inbound.params["name"]) == b'"echo"'


# --- the base64 form of a header ----------------------------------------------------------------------


def sentinel(data: bytes) -> str:
    return f"=?base64?{base64.b64encode(data).decode()}?="


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_name_matches_in_its_base64_form(name: str) -> None:
    post = Post()
    post.body["params"]["name"] = name  # type: ignore[index]
    post.headers["name"] = sentinel(name.encode())
    assert post.read().method == "tools/call"


@pytest.mark.parametrize(
    "value",
    [
        "=?base64?!!!!?=",  # no base64 at all
        "=?base64?ZWNobw?=",  # padding left out
        "=?base64?ZWNobw===?=",  # too much padding
        "=?base64?ZWNobx==?=",  # stray bits behind the last byte: another spelling of "echo"
        "=?base64? ZWNobw==?=",
        "=?base64?ZWNo bw==?=",
        "=?base64?é?=",  # a byte that is no ASCII, as HTTP libraries give it
        "=?base64?\u0664?=",
        "=?base64?_-_-?=",  # the URL-safe alphabet is another encoding
        sentinel(b"\xff\xfe"),
    ],
)
def test_a_broken_base64_form_is_refused_and_never_taken_literally(value: str) -> None:
    post = Post()
    post.headers["name"] = value
    post.body["params"]["name"] = value  # type: ignore[index]
    error = refusal(post.read)
    assert (error.rpc_code, str(error)) == (-32020, "the header Mcp-Name is not valid base64")


@given(st.text(max_size=12))
def test_any_text_inside_the_base64_form_matches_or_is_refused(inner: str) -> None:
    post = Post()
    post.headers["name"] = f"=?base64?{inner}?="
    assert outcome(post.read) == (None if inner == "ZWNobw==" else -32020)


@pytest.mark.parametrize(
    "name", ["=?base64?", "=?base64?x", "x?=", "=?BASE64?ZWNobw==?=", "=?base64?=", "?="]
)
def test_what_only_resembles_the_base64_form_is_taken_literally(name: str) -> None:
    post = Post()
    post.headers["name"] = post.body["params"]["name"] = name  # type: ignore[index]
    assert post.read().method == "tools/call"


def test_a_name_that_looks_like_the_form_has_to_be_encoded_itself() -> None:
    post = Post()
    name = "=?base64?ZWNobw==?="
    post.body["params"]["name"] = name  # type: ignore[index]
    post.headers["name"] = name
    assert refusal(post.read).rpc_code == -32020
    post.headers["name"] = sentinel(name.encode())
    assert post.read().method == "tools/call"


# --- the legacy era -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [None, "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_a_legacy_request_climbs_no_ladder(version: str | None) -> None:
    inbound = legacy(version, id="a", method="tools/call", params={"name": "echo"})
    assert (inbound.era, inbound.id, inbound.meta) == ("legacy", b'"a"', {})


def test_modern_metadata_without_the_header_is_told_which_header_is_missing() -> None:
    error = refusal(lambda: legacy(id=1, method="tools/list", params={"_meta": {META_VERSION: MODERN}}))
    assert (error.rpc_code, str(error)) == (-32020, "the header MCP-Protocol-Version is required")
    assert error.request_id == b"1"


def test_modern_metadata_under_a_legacy_header_is_what_the_header_says() -> None:
    meta = {META_VERSION: MODERN}
    assert legacy("2025-11-25", id=1, method="tools/list", params={"_meta": meta}).era == "legacy"


@pytest.mark.parametrize("params", [None, [], "x", {"_meta": None}, {"_meta": "x"}])
def test_params_and_metadata_are_objects_in_every_era(params: object) -> None:
    error = refusal(lambda: legacy(id=3, method="tools/list", params=params))
    assert (error.rpc_code, error.request_id) == (-32602, b"3")


# --- responses and notifications ----------------------------------------------------------------------


@pytest.mark.parametrize("answer", [{"result": {}}, {"error": {"code": 1, "message": "no"}}])
def test_a_legacy_client_may_post_responses_and_a_modern_one_may_not(answer: dict[str, object]) -> None:
    inbound = legacy("2025-11-25", id=1, **answer)
    assert (inbound.message.kind, inbound.method, inbound.params) == (next(iter(answer)), "", {})
    assert refusal(lambda: legacy(MODERN, id=1, **answer)).rpc_code == -32600


@pytest.mark.parametrize("identifier", [5, None, {"a": "\n"}, ["x" * 5000]])
def test_the_id_of_a_refused_response_is_never_taken_for_a_requests(identifier: object) -> None:
    assert refusal(lambda: legacy(MODERN, id=identifier, result={})).request_id == b""


@pytest.mark.parametrize("version", [None, "2025-11-25", MODERN])
def test_a_notification_needs_no_metadata_and_has_no_id(version: str | None) -> None:
    inbound = legacy(version, method="notifications/cancelled", params={"requestId": 1})
    assert (inbound.message.kind, inbound.id) == ("notification", b"")


@given(st.binary(max_size=60), st.sampled_from([None, "2025-11-25", MODERN, "x"]))
def test_any_body_is_read_or_refused_with_a_code_of_the_specification(
    body: bytes, version: str | None
) -> None:
    code = outcome(lambda: envelope.read(body, Headers(version=version)))
    assert code in {None, -32700, -32600, -32602, -32020, -32022}
