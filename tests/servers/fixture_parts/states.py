"""The states that a modern client hands back with its answers: random names for what earlier rounds were answered."""

import os

from fixture_parts.wire import INVALID_PARAMS, RpcError

REMEMBERED = 10_000


class States:
    def __init__(self) -> None:
        self._rounds: dict[str, tuple] = {}

    def mint(self, method: str, name: str | None, rounds: list[dict]) -> str:
        if len(self._rounds) == REMEMBERED:
            del self._rounds[next(iter(self._rounds))]
        state = os.urandom(16).hex()
        self._rounds[state] = (method, name, tuple(rounds))
        return state

    def open(self, state: object, method: str, name: str | None) -> tuple:
        found = self._rounds.get(state) if isinstance(state, str) else None
        if found is None or found[:2] != (method, name):
            raise RpcError(INVALID_PARAMS, "Unknown requestState")
        return found[2]
