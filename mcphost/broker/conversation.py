"""A call of a modern client that a server may ask in the middle of it: it goes on while its client is away.

    working ──the server asks──> shown ──the client comes back──> working
    shown ──nobody comes back in time, or the client withdrew──> over
    working ──the server's answer, an error, the deadline──> over

The call runs in a task of the parking's, so that it outlives the request that began it; each request of the client is
one round of it. A round that is cancelled ends the call.
"""

from dataclasses import replace
from typing import Final

import anyio

from mcphost.broker.call import Call
from mcphost.broker.calltime import CallTime
from mcphost.broker.hearing import Hears, refuse
from mcphost.broker.request import Around, Request
from mcphost.broker.roundtrip import Finished, send
from mcphost.decisions.admission import Place
from mcphost.decisions.identity import Principal
from mcphost.errors import INTERNAL_ERROR, McpHostError, WorkerUnavailable
from mcphost.protocol import inputs
from mcphost.protocol.gathering import Gathering
from mcphost.protocol.inputs import InputRequest
from mcphost.protocol.jsonrpc import ErrorObject, Fields
from mcphost.workers.hearing import Question

# A server that asks several things at once does so in several messages. A round is shown once none has come for so
# long, which two lines of one program stay below, and a client hardly notices.
QUIET_SECONDS: Final = 0.02
GATHER_SECONDS: Final = 0.5  # one that keeps asking is shown what it has asked by then

_WITHDRAWN: Final = ErrorObject(INTERNAL_ERROR, "the client does not answer any more")


class Conversation:
    """One call in as many rounds as it takes."""

    def __init__(self, around: Around, call: Call) -> None:
        self._around = around
        self._call = call
        self._time = CallTime(call.seconds, around.asking.answer_seconds)
        self._hears = Hears(self._asked)
        self._questions: Gathering[Question] = Gathering()
        self._news = anyio.Event()
        self._parked: anyio.Event | None = None
        self._away_since = 0.0
        self._told_by_then: object = None  # what client and server had said to each other then
        self._outcome: Finished | Exception | None = None
        self.place: Place | None = None
        self.id = ""  # under which it is parked, or was at last
        self.workers = around.pool.find(call.target.server, call.request.owner)
        self.waits = True  # for a process, as long as it has none
        self._hears.turn_to(call.request.client, call.request.inbound.meta)

    def __repr__(self) -> str:
        state = "over" if self._outcome is not None else "parked" if self._parked is not None else "working"
        return f"<Conversation {state}, {self._questions!r}>"

    @property
    def principal(self) -> Principal:
        """Whose it is."""
        return self._call.request.caller.principal

    @property
    def is_over(self) -> bool:
        """Whether it has an outcome, and so no process."""
        return self._outcome is not None

    @property
    def away_seconds(self) -> float:
        """How long its client has owed answers, of one that is parked: one that comes back without any stays away."""
        return anyio.current_time() - self._away_since

    # --- the call ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry the call to its end, and be there for its client until it has that. Raises nothing."""
        try:
            with self._time.running():
                await self._work()
                if self._parked is not None:
                    await self._parked.wait()  # it ended while the client was away
        except McpHostError as error:
            self._end(error)
        finally:
            self._end(WorkerUnavailable("the runtime is stopping"))

    async def _work(self) -> None:
        call, around = self._call, self._around
        need = replace(call.need, queueing=self._time.queueing)
        try:
            async with self.workers.lease(need) as worker:
                self.waits = False
                finished = await send(
                    around, call.request, worker, call.params, hearer=self._hears, rounds=call.rounds
                )
        except Exception as error:  # noqa: BLE001 - handed to the round that waits, where it is told apart
            self._end(error)
        else:
            self._end(finished)

    def _end(self, outcome: Finished | Exception) -> None:
        """What became of the call; the first counts."""
        if self._outcome is None:
            self._outcome = outcome
        for question in self._questions.drain():
            question.refuse(_WITHDRAWN)
        if self.place is not None:
            self.place.leave()
            self.place = None
        self._news.set()

    def _asked(self, question: Question) -> None:
        if self._outcome is not None:
            question.refuse(_WITHDRAWN)
            return
        missing = inputs.undeclared(
            [InputRequest(question.method, question.params)], self._call.request.client.declared
        )
        if missing:
            refuse(question)
            self.stop(inputs.needs(missing))
        elif self._questions.add(question):
            question.on_withdrawn = lambda: self._questions.withdraw(question)
            self._news.set()
        else:
            refuse(question)

    def stop(self, why: McpHostError) -> None:
        """End the call with this error, at the server too."""
        self._end(why)
        self._time.stop(why)

    # --- its rounds -------------------------------------------------------------------------------

    async def round(self, request: Request) -> Finished | None:
        """Wait for the call's end, or for questions to show to this request's client (None; they are `shown`).

        Cancelling this ends the call.

        Raises:
            McpHostError: the call failed.
        """
        try:
            while self._outcome is None and not await self._gathered():
                pass
            if self._outcome is None:
                missing = inputs.undeclared(self._questions.shown().values(), request.client.declared)
                if missing:
                    self.stop(inputs.needs(missing))
        except BaseException:
            self.stop(WorkerUnavailable("the client went away"))
            raise
        finally:
            self._hears.turn_away()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def shown(self) -> dict[str, InputRequest]:
        """The questions that are open, by the keys that their answers come under."""
        return dict(self._questions.shown())

    async def _gathered(self) -> bool:
        """Wait until the server has asked, and asks no more for now, or the call is over. Whether questions are open."""
        if not len(self._questions):
            await self._wait_news()
        with anyio.move_on_after(GATHER_SECONDS):
            while self._outcome is None:
                with anyio.move_on_after(QUIET_SECONDS) as quiet:
                    await self._wait_news()
                if quiet.cancelled_caught:
                    break
        return len(self._questions) > 0

    async def _wait_news(self) -> None:
        if self._outcome is not None:
            return
        self._news = anyio.Event()
        await self._news.wait()

    # --- between rounds ---------------------------------------------------------------------------

    def park(self, request: Request) -> None:
        """The client was shown the questions and is away: the call keeps its place, and time runs for the client.

        It runs on where nothing was asked or answered since the last time, so nobody keeps a process by coming back.
        """
        self.place, request.place = request.place, None
        self._parked = anyio.Event()
        told = self._questions.in_all, len(self._questions)
        if told != self._told_by_then:
            self._told_by_then = told
            self._away_since = anyio.current_time()
            self._time.refill()
        self._time.wait_for_client()

    def resume(self, request: Request, responses: Fields) -> None:
        """The client is back, with answers to some of what it was shown: they go to the server. The next round begins."""
        if self._parked is not None:
            self._parked.set()
            self._parked = None
            self._time.back_to_work()
        if self.place is not None:
            self.place, request.place = None, self.place
        self._hears.turn_to(request.client, request.inbound.meta)
        for question, answer in self._questions.take(responses):
            question.answer(answer)
