# SPDX-License-Identifier: Apache-2.0
"""The rank processes of a measurement: each is given one JSON command a line and answers each with one JSON line.

Knows neither PyTorch nor networks: which command line and environment make a rank, its caller says.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time

# How long the others may take once one rank has answered with an error: they may wait for it in a collective.
GRACE_SECONDS = 10


class RankFailure(RuntimeError):
    """A command failed in every rank that was asked: the ranks are there for the next."""


class RanksLost(RuntimeError):
    """A rank ended, or did not answer: nothing more can be asked."""


class Ranks:
    """The rank processes of one world, started in rank order. A context manager."""

    def __init__(self, ranks: list[tuple[list[str], dict[str, str]]]):
        """`ranks`: of each its command line and environment."""
        self.processes, self.answers = [], []
        for command, environment in ranks:
            process = subprocess.Popen(command, env=environment, text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            answers = queue.Queue()
            threading.Thread(target=self._read, args=(process, answers), daemon=True).start()
            self.processes.append(process)
            self.answers.append(answers)

    @staticmethod
    def _read(process, answers):
        for line in process.stdout:
            if line.startswith("{"):
                answers.put(json.loads(line))
            else:  # A library that prints while it is imported.
                print(line, end="", file=sys.stderr)
        answers.put({"ended": "the process ended"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def ask(self, name: str, timeout_seconds: float = 120, only: int | None = None, **arguments) -> list[dict]:
        """Gives every rank (or `only` one) a command and waits for every answer, in rank order."""
        asked = range(len(self.processes)) if only is None else [only]
        for rank in asked:
            try:
                self.processes[rank].stdin.write(json.dumps({"name": name, **arguments}) + "\n")
                self.processes[rank].stdin.flush()
            except OSError:
                raise RanksLost(f"{name}: rank {rank} is gone") from None
        deadline = time.monotonic() + timeout_seconds
        replies, errors = [], []
        for rank in asked:
            try:
                reply = self.answers[rank].get(timeout=max(0.1, deadline - time.monotonic()))
            except queue.Empty:
                raise RanksLost("; ".join(errors + [f"{name}: rank {rank} did not answer in time"])) from None
            if "ended" in reply:
                raise RanksLost("; ".join(errors + [f"{name}: rank {rank}: {reply['ended']}"]))
            if "error" in reply:
                errors.append(f"rank {rank}: {reply['error']}")
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
            replies.append(reply.get("answer"))
        if errors:
            raise (RankFailure if len(errors) == len(replies) else RanksLost)("; ".join(errors))
        return replies


def serve(make_rank):
    """A rank process: answers each command by the method that it names of what `make_rank` makes, until `close`."""
    # Answers leave on the real standard output; whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    rank = make_rank()
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("name")
        try:
            answer = {"answer": getattr(rank, name)(**command)}
        except Exception as error:
            answer = {"error": f"{name}: {type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
        if name == "close":
            # Skip interpreter shutdown: wrapped models would outlive their process group.
            os._exit(0)
