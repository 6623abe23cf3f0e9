"""A real Prometheus that scrapes the pods, and our rule of prometheus-adapter, asked of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from hone.k8s.autoscaler.hpa.calculator import Sample
from hone.services.launch import free_port
from tests.servers import wait_ready

RULES = Path(__file__).parents[3] / "k8s" / "monitoring" / "prometheus-adapter.yaml"


@dataclass(frozen=True)
class Prometheus:
    """A running one.

    Attributes:
        client: of it.
        window_s: of rates, in place of the minute that the rule has.
    """

    client: httpx.Client
    window_s: float

    def samples(self, namespace: str, metric: str) -> Mapping[str, Sample]:
        """Return what the rule of a metric says of each pod, as the adapter would."""
        rules = yaml.safe_load(RULES.read_text())["rules"]["custom"]
        (rule,) = [rule for rule in rules if rule["name"]["as"] == metric]
        words = {
            "<<.Series>>": rule["seriesQuery"].partition("{")[0],
            "<<.LabelMatchers>>": f'namespace="{namespace}"',
            "<<.GroupBy>>": "pod",
            "[1m]": f"[{self.window_s:g}s]",
        }
        query = rule["metricsQuery"]
        for word, meaning in words.items():
            assert word in query, rule
            query = query.replace(word, meaning)
        found: list[dict[str, Any]] = self._ask(query)
        return {
            entry["metric"]["pod"]: Sample(round(1000 * float(entry["value"][1])), entry["value"][0]) for entry in found
        }

    def _ask(self, query: str) -> list[dict[str, Any]]:
        answer = self.client.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])


@contextmanager
def prometheus(targets: Path, folder: Path, scrape_s: float, window_s: float) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes the pods of a file, until the end of the block."""
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(_configuration(targets, scrape_s)))
    url = f"http://127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={url[7:]}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=url, timeout=10) as client:
            wait_ready(client, process, folder / "log", path="/-/ready")
            yield Prometheus(client, window_s)
    finally:
        process.terminate()
        process.wait()


def _configuration(targets: Path, scrape_s: float) -> dict[str, Any]:
    milliseconds = f"{round(scrape_s * 1000)}ms"
    discovery = {"files": [str(targets)], "refresh_interval": "1s"}
    return {
        "global": {"scrape_interval": milliseconds, "scrape_timeout": milliseconds},
        "scrape_configs": [{"job_name": "pods", "file_sd_configs": [discovery]}],
    }
