"""What a connection is told of without asking: lists and resources that change, and tasks."""

from typing import TYPE_CHECKING

from fixture_parts.tasks import need_tasks
from fixture_parts.wire import INVALID_PARAMS, META, RpcError

if TYPE_CHECKING:
    from fixture_parts.calls import Call
    from fixture_parts.tasks import Task

LIST_KINDS = {
    "toolsListChanged": "tools",
    "promptsListChanged": "prompts",
    "resourcesListChanged": "resources",
}


def refuse_foreign(uri: str) -> None:
    """A URI of the scheme `foreign` is one that this server will not watch."""
    if uri.startswith("foreign:"):
        raise RpcError(INVALID_PARAMS, f"Not to be watched: {uri}")


class Changes:
    """The subscriptions of one connection, and what may change. The rest of the server adds `era` and `notify`."""

    def __init__(self) -> None:
        self.subscribed: set = set()
        self.listening: dict = {}
        self.extra_tools: list[str] = []
        self.extra_prompts: list[str] = []

    def listen(self, call: "Call") -> None:
        """Begin a stream for what is known of what was wanted."""
        wanted = call.params.get("notifications") or {}
        for uri in wanted.get("resourceSubscriptions") or ():
            refuse_foreign(uri)
        honoured = {key: True for key in LIST_KINDS if wanted.get(key)}
        if uris := wanted.get("resourceSubscriptions"):
            honoured["resourceSubscriptions"] = uris
        if task_ids := wanted.get("taskIds"):
            need_tasks(call)
            honoured["taskIds"] = task_ids
        self.listening[call.id] = honoured
        self._tell(call.id, "notifications/subscriptions/acknowledged", {"notifications": honoured})

    def end_listening(self) -> int:
        """Answer every listener as one does that goes away; give how many there were."""
        ended = list(self.listening)
        self.listening.clear()
        for listen_id in ended:
            meta = {META + "subscriptionId": listen_id, META + "serverInfo": self.info}
            result = {"resultType": "complete", "_meta": meta}
            self.send({"jsonrpc": "2.0", "id": listen_id, "result": result})
        return len(ended)

    def toggle(self, kind: str, name: str) -> list[str]:
        """Add an entry to a list, or take it away again, and tell whoever wants to know."""
        extra = self.extra_tools if kind == "tools" else self.extra_prompts
        if name in extra:
            extra.remove(name)
        else:
            extra.append(name)
        self.announce(kind)
        return extra

    def announce(self, kind: str) -> int:
        """Tell that a list changed; give how many were told."""
        method, told = f"notifications/{kind}/list_changed", 0
        if self.era != "modern":
            self.notify(method, {})
            told += 1
        for listen_id, honoured in self.listening.items():
            if any(LIST_KINDS.get(key) == kind for key in honoured):
                told += self._tell(listen_id, method, {})
        return told

    def announce_update(self, uri: str) -> int:
        """Tell that a resource changed; give how many were told."""
        method, told = "notifications/resources/updated", 0
        if self.era != "modern" and uri in self.subscribed:
            self.notify(method, {"uri": uri})
            told += 1
        for listen_id, honoured in self.listening.items():
            if uri in honoured.get("resourceSubscriptions", ()):
                told += self._tell(listen_id, method, {"uri": uri})
        return told

    def announce_task(self, task: "Task") -> None:
        for listen_id, honoured in self.listening.items():
            if task.id in honoured.get("taskIds", ()):
                self._tell(listen_id, "notifications/tasks", task.detailed())

    def _tell(self, listen_id: object, method: str, params: dict) -> int:
        self.notify(method, {"_meta": {META + "subscriptionId": listen_id}} | params)
        return 1
