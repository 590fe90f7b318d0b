"""What a call hears while it is under way, from a real server: and when a question is nobody's any more."""

import anyio
import pytest

from harness import fixture_server, make_policy
from leasing import ASKED, Ear, sets_of, use
from mcphost.errors import WorkerDied
from mcphost.protocol.jsonrpc import ErrorObject, raw

pytestmark = pytest.mark.kernel

LEGACY = make_policy({"fix": fixture_server("--era", "legacy")})


async def test_a_question_is_answered_or_refused_once_and_is_over_with_its_call() -> None:
    async with sets_of(LEGACY) as (_, workers), workers.lease(ASKED) as worker:
        for answer in (raw({"action": "accept", "content": {"answer": "Ada"}}), ErrorObject(-1, "not now")):
            ear = Ear()
            results = []
            async with anyio.create_task_group() as tasks:

                async def call(ear: Ear = ear, results: list = results) -> None:
                    results.append(await use(worker, "ask", ear, message="name?"))

                tasks.start_soon(call)
                await ear.heard.wait()
                (question,) = ear.questions
                assert (question.method, question.is_open) == ("elicitation/create", True)
                reply = question.refuse if isinstance(answer, ErrorObject) else question.answer
                reply(answer)
                question.answer(raw({"action": "accept", "content": {"answer": "Eve"}}))
                question.refuse(ErrorObject(-2, "twice"))
            assert ("Ada" in str(results)) == (not isinstance(answer, ErrorObject))
            assert "Eve" not in str(results)
            assert "twice" not in str(results)


@pytest.mark.parametrize("how", ["the call is cancelled", "the worker dies"])
async def test_an_open_question_is_withdrawn_when_nobody_can_hear_its_answer(how: str) -> None:
    async with sets_of(LEGACY) as (_, workers), workers.lease(ASKED) as worker:
        ear = Ear()
        withdrawn = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                with pytest.raises(WorkerDied):
                    await use(worker, "ask", ear, message="name?")

            tasks.start_soon(call)
            await ear.heard.wait()
            (question,) = ear.questions
            question.on_withdrawn = withdrawn.set
            if how == "the worker dies":
                await worker.kill("killed")
                await withdrawn.wait()
            tasks.cancel_scope.cancel()
        assert withdrawn.is_set()
        assert not question.is_open
        question.answer(raw({}))
