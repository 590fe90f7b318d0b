"""A list of system calls from a file: read once, judged with its own lines, carried on as what it says."""

import json

import pytest

from mcphost.errors import PolicyInvalid
from mcphost.plan import compile_plan
from mcphost.policy import Program, loads
from sandbox import MAX_FILTER_BYTES

START = [
    "brk", "close", "execve", "exit_group", "futex", "mmap", "munmap", "recvfrom", "sendmsg", "sendto"
]  # fmt: skip
SMALL = {"name": "small", "denied": "EPERM", "unknown": "ENOSYS", "allow": START}


def policy_with(syscalls: str) -> str:
    return f"""
version: 1
profiles: {{web: {{syscalls: {json.dumps(syscalls)}}}, more: {{extends: web}}}}
mcpServers: {{a: {{command: a, profile: more}}}}
"""


def problems_of(tmp_path, text: str) -> list[str]:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(PolicyInvalid) as caught:
        loads(policy_with(str(tmp_path / "list.json")), file="p.yaml")
    return [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()]


def spec_of(policy):
    plan = compile_plan(policy, {"a": Program("/a", ("/a",), (), ())})
    return plan.servers["a"].sandbox.fill("a", {}, ())


@pytest.mark.parametrize("name", ["default", "strict"])
def test_a_shipped_list_goes_by_its_name(name):
    assert spec_of(loads(policy_with(name), file="p.yaml")).seccomp == name


def test_a_file_is_carried_on_as_what_it_said_when_the_policy_was_read(tmp_path):
    place = tmp_path / "list.json"
    place.write_text(json.dumps(SMALL))
    policy = loads(policy_with(str(place)), file="p.yaml")
    place.write_text("something else")
    assert json.loads(spec_of(policy).seccomp) == SMALL
    assert str(policy.profile("more").syscalls) == str(place)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"allow": [*START, "opnat"]}, "allow[10]: no system call has this name (did you mean openat?)"),
        ({"alow": []}, "alow: no key has this name (did you mean allow?)"),
        ({"denied": "EPREM"}, "denied: no errno has this name (did you mean EPERM?)"),
        ({"answer": {"mont": "EPERM"}}, "answer.mont: no system call has this name (did you mean mount?)"),
        ({"answer": {"mount": "nothing"}}, "answer.mount: no errno has this name"),
        (
            {"answer": {"brk": "EPERM"}},
            "answer.brk: brk is written twice; one place says what becomes of a call",
        ),
        ({"allow": START[:-1]}, "allow: sendto is missing, without which no program can be started"),
        (
            {"conditions": [{"call": "ioctl", "when": [], "otherwise": "EPERM", "why": "x"}]},
            "conditions[0].when: an array of 1 to 16 items is expected",
        ),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_place_there(tmp_path, changes, said):
    lines = problems_of(tmp_path, json.dumps({**SMALL, **changes}, indent=1))
    assert len(lines) == 1
    file, line, _, message = lines[0].split(":", 3)
    assert (file, message.strip()) == ("list.json", said)
    assert int(line) >= 2


def test_a_condition_is_judged_down_to_its_numbers(tmp_path):
    test = {"argument": 6, "bits": 32, "test": "any-of", "values": [1]}
    condition = {"call": "ioctl", "when": [[test]], "otherwise": "EPERM", "why": "x"}
    assert (
        "conditions[0].when[0][0].argument: a whole number from 0 to 5"
        in problems_of(tmp_path, json.dumps({**SMALL, "conditions": [condition]}))[0]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "list.json:1:2: not valid JSON: a string in double quotes is expected here"),
        ("[]", "list.json:1:1: not valid JSON: the file must be a JSON object"),
        ("\x00", "list.json:1:1: the character U+0000 cannot stand in a policy"),
    ],
)
def test_a_file_that_is_no_json_is_refused_at_its_place(tmp_path, text, said):
    assert problems_of(tmp_path, text) == [said]


def test_a_file_that_is_missing_or_too_large_is_refused_where_the_policy_names_it(tmp_path):
    place = tmp_path / "list.json"
    large = " " * (MAX_FILTER_BYTES + 1)
    assert problems_of(tmp_path, large) == [
        f"p.yaml:3:28: profiles.web.syscalls: the file {place}: is larger than {MAX_FILTER_BYTES} bytes"
    ]
    place.unlink()
    with pytest.raises(PolicyInvalid, match="no such file or directory"):
        loads(policy_with(str(place)), file="p.yaml")


def test_a_path_that_is_not_absolute_is_no_list():
    with pytest.raises(PolicyInvalid, match="or the absolute path of a JSON file; did you mean strict"):
        loads(policy_with("./strict"), file="p.yaml")
