"""The chain of the audit: how records are sealed one to the next, and how a break in it is found.

A record is one line of JSON that begins with its number and the hash of the record before it, and ends with its own
hash: SHA-256 over everything before that member. Whoever can write the file can write the whole chain anew, so the
chain proves something only together with a hash that was kept elsewhere.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

import msgspec

GENESIS: Final = "0" * 64  # stands for the hash of the record before the first

# The longest line that a reader takes: what a record may hold of arguments, and all names at their longest.
MAX_LINE_BYTES: Final = 512 * 1024

_HEAD: Final = re.compile(rb'\{"seq":(0|[1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})",')
_FOOT: Final = re.compile(rb',"hash":"([0-9a-f]{64})"\}\Z')

# The kinds that may stand after a piece of a record that was cut off; the first is also how every file begins.
BEGUN: Final = "file-begun"
RESUMED: Final = "resumed"


@dataclass(frozen=True, slots=True)
class Link:
    """The last record, as far as the next one needs it: its number and its hash."""

    seq: int
    hash: str


FIRST: Final = Link(-1, GENESIS)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a line says of its place in the chain. Its own hash is right."""

    seq: int
    prev: str
    hash: str

    def follows(self, link: Link) -> bool:
        """Whether this is the record after `link`."""
        return self.seq == link.seq + 1 and self.prev == link.hash

    @property
    def link(self) -> Link:
        """What the next record goes on from."""
        return Link(self.seq, self.hash)


class Broken(Exception):
    """The chain is broken. `line` counts from 1 within the file that was being read."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


class _Shown(msgspec.Struct):
    kind: str
    torn_sha256: str = ""


def seal(link: Link, content: bytes) -> tuple[bytes, Link]:
    """The line, line break included, of a record after `link`, and what comes after it goes on from.

    `content` is a JSON object with at least one member, without line breaks.
    """
    seq = link.seq + 1
    head = b'{"seq":%d,"prev":"%s",%s' % (seq, link.hash.encode(), content[1:-1])
    digest = hashlib.sha256(head).hexdigest()
    return b'%s,"hash":"%s"}\n' % (head, digest.encode()), Link(seq, digest)


def read(line: bytes) -> Sealed | None:
    """What a line without its break says of its place; None where it is no whole record, or not as it was sealed."""
    head, foot = _HEAD.match(line), _FOOT.search(line)
    if head is None or foot is None:
        return None
    own = foot[1].decode()
    if hashlib.sha256(line[: foot.start()]).hexdigest() != own:
        return None
    return Sealed(int(head[1]), head[2].decode(), own)


def is_whole(line: bytes) -> bool:
    """Whether a line has the form of a whole record, right or wrong: a write that was cut off leaves none."""
    return _HEAD.match(line) is not None and _FOOT.search(line) is not None


def torn_digest(piece: bytes) -> str:
    """How a later record names what was left of those that were cut off."""
    return hashlib.sha256(piece).hexdigest()


class Verifier:
    """Reads the lines of one chain, file after file in the order in which they were written."""

    def __init__(self) -> None:
        self.link: Link | None = None  # None before the first record
        self.begins: Link = FIRST
        self.records = 0
        self.torn = 0
        self._line = 0
        self._pieces: list[bytes] = []
        self._torn_line = 0
        self._pieces_here = 0

    def __repr__(self) -> str:
        return f"<Verifier {self.records} records>"

    def begin_file(self) -> None:
        """The next line is the first of a file."""
        self._line = self._torn_line = self._pieces_here = 0

    def take(self, line: bytes) -> None:
        """Take the next line, without its line break.

        Raises:
            Broken: the chain ends before this line, or before one that was left open.
        """
        self._line += 1
        sealed = read(line)
        if sealed is None:
            if is_whole(line):
                raise Broken(self._line, "the record is not as it was written: its hash does not match")
            self._torn_line = self._torn_line or self._line
            self._pieces_here += 1
            self._pieces.append(line)
            if sum(map(len, self._pieces)) > MAX_LINE_BYTES:
                raise Broken(self._torn_line, "this is no record")
            return
        shown = self._shown(line)
        self._check_place(sealed, shown)
        self._check_pieces(shown)
        self.link = sealed.link
        self.records += 1

    def finish(self, expected: str | None = None) -> None:
        """There are no more lines. `expected` is the hash that the last record must have.

        Raises:
            Broken: the end is missing.
        """
        if self._pieces:
            raise Broken(self._torn_line, "a record was cut off here, and none after it says so")
        if self.link is None:
            raise Broken(0, "there is no record")
        if expected is not None and self.link.hash != expected:
            raise Broken(self._line, f"the last record is {self.link.hash}, not the one expected")

    def _shown(self, line: bytes) -> _Shown:
        try:
            return msgspec.json.decode(line, type=_Shown)
        except msgspec.DecodeError:
            raise Broken(self._line, "this is no record") from None

    def _check_place(self, sealed: Sealed, shown: _Shown) -> None:
        is_first = self._line - self._pieces_here == 1
        if is_first != (shown.kind == BEGUN):
            what = "begins without its first record" if is_first else "begins once more inside"
            raise Broken(self._line, f"the file {what}")
        if self.link is None:
            self.begins = Link(sealed.seq - 1, sealed.prev)
            if (sealed.seq == 0) != (sealed.prev == GENESIS):
                raise Broken(self._line, "the number of the first record does not fit")
        elif not sealed.follows(self.link):
            why = (
                f"record {sealed.seq} does not follow record {self.link.seq}: one was removed, added or moved"
            )
            raise Broken(self._line, why)

    def _check_pieces(self, shown: _Shown) -> None:
        said, found = shown.torn_sha256, torn_digest(b"\n".join(self._pieces)) if self._pieces else ""
        if said != found:
            why = (
                "what was cut off here is not what the record after it says" if said else "this is no record"
            )
            raise Broken(self._torn_line or self._line, why)
        if said:
            self.torn += 1
        self._pieces, self._torn_line = [], 0
