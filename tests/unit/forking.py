"""Something that is done in a child which is forked off here and now, and what came of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

LIMIT_S = 30


def in_a_child(work: Callable[[], Any]) -> Any:
    """What `work` returns (plain values) in a forked child, which is killed if it waits for something for ever.

    Raises:
        AssertionError: it raised, or did not come back.
    """
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LIMIT_S)
            os.write(writes, json.dumps({"returned": work()}).encode())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            os.write(writes, json.dumps({"raised": repr(error)}).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}: 14 is that it waited for {LIMIT_S} s"
    answer = json.loads(told)
    assert "raised" not in answer, answer["raised"]
    return answer["returned"]
