"""What a client is told of a worker's answer: its result, its error, or what it is to be asked first."""

from collections.abc import Mapping

from msgspec import Raw

from mcphost.broker.call import Call
from mcphost.broker.endpoints import names_of
from mcphost.broker.request import Around
from mcphost.broker.roundtrip import Finished
from mcphost.broker.states import States
from mcphost.broker.tasks import Tasks
from mcphost.errors import ServerError
from mcphost.protocol import bridge, inputs, jsonrpc, rewriting
from mcphost.protocol.inputs import InputRequest
from mcphost.protocol.jsonrpc import Fields


class Answers:
    """Brings workers' answers into the era and under the names of whoever called."""

    def __init__(self, around: Around, states: States, tasks: Tasks) -> None:
        self._around = around
        self._states = states
        self._tasks = tasks

    def of(self, call: Call, finished: Finished) -> Raw:
        """A worker's answer in the client's era."""
        client = call.request.client
        if client.era == "modern":
            asked = self._asked(call, finished)
            if asked is not None:
                return asked
        try:
            result = finished.result(uri=call.uri)
        except ServerError as error:
            error.raw_data = rewriting.expose_error(error.raw_data, call.target.name, call.uri)
            raise
        result = rewriting.expose_uris(names_of(call.request), call.target.server, result)
        result = self._tasks.given(call.request, call.target.server, finished, result)
        return bridge.to_client(
            call.method,
            result,
            finished.eras,
            server_info=self._around.info,
            extended=bridge.share_extension(client.capabilities, finished.facts.capabilities),
            may_be_kept=not call.is_repeated,
        )

    def _asked(self, call: Call, finished: Finished) -> Raw | None:
        """What a modern client is asked in place of a result; None if it is not.

        Raises:
            DownstreamProtocolError: -32021, it has not declared what is asked for.
        """
        members = finished.asks_for_input
        if members is not None:
            required = inputs.read(call.method, members)
            state = None
            if required.state is not None:
                state = self._states.of_worker(call, finished.instance, bytes(required.state))
            return self.asking(call, required.requests, state, members)
        if (
            finished.message.kind != "error"
            or finished.eras.worker == "modern"
            or call.method not in inputs.ASKABLE
        ):
            return None
        questions = bridge.elicitations(jsonrpc.error_object(finished.message.body))
        return None if questions is None else self.asking(call, questions, None)

    def asking(
        self,
        call: Call,
        questions: Mapping[str, InputRequest],
        state: str | None,
        members: Fields | None = None,
    ) -> Raw:
        """A result of type `input_required` with these questions and this state of ours."""
        missing = inputs.undeclared(questions.values(), call.request.client.declared)
        if missing:
            raise inputs.needs(missing)
        call.request.record.extra["asked"] = len(questions)
        written = inputs.with_state(members, state) if members else inputs.write(questions, state)
        return jsonrpc.raw(bridge.modern_result(call.method, written, self._around.info, inputs.KIND))
