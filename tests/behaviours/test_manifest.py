"""The page about the protocol says what the tests show, and nothing else."""

from pathlib import Path

from behaviours.manifest import HERE, PAGE, TESTS, behaviours, faults, names_in, page

# Tests of the protocol stand in these; each of their files shows at least one behaviour.
FOLDERS = ("broker", "protocol", "fronts", "conformance")
# What stands there and is about something else.
ELSEWHERE = {
    "broker/test_audit.py": "the record of calls",
    "broker/test_denials.py": "system calls",
    "broker/test_embedding.py": "programs that embed the runtime",
    "broker/test_exits.py": "how workers end",
    "broker/test_spares.py": "starts ahead of need",
    "broker/test_token_rotation.py": "tokens that come and go",
    "broker/test_volumes.py": "what is kept on disk",
}


def test_every_behaviour_is_shown_by_tests_that_exist() -> None:
    assert list(faults()) == []


def test_every_file_of_tests_of_the_protocol_shows_something() -> None:
    files = {str(path.relative_to(TESTS)) for name in FOLDERS for path in (TESTS / name).glob("test_*.py")}
    used = {shown.partition("::")[0] for one in behaviours() for shown in one.shown}
    assert sorted(files - used - ELSEWHERE.keys()) == []
    assert sorted(ELSEWHERE.keys() - files) == []


def test_the_page_is_what_the_manifest_makes() -> None:
    assert PAGE.read_text() == page(), "run `make protocol-doc`"


def test_what_is_not_spoken_has_its_reason_and_what_is_has_a_sentence() -> None:
    for one in behaviours():
        assert one.says.endswith((".", ")")), one.id
        assert not one.unspoken or one.unspoken.endswith("."), one.id


def test_a_test_that_is_gone_is_noticed() -> None:
    """Else the first test could not fail."""
    assert names_in("behaviours/test_manifest.py") >= {"test_a_test_that_is_gone_is_noticed"}
    assert names_in("behaviours/nothing.py") == frozenset()
    assert len(list(Path(HERE).glob("*.toml"))) == 7
