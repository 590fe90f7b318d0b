"""The file of the audit: whose it may be, how it ends and goes on, and what a full disk leaves in it."""

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcphost.decisions.auditchain import Broken
from mcphost.errors import StartRefused
from mcphost.telemetry.auditfile import AuditFile, verify


def opened(path: Path) -> AuditFile:
    return AuditFile.open(str(path), lambda: 1_800_000_000.0)


def content(number: int) -> bytes:
    return json.dumps({"kind": "call", "name": f"tool {number}"}).encode()


def written(path: Path, numbers: range) -> None:
    file = opened(path)
    assert file.append([content(number) for number in numbers]) == len(numbers)
    file.close()


def names(*paths: Path) -> list[str]:
    text = "".join(path.read_text() for path in paths)
    records = [json.loads(line) for line in text.splitlines() if line.endswith('"}') and line.startswith("{")]
    return [record["name"] for record in records if record["kind"] == "call"]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size`: to a writer the same as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_chain_goes_on_where_the_file_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, range(2))
    written(path, range(2, 4))
    assert verify([str(path)]).records == 5
    assert path.stat().st_mode & 0o777 == 0o600


def test_wherever_a_kill_cuts_the_file_the_chain_goes_on_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, range(2))
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        path.chmod(0o600)
        written(path, range(9, 10))
        verifier = verify([str(path)])
        assert path.read_bytes().startswith(whole[:size])
        line_ends = {0, second - 1, second} | {i for i in range(size + 2) if whole[i - 1 : i] == b"\n"}
        is_at_end = size in line_ends or whole[size : size + 1] == b"\n"
        assert verifier.torn == (0 if is_at_end else 1), size


def test_wherever_a_disk_is_full_every_record_is_written_once_in_the_end(tmp_path: Path) -> None:
    sample = tmp_path / "sample"
    written(sample, range(3))
    for size in range(0, sample.stat().st_size, 7):
        path = tmp_path / f"audit.{size}"
        file = opened(path)
        waiting = [content(number) for number in range(3)]
        with room_for(size):
            del waiting[: file.append(waiting)]
            assert file.trouble is not None
        with room_for(size + 5):
            del waiting[: file.append(waiting)]
        assert file.append(waiting) == len(waiting)
        file.close()
        verify([str(path)])
        assert names(path) == ["tool 0", "tool 1", "tool 2"]


def test_a_file_that_was_renamed_is_followed_by_a_new_one_of_the_same_chain(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    file = opened(path)
    file.append([content(0)])
    path.rename(old)
    file.append([content(1)])
    file.close()
    assert verify([str(old), str(path)]).records == 4
    assert names(old, path) == ["tool 0", "tool 1"]
    with pytest.raises(Broken):
        verify([str(path), str(old)])


def test_a_file_that_took_the_name_and_is_not_empty_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    file = opened(path)
    file.append([content(0)])
    path.rename(tmp_path / "old")
    path.write_text("something else\n")
    path.chmod(0o600)
    assert file.append([content(1)]) == 0
    assert "not empty" in str(file.trouble)
    path.unlink()
    assert file.append([content(1)]) == 1
    file.close()


def test_one_file_has_one_writer(tmp_path: Path) -> None:
    file = opened(tmp_path / "audit.jsonl")
    with pytest.raises(StartRefused, match="another process"):
        opened(tmp_path / "audit.jsonl")
    file.close()


def test_files_that_others_could_change_are_refused(tmp_path: Path) -> None:
    (tmp_path / "target").touch(mode=0o600)
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "readable").touch(mode=0o644)
    (tmp_path / "twice").touch(mode=0o600)
    os.link(tmp_path / "twice", tmp_path / "other")
    os.mkfifo(tmp_path / "fifo", 0o600)
    open_directory = tmp_path / "open"
    open_directory.mkdir()
    open_directory.chmod(0o777)
    for name in ("link", "readable", "twice", "fifo", "open/audit", "missing/audit"):
        with pytest.raises(StartRefused, match=r"audit\.file"):
            opened(tmp_path / name)


def test_a_last_record_that_was_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, range(2))
    path.write_bytes(path.read_bytes().replace(b"tool 1", b"tool 7"))
    with pytest.raises(StartRefused, match="mcphost audit verify"):
        opened(path)
