"""What was heard is told once for each thing, and where it was too much, that everything may have changed."""

import anyio
import anyio.lowlevel
import pytest

from mcphost.protocol import jsonrpc, listening
from mcphost.protocol.listening import Heard
from mcphost.workers import news as news_module
from mcphost.workers.news import News

SECONDS = 20


class Told:
    """What a `News` told, in order; None where it told everything."""

    def __init__(self) -> None:
        self.all: list[Heard | None] = []
        self._came = anyio.Event()

    def one(self, heard: Heard) -> None:
        self.all.append(heard)
        self._came.set()

    async def everything(self) -> None:
        self.all.append(None)
        self._came.set()

    async def wait_some(self) -> None:
        with anyio.fail_after(SECONDS):
            await self._came.wait()
        self._came = anyio.Event()


def task(state: str) -> Heard:
    return Heard("notifications/tasks", {"status": jsonrpc.raw(state)}, task="t")


async def test_of_two_that_tell_of_the_same_the_later_one_is_told_and_others_beside_it() -> None:
    told = Told()
    news = News(told.one, told.everything)
    heard = [task("working"), listening.list_changed("tools"), task("completed"), listening.updated("u")]
    for each in (*heard, listening.list_changed("tools")):
        assert news.add(each)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(news.tell)
        while len(told.all) < 3:
            await told.wait_some()
        tasks.cancel_scope.cancel()
    assert sorted(each.key for each in told.all if each) == sorted({each.key for each in heard})
    assert task("completed") in told.all


async def test_what_comes_after_something_was_told_is_told_later_and_once() -> None:
    told = Told()
    news = News(told.one, told.everything)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(news.tell)
        news.add(listening.list_changed("tools"))
        await told.wait_some()
        for _ in range(3):
            news.add(listening.list_changed("tools"))
        await told.wait_some()
        tasks.cancel_scope.cancel()
    assert told.all == [listening.list_changed("tools")] * 2


@pytest.mark.parametrize(("bound", "most"), [("MAX_NEWS", 2), ("MAX_NEWS_BYTES", 10)])
async def test_where_it_is_too_much_everything_is_told_to_have_changed(
    bound: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news_module, bound, most)
    told = Told()
    news = News(told.one, told.everything)
    held = [news.add(listening.updated(f"file:///{number}")) for number in range(3)]
    assert held[0] is (bound == "MAX_NEWS")
    assert False in held
    assert len(news._held) <= most
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(news.tell)
        await told.wait_some()
        tasks.cancel_scope.cancel()
    assert told.all[0] is None


async def test_others_have_their_turn_between_two_things_that_are_told() -> None:
    """A server may tell of many things, and each goes to everybody who listens."""
    turns: list[str] = []
    told = Told()
    news = News(lambda heard: turns.append(heard.uris[0]), told.everything)

    async def another() -> None:
        while len(turns) < 6:
            turns.append("another")
            await anyio.lowlevel.checkpoint()

    for uri in ("a", "b", "c"):
        news.add(listening.updated(uri))
    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(news.tell)
            await another()
            tasks.cancel_scope.cancel()
    between = turns[turns.index("a") : turns.index("c")]
    assert between.count("another") >= 2
