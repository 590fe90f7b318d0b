"""Two clocks of one call: what the server takes, and what the client takes to answer."""

import anyio
import pytest

from mcphost.broker.calltime import CallTime
from mcphost.errors import CallTimeout, Overloaded, Unanswered, WorkerUnavailable

SOON = 0.01
NEVER = 600.0


async def test_a_server_that_takes_too_long_is_a_timeout() -> None:
    with pytest.raises(CallTimeout, match=r"0\.01 s"), CallTime(SOON, NEVER).running():
        await anyio.sleep_forever()


async def test_a_client_that_takes_too_long_has_not_answered() -> None:
    time = CallTime(NEVER, SOON)
    with pytest.raises(Unanswered, match=r"0\.01 s"), time.running(), time.asking():
        await anyio.sleep_forever()


async def test_the_servers_time_stands_still_while_the_client_is_asked_by_anybody() -> None:
    time = CallTime(SOON, NEVER)

    async def ask_twice_and_work_on() -> None:
        with time.asking():
            with time.asking():
                await anyio.sleep(2 * SOON)
            assert "the client is waited for" in repr(time)
            await anyio.sleep(2 * SOON)
        asked.append(True)
        await anyio.sleep_forever()

    asked: list[bool] = []
    with pytest.raises(CallTimeout), time.running():
        await ask_twice_and_work_on()
    assert asked
    assert "the server is waited for" in repr(time)


async def test_all_that_a_client_takes_is_counted_together_unless_it_came_back() -> None:
    time = CallTime(NEVER, 3 * SOON)

    async def ask_often() -> None:
        for _ in range(100):
            with time.asking():
                await anyio.sleep(SOON)

    with pytest.raises(Unanswered), time.running():
        await ask_often()
    time = CallTime(NEVER, 60.0)
    with time.running():
        with time.asking():
            await anyio.sleep(SOON)
        assert time._answer_left < 60.0
        time.refill()
        assert time._answer_left == 60.0


async def test_no_time_counts_while_a_call_waits_for_its_turn() -> None:
    time = CallTime(2 * SOON, NEVER)
    with time.running():
        with time.queueing():
            await anyio.sleep(4 * SOON)
        assert time._left <= 2 * SOON


async def test_after_its_turn_has_come_a_call_has_no_more_time_than_it_had() -> None:
    time = CallTime(SOON, NEVER)

    async def take_a_turn() -> None:
        with time.queueing():
            await anyio.sleep(2 * SOON)
        await anyio.sleep_forever()

    with pytest.raises(CallTimeout), time.running():
        await take_a_turn()


async def test_a_call_that_is_stopped_ends_with_the_first_reason_given() -> None:
    time = CallTime(NEVER, NEVER)

    async def be_stopped() -> None:
        time.stop(Overloaded("first", retry_after=1.0))
        time.stop(WorkerUnavailable("second"))
        with time.asking():
            await anyio.sleep_forever()

    with pytest.raises(Overloaded), time.running():
        await be_stopped()


async def test_a_call_that_ends_in_time_gives_what_it_gives() -> None:
    time = CallTime(NEVER, NEVER)
    with time.running(), time.asking():
        pass
    with pytest.raises(ValueError, match="own"), CallTime(NEVER, NEVER).running():
        raise ValueError("own")
