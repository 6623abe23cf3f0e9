"""The audit log: who did what, when, with what outcome, in records that are chained by hashes.

Services, commands and the registry write it. Who may do something is decided elsewhere (services/access).
"""

from hone.audit.chain import Verification, records, verify
from hone.audit.log import (
    REQUESTED,
    STANDARD_OUTPUT,
    Audit,
    AuditLog,
    AuditStream,
    Details,
    open_log,
    operator,
    recorded,
)

__all__ = [
    "REQUESTED",
    "STANDARD_OUTPUT",
    "Audit",
    "AuditLog",
    "AuditStream",
    "Details",
    "Verification",
    "open_log",
    "operator",
    "recorded",
    "records",
    "verify",
]
