from __future__ import annotations

import logging

import pytest

from hone.services.routes.edge import MOST_REFUSALS, Edge
from hone.services.settings import Settings


def logged(edge: Edge, status: int, times: int) -> None:
    for _ in range(times):
        edge.log("id", "digits:1", "predict", status, 0.001, 1, "")


@pytest.mark.parametrize(
    ("access_log", "status", "all_of_them"), [("errors", 503, False), ("errors", 500, True), ("all", 503, True)]
)
def test_refusals_have_few_lines_and_other_errors_one_each(
    caplog: pytest.LogCaptureFixture, access_log: str, status: int, all_of_them: bool
) -> None:
    edge = Edge(Settings(access_log=access_log))
    with caplog.at_level(logging.INFO, "hone.access"):
        logged(edge, status, 1000)
        lines = len(caplog.records)
        assert lines == 1000 if all_of_them else MOST_REFUSALS <= lines < 500
        if not all_of_them:
            edge._logged_since -= 1.0  # a second later
            logged(edge, status, 1)
            assert any("more requests were refused" in record.getMessage() for record in caplog.records)
