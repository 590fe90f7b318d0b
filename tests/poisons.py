"""What does not belong into a message, and every place of a message where it can stand.

`rows` gives bodies of requests. In a template `@` stands where a value goes, `#` where a key goes, `~` between tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass

FORGED = b'{"jsonrpc":"2.0","id":66,"method":"tools/call","params":{"name":"smuggled","arguments":{}}}'

# Inside the quotes of a string: refused wherever it stands.
BAD_TEXT = {
    "line feed": b"a\nb",
    "carriage return": b"a\rb",
    "a second message": b'a"}}\n' + FORGED + b"\n",
    "a second message after a carriage return": b'a"}}\r' + FORGED + b"\r",
    "NUL": b"a\0b",
    "tab": b"a\tb",
    "control": b"a\x1fb",
    "no UTF-8": b"a\xffb",
    "half a character": b"a\xe2\x80",
    "overlong slash": b"a\xc0\xafb",
    "overlong line feed": b"a\xc0\x8ab",
    "overlong line feed of three": b"a\xe0\x80\x8ab",
    "surrogate in bytes": b"a\xed\xa0\x80b",
    "beyond the last character": b"a\xf4\x90\x80\x80b",
    "escaped lone surrogate": b"a\\ud800b",
    "escaped surrogates in the wrong order": b"a\\udc00\\ud800b",
    "unknown escape": b"a\\qb",
    "escape of a line feed": b"a\\\nb",
    "escape of a separator": b"a\\\xe2\x80\xa8b",
    "unfinished escape": b"a\\u00",
}
# Inside the quotes of a string: carried where the text is the client's own affair.
GOOD_TEXT = {
    "escaped line feed": b"a\\nb\\u000ab",
    "escaped carriage return": b"a\\rb\\u000d",
    "escaped second message": b'a\\"}}\\n' + FORGED.replace(b'"', b'\\"') + b"\\n",
    "escaped NUL": b"a\\u0000b",
    "line separator": b"a\xe2\x80\xa8b",
    "paragraph separator": b"a\xe2\x80\xa9b",
    "next line": b"a\xc2\x85b",
    "second message after a separator": b"a\xe2\x80\xa8" + FORGED.replace(b'"', b'\\"') + b"\xe2\x80\xa8",
    "escaped separator": b"a\\u2028b",
    "byte order mark": b"\xef\xbb\xbfa",
    "delete": b"a\x7fb",
    "noncharacter": b"a\xef\xbf\xbfb",
    "escaped pair": b"\\ud83d\\ude00",
    "bidirectional": b"a\xe2\x80\xaeb",
}
BAD_VALUE = {
    "NaN": b"NaN",
    "infinity": b"-Infinity",
    "leading zero": b"01",
    "no fraction": b"1.",
    "hexadecimal": b"0x10",
    "plus": b"+1",
    "single quotes": b"'a'",
    "trailing comma": b'{"a":1,}',
    "a comma": b"1,",
    "two values": b"1 2",
    "comment": b"/**/1",
    "very deep": b"[" * 60_000 + b"]" * 60_000,
    "never closed": b"[" * 60_000,
    "value and a second message": b"1}}\n" + FORGED + b"\n",
}
GOOD_VALUE = {
    "too large for a double": b"1e400",
    "too small for a double": b"-1e-400",
    "minus zero": b"-0",
    "minus zero as a fraction": b"-0.0",
    "400 digits": b"9" * 400,
    "fraction of 400 digits": b"0." + b"1" * 400,
    "beyond 64 bits": b"18446744073709551616",
    "null": b"null",
    "true": b"true",
    "deep": b"[" * 100 + b"]" * 100,
    "lines": b'{\n"a"\r:\r\n[1\n,\r2]\n}',
    "doubled member": b'{"a":1,"a":2}',
    "doubled member in another spelling": b'{"\\u0061":1,"a":2}',
    "a message": FORGED,
    "message lines": FORGED.replace(b",", b"\n,\r"),
    "empty key": b'{"":0}',
    "proto": b'{"__proto__":{"a":1},"constructor":null}',
}
GOOD_SPACE = {
    "line feed": b"\n",
    "carriage return": b"\r",
    "both": b"\r\n",
    "tab": b"\t",
    "many": b" \n\r\t" * 50,
}
BAD_SPACE = {
    "vertical tab": b"\x0b",
    "form feed": b"\x0c",
    "no-break space": b"\xc2\xa0",
    "line separator": b"\xe2\x80\xa8",
    "next line": b"\xc2\x85",
    "byte order mark": b"\xef\xbb\xbf",
    "NUL": b"\0",
    "comment": b"/**/",
    "message": b"\n" + FORGED + b"\n",
}

META = (
    b'"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientInfo":{"name":"tests","version":"1"},'
    b'"io.modelcontextprotocol/clientCapabilities":{}'
)
WHOLE = (
    b'~{~"jsonrpc"~:~"2.0"~,~"id"~:~ID~,~"method"~:~"tools/call"~,~"params"~:~{~"name"~:~"echo"~,~"arguments"~:~{~'
    b'"text"~:~[~"a"~,~1~]~}~,~"_meta"~:~{~"row"~:~"ID"~META~}~}~}~'
)
CALL = b'{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"echo","arguments":{},"_meta":{"row":"ID"META}MORE}MOST}'

# Where the text is the client's own affair, and where it decides something.
OPEN = {
    "an argument": CALL.replace(b'"arguments":{}', b'"arguments":{"text":@}'),
    "an argument inside": CALL.replace(b'"arguments":{}', b'"arguments":{"text":[{"a":[@]}]}'),
    "a key of the arguments": CALL.replace(b'"arguments":{}', b'"arguments":{#:1}'),
    "an unknown param": CALL.replace(b"MORE", b',"unknown":@'),
    "an unknown key of params": CALL.replace(b"MORE", b",#:1"),
    "metadata": CALL.replace(b'"row":"ID"', b'"row":"ID","example.com/own":@'),
    "a key of the metadata": CALL.replace(b'"row":"ID"', b'"row":"ID",#:1'),
    "an argument of a prompt": CALL.replace(b"tools/call", b"prompts/get").replace(
        b'"arguments":{}', b'"arguments":{"text":@}'
    ),
}
JUDGED = {
    "jsonrpc": CALL.replace(b'"2.0"', b"@"),
    "the id": CALL.replace(b'"id":ID', b'"id":@'),
    "the method": CALL.replace(b'"tools/call"', b"@"),
    "an unknown member": CALL.replace(b"MOST", b',"unknown":@'),
    "an unknown key": CALL.replace(b"MOST", b",#:1"),
    "a result": CALL.replace(b"MOST", b',"result":@'),
    "params": b'{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":@}',
    "the tool's name": CALL.replace(b'"echo"', b"@"),
    "the arguments": CALL.replace(b'"arguments":{}', b'"arguments":@'),
    "all metadata": CALL.replace(b'"_meta":{"row":"ID"META}', b'"_meta":@'),
    "the progress token": CALL.replace(b'"row":"ID"', b'"row":"ID","progressToken":@'),
    "the trace": CALL.replace(b'"row":"ID"', b'"row":"ID","traceparent":@'),
    "the version": CALL.replace(b"META", META.replace(b'"2026-07-28"', b"@").join((b",", b""))),
    "the client": CALL.replace(b"META", META.replace(b'{"name":"tests","version":"1"}', b"@").join((b",", b""))),
    "the capabilities": CALL.replace(
        b"META", META.replace(b'Capabilities":{}', b'Capabilities":@').join((b",", b""))
    ),
    "the log level": CALL.replace(b"META", b',"io.modelcontextprotocol/logLevel":@META'),
    "answers": CALL.replace(b"MORE", b',"inputResponses":@'),
    "the state": CALL.replace(b"MORE", b',"requestState":@'),
    "a task": CALL.replace(b"MORE", b',"task":@'),
    "a prompt's name": CALL.replace(b"tools/call", b"prompts/get").replace(b'"echo"', b"@"),
    "a resource": CALL.replace(b"tools/call", b"resources/read").replace(b'"name":"echo"', b'"uri":@'),
    "a cursor": CALL.replace(b"tools/call", b"resources/list").replace(b'"name":"echo"', b'"cursor":@'),
    "a reference": CALL.replace(b"tools/call", b"completion/complete").replace(b'"name":"echo"', b'"ref":@'),
    "a reference's name": CALL.replace(b"tools/call", b"completion/complete").replace(
        b'"name":"echo"', b'"ref":{"type":"ref/prompt","name":@}'
    ),
}  # fmt: skip

# Two members with one name, at every level; of each pair either could be the one that is judged.
TWICE = {
    "jsonrpc": CALL.replace(b"MOST", b',"jsonrpc":"1.0"'),
    "jsonrpc before": CALL.replace(b'"jsonrpc"', b'"jsonrpc":"1.0","jsonrpc"'),
    "the id": CALL.replace(b"MOST", b',"id":99'),
    "the id in another spelling": CALL.replace(b"MOST", b',"\\u0069d":null'),
    "the method": CALL.replace(b"MOST", b',"method":"tools/list"'),
    "the method before": CALL.replace(b'"method"', b'"method":"ping","method"'),
    "the method in another spelling": CALL.replace(b"MOST", b',"m\\u0065thod":"prompts/get"'),
    "params": CALL.replace(b"MOST", b',"params":{"name":"smuggled"}'),
    "params before": CALL.replace(b'"params"', b'"params":{"name":"smuggled"},"params"'),
    "the name": CALL.replace(b"MORE", b',"name":"smuggled"'),
    "the name before": CALL.replace(b'"name"', b'"name":"smuggled","name"'),
    "the name in another spelling": CALL.replace(b"MORE", b',"\\u006eame":"smuggled"'),
    "the name in another spelling before": CALL.replace(b'"name"', b'"\\u006eame":"smuggled","name"'),
    "the name in another case": CALL.replace(b"MORE", b',"Name":"smuggled"'),
    "the name and NUL": CALL.replace(b"MORE", b',"name\\u0000":"smuggled"'),
    "arguments": CALL.replace(b"MORE", b',"arguments":{"text":"smuggled"}'),
    "arguments in another spelling": CALL.replace(b"MORE", b',"argument\\u0073":{"text":"smuggled"}'),
    "an argument": CALL.replace(b'"arguments":{}', b'"arguments":{"region":"eu","region":"us"}'),
    "metadata": CALL.replace(b"MORE", b',"_meta":{"row":"ID"META}'),
    "metadata in another spelling": CALL.replace(b"MORE", b',"_m\\u0065ta":{"row":"ID"META}'),
    "a member of the metadata": CALL.replace(b'"row":"ID"', b'"row":"ID","progressToken":"a","progressToken":"b"'),
    "the version": CALL.replace(b"META", b'META,"io.modelcontextprotocol/protocolVersion":"2025-11-25"'),
    "the capabilities": CALL.replace(
        b"META", b'META,"io.modelcontextprotocol/clientCapabilities":{"experimental":{}}'
    ),
    "the version in another spelling": CALL.replace(
        b"META", b'META,"io.modelcontextprotocol\\u002fprotocolVersion":"2026-07-28"'
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One body. `verdict` says what must become of it; `either` where it depends on what the field decides."""

    name: str
    body: bytes
    verdict: str


