"""`mcphost-server-notes`: short texts under names, kept in a folder where there is one, else in memory.

In a folder, each operation reads the file anew under a lock and replaces it whole, so that several workers of one
server share their notes, and a crash leaves either the old file or the new one.
"""

import argparse
import fcntl
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from mcphost.servers.stdio import (
    Answer,
    NoSuchResource,
    Parameter,
    Prompt,
    Resource,
    Server,
    Tool,
    ToolFailed,
    serve,
)

VERSION: Final = "1.0"
FOLDER: Final = "/data"
MAX_NOTES: Final = 1000
MAX_NOTE_BYTES: Final = 64 << 10
URI: Final = "note:///"

# A name is also the last part of a URI, so it needs no escaping there.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Change = Callable[[dict[str, str]], None]


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description="Keep short notes.")
    parser.add_argument("--data", default=FOLDER, help="folder of the notes (default: %(default)s)")
    folder = Path(parser.parse_args().data)
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        sys.exit(serve(build(FileStore(folder), "Notes are kept when the server restarts.")))
    sys.exit(serve(build(MemoryStore(), "Notes are kept in memory until the server stops.")))


class Store(Protocol):
    """Where the notes are."""

    def read(self) -> Mapping[str, str]:
        """Every note by its name, in the order they were added."""

    def update(self, change: Change) -> None:
        """Let `change` alter the notes, and keep the outcome unless it raises."""


class MemoryStore:
    """Notes that end with the process."""

    def __init__(self) -> None:
        self._notes: dict[str, str] = {}

    def read(self) -> Mapping[str, str]:
        """Every note by its name."""
        return self._notes

    def update(self, change: Change) -> None:
        """Alter the notes; every change here checks before it alters."""
        change(self._notes)


class FileStore:
    """Notes in one JSON file of a folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "notes.json"
        self._fresh = folder / "notes.json.new"
        self._lock = folder / "notes.lock"

    def read(self) -> Mapping[str, str]:
        """Every note by its name, as the file has it now."""
        return self._load()

    def update(self, change: Change) -> None:
        """Alter the notes and replace the file, alone among the processes that use the folder."""
        try:
            with self._lock.open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                notes = self._load()
                change(notes)
                self._replace(notes)
        except OSError as error:
            raise ToolFailed(f"the notes cannot be written: {error.strerror}") from None

    def _load(self) -> dict[str, str]:
        try:
            notes = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ToolFailed(f"the notes cannot be read: {error.strerror}") from None
        except ValueError:
            notes = None
        if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
            raise ToolFailed(f"{self._file.name} is damaged, and left as it is: repair or remove it")
        return notes

    def _replace(self, notes: Mapping[str, str]) -> None:
        with self._fresh.open("wb") as file:
            file.write(json.dumps(notes, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        self._fresh.replace(self._file)


class NoteResources:
    """The notes as resources."""

    template = URI + "{name}"

    def __init__(self, store: Store) -> None:
        self._store = store

    def entries(self) -> Sequence[Resource]:
        """One resource for each note."""
        return [Resource(URI + name, name) for name in self._store.read()]

    def read(self, uri: str) -> str:
        """The text of one note."""
        notes = self._store.read()
        name = uri.removeprefix(URI)
        if not uri.startswith(URI) or name not in notes:
            raise NoSuchResource(uri)
        return notes[name]


class Notes:
    """The tools and the prompt."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, arguments: Mapping[str, str]) -> Answer:
        """Keep a text under a name, in place of what was there."""
        name, text = _checked_name(arguments["name"]), arguments["text"]
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > MAX_NOTE_BYTES:
            raise ToolFailed(f"the text has {size} bytes, and a note takes {MAX_NOTE_BYTES}")

        def put(notes: dict[str, str]) -> None:
            if name not in notes and len(notes) >= MAX_NOTES:
                raise ToolFailed(f"there are {MAX_NOTES} notes already: delete one first")
            notes[name] = text

        self._store.update(put)
        return Answer(f"Noted under {name}.", {"name": name, "bytes": size})

    def get(self, arguments: Mapping[str, str]) -> Answer:
        """Give one note back."""
        name, notes = arguments["name"], self._store.read()
        _check_known(name, notes)
        return Answer(notes[name], {"name": name, "text": notes[name]})

    def list(self, _arguments: Mapping[str, str]) -> Answer:
        """Name every note."""
        names = [*self._store.read()]
        return Answer("\n".join(names) or "There are no notes.", {"names": names})

    def delete(self, arguments: Mapping[str, str]) -> Answer:
        """Take one note away."""
        name = arguments["name"]

        def drop(notes: dict[str, str]) -> None:
            _check_known(name, notes)
            del notes[name]

        self._store.update(drop)
        return Answer(f"Deleted {name}.", {"name": name})

    def summarize(self) -> str:
        """Ask for a summary of every note there is."""
        notes = self._store.read()
        if not notes:
            return "There are no notes yet. Say so, and offer to take one."
        listed = "\n\n".join(f"## {name}\n{text}" for name, text in notes.items())
        return f"Summarize these notes in a few sentences, and name each one you draw on.\n\n{listed}"


def build(store: Store, where: str) -> Server:
    """The server over a store; `where` tells the client how long notes last."""
    notes = Notes(store)
    name = Parameter("name", "the note's name: letters, digits, '.', '_' and '-', at most 64")
    return Server(
        "mcphost-notes",
        VERSION,
        instructions=f"Keeps short notes under names. {where}",
        tools=(
            Tool(
                "add",
                "Keep a note, in place of any of that name.",
                (name, Parameter("text", "what to keep")),
                notes.add,
                read_only=False,
                destructive=True,
            ),
            Tool("list", "Name every note.", (), notes.list),
            Tool("get", "Read a note.", (name,), notes.get),
            Tool(
                "delete",
                "Take a note away.",
                (name,),
                notes.delete,
                read_only=False,
                destructive=True,
                idempotent=False,
            ),
        ),
        prompts=(Prompt("summarize_notes", "Summarize every note.", notes.summarize),),
        resources=NoteResources(store),
    )


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ToolFailed(f"{name!r} cannot name a note: use letters, digits, '.', '_' and '-', at most 64")
    return name


def _check_known(name: str, notes: Mapping[str, str]) -> None:
    if name not in notes:
        raise ToolFailed(f"there is no note {name!r}; there are: {', '.join(notes) or 'none'}")
