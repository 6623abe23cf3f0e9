"""Ending an experiment: what is to answer is written down first, so that whoever goes on after a kill does the same."""

from __future__ import annotations

import time
from typing import Any

from hone.records import read_record
from hone.services.status.asking import Access
from hone.store.registry import registered

from ..registry.changes import Promotion, examine, promote
from .begin import noted
from .metrics import ExperimentError
from .replicas import Replicas
from .report import Report
from .state import CONTROL, Experiment, folder_of, write

REPORT = "report.json"


def end(
    experiment: Experiment, access: Access, answer: str, why: str, report: Report | None = None,
    promotion: Promotion | None = None,
) -> Experiment:  # fmt: skip
    """Give all requests to one arm in every service.

    Args:
        answer: name of the arm.
        why: it ends.
        report: what is known, to be kept.
        promotion: makes the arm's version the champion first.

    Raises:
        ExperimentError: not every service could be reached; the experiment is `stopping`, and ending it again goes on.
        HoneError: the promotion isn't made, and nothing is ended.
    """
    if promotion is not None:
        promote(promotion, f"A/B test: {why}"[:1000])
    experiment = experiment.becoming(status="stopping", answer=answer, told=why)
    evidence: Any = None
    if report is not None:
        kept = report.model_copy(update={"status": "stopped", "answer": answer, "why_ended": why})
        write(experiment.name, REPORT, kept.model_dump_json(indent=2))
        evidence = [row.model_dump() for row in report.compared[0].rows]
    with noted(experiment, f"all requests: {why}", to=answer, evidence=evidence):
        Replicas(experiment, access).end(answer)
    return experiment.becoming(status="stopped", seen_at=time.time())


def kept_report(experiment: Experiment) -> Report | None:
    """Return what was known when an experiment ended; None where nothing is kept of it.

    Raises:
        HoneError: it can't be read.
    """
    file = folder_of(experiment.name) / REPORT
    if not file.is_file():
        return None
    found = read_record(file, Report, "a report of an A/B test")
    return found if found.experiment == experiment.id else None


def chosen(experiment: Experiment, report: Report | None, asked: str) -> tuple[str, str]:
    """Return the arm that is to answer all requests, and why.

    Args:
        asked: for, by its name; empty: the winner, and the control where there is none.

    Raises:
        ExperimentError: there is no such arm, or another one was chosen before the end was interrupted.
    """
    if asked and asked not in experiment.arms:
        raise ExperimentError(f"no arm '{asked}'; there is {', '.join(experiment.arms)}")
    if experiment.status == "stopping":
        if asked not in ("", experiment.answer):
            raise ExperimentError(f"{experiment.answer} answers some of the services already; end it with that one")
        return experiment.answer, experiment.told
    if asked:
        return asked, "asked for"
    if report is None or experiment.status == "starting":
        return CONTROL, "it was interrupted as it began"
    return report.winner or CONTROL, report.told


def promotion_of(experiment: Experiment, arm: str) -> Promotion | None:
    """Return what the gates say of an arm's version; None where it is the champion already.

    Raises:
        PromotionError: a gate is closed.
    """
    tag = experiment.tag(arm)
    champion = registered(experiment.name).aliases.get("champion")
    if champion is not None and champion.version == tag.partition(":")[2]:
        return None
    found = examine(tag)
    found.refuse()
    return found
