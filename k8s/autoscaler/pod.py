"""What one pod holds and takes: from a measured capacity, or from a file of its numbers."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hone.capacity import Capacity
from hone.errors import HoneError, first_problem


class Pod(BaseModel):
    """A model of one pod: linear up to the rate at which it holds its limits, and no faster beyond."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    capacity_rps: float = Field(gt=0, description="Requests per second that it holds within the SLO.")
    latency_s: float = Field(gt=0, description="Mean seconds of a request at that rate.")
    cpu_cores: float = Field(gt=0, description="Cores that are busy at that rate.")
    start_s: float = Field(ge=0, description="Seconds from its creation until it is ready.")
    rows: int = Field(1, ge=1, description="Rows in each request.")

    @property
    def cpu_request(self) -> int:
        """Thousandths of a core; whole cores, as `hone k8s render` requests them."""
        return 1000 * max(1, math.ceil(self.cpu_cores))


def read_pod(file: Path) -> Pod:
    """Read a pod's numbers from JSON.

    Raises:
        HoneError: it can't be read, a number is missing or wrong, or there is another.
    """
    try:
        return Pod.model_validate_json(file.read_bytes())
    except OSError as error:
        raise HoneError(f"{file}: {error.strerror or error}") from None
    except ValidationError as error:
        known = ", ".join(name for name, field in Pod.model_fields.items() if field.is_required())
        raise HoneError(f"{file}: not a pod of {known}: {first_problem(error)}") from None


def pod_of(capacity: Capacity, file: Path) -> Pod:
    """Return what a measured capacity says of a pod.

    Args:
        capacity: measured.
        file: it is from, for messages.

    Raises:
        HoneError: processor or start were not measured.
    """
    cores, start = capacity.at_capacity.cpu_cores, capacity.ready_s
    if not cores or start is None or not capacity.rate or not capacity.in_flight_rows:
        raise HoneError(
            f"{file}: processor and start were not measured, because the service ran elsewhere; "
            "run hone bench capacity without --url on such a host as the pods will get"
        )
    # Little's law, turned around: what is in flight is the rate times the latency times the rows.
    latency = capacity.in_flight_rows / (capacity.rate * capacity.rows)
    return Pod(capacity_rps=capacity.rate, latency_s=latency, cpu_cores=cores, start_s=start, rows=capacity.rows)
