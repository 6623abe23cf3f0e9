"""A locustfile for any service that Hone serves: `locust -f benchmarks/locustfile.py --host http://127.0.0.1:3000`.

It asks the service for its models, their inputs and example rows. Everything of Locust's works: the web page,
`--headless -u 20 -r 20 -t 30s`, `--processes`, `--csv`, `--html`. The page shows this file's own options
(`benchmarks/load/users.py`); on the command line `python -m benchmarks.locustfile --help` does, because Locust prints
its help before it reads a locustfile. `python -m benchmarks.locustfile` takes all that `locust` takes.

Locust's users are a closed loop: each waits for its answer before it sends again. For an open loop, whose latencies
don't leave out what callers of a slow service would have waited, use `hone bench`; it runs this file with a scenario
(`benchmarks/load/scenario_user.py`).
"""

import os
import sys

if os.environ.get("HONE_LOAD"):
    from hone.benchmarks.load.scenario_user import Caller
else:
    from hone.benchmarks.load.users import ArrowUser, GrpcUser, JsonUser, RowsUser, V2BinaryUser, V2JsonUser

__all__ = ["ArrowUser", "Caller", "GrpcUser", "JsonUser", "RowsUser", "V2BinaryUser", "V2JsonUser"]

if __name__ == "__main__":
    from locust.main import main

    sys.argv[1:1] = ["-f", __file__]
    main()