def rows(*, modern: bool) -> Iterator[Row]:
    """Every place with everything that can stand there."""
    for number, (name, template, verdict) in enumerate(_templates(), 1):
        body = template.replace(b"META", b"," + META if modern else b"")
        body = body.replace(b"ID", str(number).encode())
        yield Row(name, body.replace(b"MORE", b"").replace(b"MOST", b""), verdict)


def _templates() -> Iterator[tuple[str, bytes, str]]:
    texts = [(name, b'"' + text + b'"', "refused") for name, text in BAD_TEXT.items()]
    texts += [(name, b'"' + text + b'"', "carried") for name, text in GOOD_TEXT.items()]
    values = [(name, value, "refused") for name, value in BAD_VALUE.items()]
    values += [(name, value, "carried") for name, value in GOOD_VALUE.items()]
    for place, template in (OPEN | JUDGED).items():
        for name, value, verdict in texts if b"#" in template else texts + values:
            either = verdict == "carried" and place in JUDGED
            filled = template.replace(b"@", value).replace(b"#", value)
            yield f"{name} as {place}", filled, "either" if either else verdict
    for name, template in TWICE.items():
        yield f"twice: {name}", template, "either"
    for name, space in GOOD_SPACE.items():
        yield f"{name} between tokens", WHOLE.replace(b"~", space), "carried"
    slots = WHOLE.count(b"~")
    for name, space in BAD_SPACE.items():
        for slot in range(0, slots, 3):
            parts = WHOLE.split(b"~")
            yield (
                f"{name} at {slot}",
                b"".join(parts[: slot + 1]) + space + b"".join(parts[slot + 1 :]),
                "refused",
            )
