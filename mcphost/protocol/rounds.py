"""A legacy client in front of a modern server: questions inside results become requests, their answers a retry.

begin ──input_required──> asking ──every answer──> begin     at most `MAX_ROUNDS` times
begin ──any other result──> (the call is over)

The machine says whom to ask what and what to send next. It does not ask, wait or send.
Source: 2026-07-28, basic/patterns/mrtr; 2025-11-25, client.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Raw

from mcphost.errors import ServerError, UpstreamProtocolError
from mcphost.protocol import inputs, jsonrpc
from mcphost.protocol.asking import Declared
from mcphost.protocol.inputs import InputRequest, InputRequired
from mcphost.protocol.jsonrpc import Fields, Message

# How often one call may be answered with questions; a server that never has enough would hold a call for ever.
MAX_ROUNDS: Final = 10


class Rounds:
    """The rounds of one call."""

    def __init__(self, declared: Declared, salt: str) -> None:
        """`salt` is unlike that of any other call; ids that the older era wants and the newer lacks begin with it."""
        self._declared = declared
        self._salt = salt
        self._asked: InputRequired | None = None
        self.count = 0

    def __repr__(self) -> str:
        return f"<Rounds {self.count}, {'asking' if self._asked is not None else 'begin'}>"

    def receive(self, required: InputRequired) -> Mapping[str, InputRequest]:
        """The questions to put to the client, all at once, by the server's keys. May be none.

        Raises:
            UpstreamProtocolError: the client did not declare what is asked for, or the rounds are used up.
        """
        if self._asked is not None:
            raise RuntimeError("questions are open already")
        self.count += 1
        if self.count > MAX_ROUNDS:
            raise UpstreamProtocolError(f"the server asked for input more than {MAX_ROUNDS} times")
        missing = inputs.undeclared(required.requests.values(), self._declared)
        if missing:
            names = ", ".join(sorted(missing))
            raise UpstreamProtocolError(f"the server asked for what this client has not declared: {names}")
        self._asked = required
        return {
            key: InputRequest(each.method, self._legacy_params(each, number))
            for number, (key, each) in enumerate(required.requests.items(), start=1)
        }

    def retry(self, answers: Mapping[str, Message]) -> Fields:
        """What the next request carries beside its own params: the answers, and the server's state unchanged.

        Raises:
            ServerError: the client answered with this error, which ends the call.
        """
        asked, self._asked = self._asked, None
        if asked is None:
            raise RuntimeError("no questions are open")
        for answer in answers.values():
            if answer.kind == "error":
                error = jsonrpc.error_object(answer.body)
                raise ServerError(error.code, error.message, bytes(error.data))
        carried: Fields = {}
        if asked.requests:
            carried[inputs.RESPONSES] = jsonrpc.raw({key: answers[key].body for key in asked.requests})
        if asked.state is not None:
            carried[inputs.STATE] = asked.state
        return carried

    def _legacy_params(self, request: InputRequest, number: int) -> Raw:
        """The params of the older era: an elicitation by URL has an id there (client/elicitation, "URL Mode")."""
        if request.method != "elicitation/create":
            return request.params
        members = jsonrpc.fields(request.params)
        if jsonrpc.text(members.get("mode")) != "url" or "elicitationId" in members:
            return request.params
        members["elicitationId"] = jsonrpc.raw(f"{self._salt}-{self.count}-{number}")
        return jsonrpc.raw(members)
