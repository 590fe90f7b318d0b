"""Calls that stay with their request: of a legacy client, or of one that cannot be asked anything.

Questions of a modern server come as results, and the request is sent again with their answers; those of a legacy
server come while it works. Both are put to a legacy client on the stream of its request.
"""

import secrets
from dataclasses import replace
from functools import partial
from typing import Final

from mcphost.broker.asking import Asker, ask_together
from mcphost.broker.call import Call
from mcphost.broker.calltime import CallTime
from mcphost.broker.client import Client
from mcphost.broker.hearing import Hears, refuse
from mcphost.broker.request import Around
from mcphost.broker.roundtrip import Finished, send
from mcphost.protocol import inputs
from mcphost.protocol.inputs import InputRequest
from mcphost.protocol.jsonrpc import Fields
from mcphost.protocol.rounds import Rounds
from mcphost.workers.hearing import Question
from mcphost.workers.owners import Need

_SALT_BYTES: Final = 9  # makes ids that no other call has; nothing secret depends on them


async def carry(around: Around, call: Call) -> Finished:
    """The worker's last answer: of a modern client's call the first, of a legacy one's what is no question.

    Waiting for a process to itself counts against the call's deadline; neither waiting for a slot of the shared one
    does, which has a bound of its own, nor what the client takes to answer. Between two
    rounds no process is held; a server's state goes back to the process that made it.
    """
    client = call.request.client
    time = CallTime(call.seconds, around.asking.answer_seconds)
    need, carried = replace(call.need, queueing=time.queueing), call.rounds
    hears = Hears()
    rounds: Rounds | None = None
    with time.running():
        finished = await _once(around, call, need, carried, time, hears)
        while client.era == "legacy":
            members = finished.asks_for_input
            if members is None:
                break
            required = inputs.read(call.method, members)
            rounds = rounds or Rounds(client.declared, secrets.token_urlsafe(_SALT_BYTES))
            carried = rounds.retry(await ask_together(client, time, rounds.receive(required)))
            need = replace(need, instance=finished.instance if required.state is not None else "")
            hears.go_on()
            finished = await _once(around, call, need, carried, time, hears)
    return finished


async def _once(
    around: Around, call: Call, need: Need, carried: Fields, time: CallTime, hears: Hears
) -> Finished:
    request = call.request
    client = request.client
    workers = around.pool.find(call.target.server, request.owner)
    if call.is_shared:
        async with workers.share(need) as worker:
            return await send(around, request, worker, call.params)
    hears.turn_to(client, request.inbound.meta)
    async with workers.lease(need) as worker:
        sent = partial(send, around, request, worker, call.params, hearer=hears, rounds=carried)
        if client.era == "modern":
            hears.on_question = partial(_end, client, time)
        elif need.declared.parts:
            return await Asker(client, time).during(hears, sent)
        return await sent()


def _end(client: Client, time: CallTime, question: Question) -> None:
    """A modern client that cannot be asked this: its call ends with what it would have to declare."""
    refuse(question)
    missing = inputs.undeclared([InputRequest(question.method, question.params)], client.declared)
    if missing:
        time.stop(inputs.needs(missing))
