"""JUnit XML, which pipelines show: a case for each thing that was judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, indent, tostring  # writes, never parses  # nosec B405

from hone.records import Verdict


@dataclass(frozen=True)
class Case:
    """One thing that was judged.

    Attributes:
        name: of it.
        verdict: undecided ones are skipped ones in JUnit's words.
        text: what was measured.
        seconds: that it took.
    """

    name: str
    verdict: Verdict
    text: str
    seconds: float = 0.0


def junit(suite: str, cases: Sequence[Case]) -> str:
    """Return the cases as JUnit XML, as Jenkins and GitLab read it."""
    verdicts = [case.verdict for case in cases]
    counts = {"tests": len(cases), "failures": verdicts.count("missed"), "skipped": verdicts.count("undecided")}
    root = Element("testsuites")
    attributes = {"name": suite, "errors": "0", **{name: str(count) for name, count in counts.items()}}
    element = SubElement(root, "testsuite", attributes)
    for case in cases:
        entry = SubElement(element, "testcase", name=case.name, classname=suite, time=f"{case.seconds:.3f}")
        if case.verdict == "missed":
            SubElement(entry, "failure", message=case.text)
        elif case.verdict == "undecided":
            SubElement(entry, "skipped", message=case.text)
        else:
            SubElement(entry, "system-out").text = case.text
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"
