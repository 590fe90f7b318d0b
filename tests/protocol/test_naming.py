"""Exposed names: each has one reading, fits what clients take, and no two items of a server share one."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcphost.protocol.naming import BARE, MAX_NAME, Names, Reading

# The names that the policy allows for servers.
SERVER_NAME = r"[A-Za-z][A-Za-z0-9-]{0,5}(_[A-Za-z0-9-]{1,5}){0,2}"
servers = st.lists(
    st.from_regex(SERVER_NAME, fullmatch=True), min_size=1, max_size=6, unique_by=lambda name: name.lower()
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
names = texts | st.text("_-+a.0", max_size=6) | st.text("abc_", min_size=40, max_size=80)
NAMES = Names("__")


@given(servers, names, st.data())
def test_a_name_is_read_as_what_it_was_made_of_or_is_to_be_looked_up_in_its_servers_list(
    known: list[str], name: str, data: st.DataObject
) -> None:
    server = data.draw(st.sampled_from(known))
    exposed = NAMES.expose(server, "name", name)
    reading = NAMES.read("name", exposed, known)
    assert reading in (Reading(server, name), Reading(server, None))
    assert reading == Reading(server, None) or exposed == f"{server}__{name}"


@given(st.from_regex(SERVER_NAME, fullmatch=True) | st.just("s" * 32), names)
def test_an_exposed_name_is_one_that_every_client_takes(server: str, name: str) -> None:
    assert re.fullmatch(rf"[A-Za-z0-9_-]{{3,{MAX_NAME}}}", NAMES.expose(server, "name", name))


@given(st.lists(names, unique=True, max_size=20), st.data())
def test_no_two_names_of_a_server_are_exposed_as_one(own: list[str], data: st.DataObject) -> None:
    own += [NAMES.expose("s", "name", name).removeprefix("s__") for name in own]
    unique = set(own)
    assert len({NAMES.expose("s", "name", name) for name in unique}) == len(unique)


@pytest.mark.parametrize("name", ["a.b", "a/b", "é", "x" * 60, "list--0123456789ab"])
def test_a_name_that_does_not_fit_is_known_by_its_short_form_alone(name: str) -> None:
    exposed = NAMES.expose("srv", "name", name)
    assert re.fullmatch(r"srv__[A-Za-z0-9_-]*--[0-9a-f]{12}", exposed)
    assert NAMES.read("name", exposed, ["srv"]) == Reading("srv", None)
    if not name.endswith("ab"):
        assert NAMES.read("name", f"srv__{name}", ["srv"]) is None


@given(
    servers,
    texts | st.text("ui:/+a", max_size=8).map("ui://".__add__),
    st.sampled_from(["uri", "uriTemplate"]),
)
@example(["ui"], "ui://a", "uri")
@example(["ui"], "//a", "uri")
def test_a_uri_is_read_as_what_it_was_made_of(known: list[str], uri: str, key: str) -> None:
    assert NAMES.read(key, NAMES.expose(known[0], key, uri), known) == Reading(known[0], uri)


@given(servers, texts, st.sampled_from(["lower", "upper", "swapcase"]))
def test_the_scheme_of_a_uri_may_come_back_in_another_case(known: list[str], uri: str, change: str) -> None:
    label, _, rest = NAMES.expose(known[0], "uri", uri).partition("+")
    if not label.startswith("ui:"):
        assert NAMES.read("uri", f"{getattr(label, change)()}+{rest}", known) == Reading(known[0], uri)


def test_the_name_of_a_tool_may_not_come_back_in_another_case() -> None:
    assert NAMES.read("name", "TIME__now", ["time"]) is None


@given(servers, names, st.sampled_from(["name", "uri"]))
def test_a_name_of_no_server_means_nothing(known: list[str], name: str, key: str) -> None:
    assert NAMES.read(key, NAMES.expose("9", key, name), known) is None
    assert NAMES.read(key, NAMES.expose("", key, name), known) is None
    assert NAMES.read(key, known[0], known) is None


@pytest.mark.parametrize(
    ("key", "name", "exposed"),
    [("name", "now", "my_time__now"), ("name", "a__b", "my_time__a__b"), ("name", "", "my_time__"),
     ("uri", "file:///a", "my.time+file:///a"), ("uriTemplate", "f+a:///{x}", "my.time+f+a:///{x}"),
     ("uri", "ui://board/a", "ui://my.time+board/a")],
)  # fmt: skip
def test_exposed_names_look_like_this(key: str, name: str, exposed: str) -> None:
    assert NAMES.expose("my_time", key, name) == exposed
    assert BARE.expose("my_time", key, name) == name


def test_another_separator_stands_in_the_same_place() -> None:
    names = Names("--")
    assert names.expose("time", "name", "now") == "time--now"
    assert names.read("name", "time--now", ["time"]) == Reading("time", "now")
    assert names.read("name", "time__now", ["time"]) is None
