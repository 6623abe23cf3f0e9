"""MLflow, asked for something: where it is, and its errors as one line."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from hone.errors import HoneError, UnavailableError, one_line

from .registry import folder

VERSION = "hone.version"
"""The tag of a model version that Hone put there: its version in the store."""
DATABASE, ARTIFACTS = "mlflow.db", "mlflow"
"""Beside the registry's files, where no place is given."""

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}
"""Of MLflow, where the environment says nothing else: it tells nobody, draws nothing, and soon says what is wrong."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Place:
    """Where MLflow keeps things.

    Attributes:
        uri: of the tracking server or its database: sqlite:///FILE, postgresql://…, https://….
        artifacts: folder or address (s3://…) of a database's artifacts; a server has its own.
    """

    uri: str
    artifacts: str = ""

    @property
    def scheme(self) -> str:
        """What kind of place it is: postgresql, https, …; an address may hold a password, this doesn't."""
        return self.uri.partition(":")[0]

    @classmethod
    def of(cls, uri: str, artifacts: str = "") -> Place:
        """Return what was given.

        Without an address it is a SQLite file beside the store. A database's artifacts lie there too if no place is
        given, not in the folder where the command happens to run. A tracking server has a place of its own.
        """
        uri = uri or f"sqlite:///{folder() / DATABASE}"
        is_server = uri.startswith(("http:", "https:"))
        return cls(uri, artifacts or ("" if is_server else str(folder() / ARTIFACTS)))

    @classmethod
    def from_environment(cls) -> Place:
        """Return what MLFLOW_TRACKING_URI says, as for MLflow itself."""
        return cls.of(os.environ.get("MLFLOW_TRACKING_URI", ""))


def asked(place: Place, use: Callable[[Any], Answer]) -> Answer:
    """Do something with a client of MLflow.

    Args:
        use: is given an `mlflow.MlflowClient`.

    Raises:
        UnavailableError: MLflow, the database's driver or the object store's client isn't installed.
        HoneError: MLflow can't be reached, or refuses; what `use` raises of its own goes through.
    """
    for variable, value in SETTINGS.items():
        os.environ.setdefault(variable, value)
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise UnavailableError("mlflow is not installed", "pip install 'hone[ops]'") from None
    for library in ("mlflow", "alembic"):  # they tell of each table
        logging.getLogger(library).setLevel(logging.WARNING)
    folder().mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(place.uri)
    mlflow.set_registry_uri(place.uri)
    try:
        return use(mlflow.MlflowClient(place.uri, place.uri))
    except HoneError:
        raise
    except ModuleNotFoundError as error:
        raise _lacking(place, error) from None
    except MlflowException as error:
        raise HoneError(f"MLflow: {one_line(error)}") from error
    except Exception as error:  # of a database or an object store, each with errors of its own
        raise HoneError(f"MLflow: {type(error).__name__}: {one_line(error)}") from error


def _lacking(place: Place, error: ModuleNotFoundError) -> UnavailableError:
    """Say what to install for the address of a database, or of the artifacts."""
    if error.name in ("boto3", "botocore"):
        return UnavailableError("s3 needs boto3", "pip install 'hone[s3]'")
    return UnavailableError(f"{place.scheme} needs {error.name}", f"install a driver of SQLAlchemy for {place.scheme}")
