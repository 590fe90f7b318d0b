"""The program inside: takes attacks and canaries from standard input, tries one after the other, says how each ended."""

import errno
import json
import os
import select
import signal
import sys
import types

# An emulated machine is slow.
SECONDS = 20


def install(sources: list[list[str]]) -> dict[str, types.ModuleType]:
    """Make the modules of the attacks; there are no files to import them from in here."""
    package = types.ModuleType("attacks")
    package.__path__ = []
    sys.modules["attacks"] = package
    for name, source in sources:
        module = types.ModuleType(name)
        sys.modules[name] = module
        exec(compile(source, name, "exec"), module.__dict__)
    return sys.modules


def outcome(program, reached, canaries) -> list[str]:
    """How an attack ended, as [verdict, detail]."""
    try:
        found = program(canaries)
    except reached as error:
        return ["reached", str(error)]
    except OSError as error:
        return ["blocked", errno.errorcode.get(error.errno or 0, str(error))]
    except MemoryError:
        return ["blocked", "ENOMEM"]
    except RuntimeError as error:
        return ["blocked", str(error)]
    except Exception as error:  # noqa: BLE001 - whatever an attack trips over is an outcome to be told
        return ["broken", f"{type(error).__name__}: {error}"]
    return ["open", str(found)[:200]] if found else ["blocked", "nothing came of it"]


def attempt(program, reached, canaries) -> list[str]:
    """Try an attack in a process of its own."""
    answer, answer_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            os.write(answer_end, json.dumps(outcome(program, reached, canaries)).encode()[:4000])
        finally:
            os._exit(0)
    os.close(answer_end)
    ready, _, _ = select.select([answer], [], [], SECONDS)
    data = os.read(answer, 65536) if ready else b""
    os.close(answer)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if data:
        return json.loads(data)
    code = os.waitstatus_to_exitcode(status)
    return ["blocked", signal.Signals(-code).name if code < 0 else "it did not come back"]


def main() -> None:
    """Read, try, say."""
    told = json.loads(sys.stdin.buffer.readline())
    modules = install(told["sources"])
    modules["attacks.hostile"].NUMBERS.update(told["numbers"])
    modules["attacks.hostile"].SAID_TO_BE_MISSING.update(told["said_to_be_missing"])
    reached = modules["attacks.attack"].Reached
    attacks = {attack.name: attack for name in told["groups"] for attack in modules[name].rows.attacks}
    canaries = {**told["canaries"], "supervisor": os.getppid()}
    for name in told["attacks"]:
        attack = attacks[name]
        verdict = (outcome if attack.first else attempt)(attack.program, reached, canaries)
        sys.stdout.write(json.dumps([name, *verdict]) + "\n")
        sys.stdout.flush()
    sys.stdout.write('["done"]\n')
    sys.stdout.flush()
    # Whoever started this looks around first.
    sys.stdin.buffer.read()


main()
