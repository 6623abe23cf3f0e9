"""Locust, imported once: each line of its input is a run, in a process that is forked for it, as `--processes` forks.

A line is `{"arguments": [...], "environment": {...}, "output": PREFIX}`; it is answered by the run's exit status.
"""

from __future__ import annotations

import json
import os
import sys

from locust.main import main

import hone.benchmarks.load.users  # noqa: F401 - of the locustfile, imported once, too


def run(arguments: list[str], environment: dict[str, str], output: str) -> None:
    """Be `locust ARGUMENTS`, whose output goes to two files."""
    sys.argv[1:] = arguments
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    main()


for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        run(**asked)
        sys.exit()
    _, status = os.waitpid(child, 0)
    os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())
