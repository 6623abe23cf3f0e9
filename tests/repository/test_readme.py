"""What the documents show is run as it stands there; what isn't, is listed here with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from hone.cli.main import cli
from tests.documents import PAGES, Project, blocks, commands, table_rows
from tests.servers import ROOT, self_signed

ELSEWHERE = {
    "make demo": ("takes minutes", "tests/e2e/test_demo.py", '"optimize"'),
    "make test": ("is what runs this", "Makefile", '$(TESTS) -m "not slow and not cluster"'),
    "bentoml build": ("needs the repository", "tests/services/test_bento.py", '"bentoml", "build"'),
    "bentoml serve digits:latest": ("needs that bento", "tests/services/test_bento.py", '"bentoml", "serve", bento'),
    "bentoml serve wine-shop:latest": (
        "serves on",
        "tests/k8s/test_new_service.py",
        '"bentoml", "serve", bento',
    ),
    "hone containerize": ("needs an engine", "tests/e2e/test_deployment.py", '["containerize", "digits"'),
    "hone bench capacity": ("takes minutes", "tests/e2e/test_deployment.py", '["bench", "capacity", "digits", "--p99"'),
    "hone capacity plan": ("needs a measured capacity", "tests/k8s/planning/test_cost.py", '["capacity", "plan"'),
    "hone k8s render": ("needs an image", "tests/k8s/test_readme.py", '"hone k8s render"'),
    "hone deploy preflight": ("needs a cluster", "tests/k8s/test_readme.py", '"hone deploy preflight"'),
    **{
        f"hone drift {name}": ("needs traffic", "tests/lifecycle/drift/test_check.py", f'run("{name}", "dense"')
        for name in ("check", "report", "watch")
    },
    **{
        f"hone feedback {name}": ("needs labels", "tests/lifecycle/feedback/test_check.py", f'run("{name}", ')
        for name in ("import", "check", "report", "watch")
    },
    "curl -s localhost:3000/predict -H 'content-type: application/json' -d '{\"text\":": (
        "needs a model of texts",
        "tests/services/test_steps.py",
        'for body in ({"text": texts}',
    ),
    **dict.fromkeys(
        ("uv venv litert", "uv pip install --python litert/bin/python"),
        ("installs torch's converter", "tests/converters/sources/test_torch_lite.py", "HONE_LITERT_TORCH"),
    ),
    "hone investigate": ("needs traffic", "tests/lifecycle/investigate/test_look.py", '["investigate", "dense"'),
    "curl -sS localhost:3000/models/digits/feedback": (
        "needs a service that keeps answers",
        "tests/services/feedback/test_feedback.py",
        "shop.tell(",
    ),
    "hone records delete": (
        "needs recorded traffic",
        "tests/lifecycle/records/test_delete.py",
        '"records", "delete"',
    ),
    "hone audit verify traffic": (
        "needs recorded traffic",
        "tests/services/observe/test_recording.py",
        '["audit", "verify"',
    ),
    "hone status http://localhost:3000 --capacity": (
        "needs a measured capacity and an image",
        "tests/services/status/test_status.py",
        '"--capacity", tmp_path / "capacity.json"',
    ),
    **dict.fromkeys(
        ("python -m venv perf", "sudo apt install libb64-0d", "export", "perf/bin/perf_analyzer"),
        ("installs a program of others", "tests/services/test_perf_analyzer.py", '"--concurrency-range", "1:4"'),
    ),
    **dict.fromkeys(
        ("hone retrain run", "hone retrain status", "hone retrain request"),
        ("needs a recipe that trains", "tests/lifecycle/retrain/test_run.py", '"retrain", "run", project'),
    ),
    "hone retrain watch": (
        "watches on",
        "tests/lifecycle/retrain/test_triggers.py",
        "due(loaded, journal, now())",
    ),
    **dict.fromkeys(
        ("hone retrain cronjob", "hone retrain dag"),
        ("needs a recipe with a schedule", "tests/lifecycle/retrain/test_schedules.py", '"cronjob", recipe'),
    ),
    "hone score": ("needs rows", "tests/hone/scoring/test_score.py", '["score", "dense"'),
    "hone models import": (
        "needs another host",
        "tests/hone/store/test_signing.py",
        'hone("models", "import", good, "--key"',
    ),
}
"""Commands that aren't run here: why, and the file with what runs them instead."""

BRIEFLY = "measure: {batches: [1], rounds: 3, round_ms: 5}\n"
"""Ends a recipe: how fast its variants are is no matter here."""

ROWS = {
    "`hone optimize MODEL --data FILE`": [
        "mkdir -p given && cp $(find home -name '*.onnx' | head -1) given/model.onnx",
        "(echo a,b,c,d,e,f,g,h,i,j,k,l,m; seq 99 | sed 's/.*/&,2,3,4,5,6,7,8,9,0,1,2,3/') > given/rows.csv",
        "hone optimize given/model.onnx --data given/rows.csv --dry-run | grep 'candidate onnx-fp32'",
        "test -f out/given/recipe.yaml",
    ],
    "`hone optimize RECIPE`": [
        "hone optimize recipe.yaml --dry-run",
        "hone optimize recipe.yaml --only onnx-fp32 --force --jobs 2 --no-store --out elsewhere",
        "sed 's/p95_ms: 5/p95_ms: 0.000001/' recipe.yaml > strict.yaml",
        "hone optimize strict.yaml --only onnx-fp32 --no-store --out strict || test $? = 3",
    ],
    "`hone serve MODEL`": [],  # served while all of these run
    "`hone score MODEL INPUT OUTPUT`": [
        "(echo id,a,b,c,d,e,f,g,h,i,j,k,l,m; seq 99 | sed 's/.*/&,1,2,3,4,5,6,7,8,9,0,1,2,3/') > score.csv",
        "hone score wine score.csv scored.parquet --keep id --skip-bad bad.jsonl | grep '99 rows'",
        "hone score wine score.csv scored.parquet --keep id --overwrite --restart --every 1",
    ],
    "`hone new service NAME MODEL…`": [
        "hone new service shop wine --out services/shop",
        "test -f services/shop/service.py",
    ],
    "`hone keys …`, `hone audit verify PATH`": [
        "hone keys new a --file some.yaml",
        "hone keys list --file some.yaml | grep -w predict",
        "hone keys rm a --file some.yaml",
    ],
    "`hone bench MODEL`": [
        "hone bench wine --url http://localhost:3000 --rate 20 --duration 2 --max-late 100%",
        "hone bench wine --url http://localhost:3000 --users 2 --duration 2 --max-late 100% --p95 30s --errors 5% "
        "--out closed",
        "hone bench wine --url http://localhost:3000 --baseline closed/load.json --tolerance 5000% --duration 2 "
        "--max-late 100%",
    ],
    "`hone bench capacity MODEL --p99 50ms`": [],
    "`hone bench capacity MODEL --p99 50ms --tune`": [],
    "`hone bench compare A B`": [
        "hone bench compare http://localhost:3000 http://localhost:3000 --model wine --turns 6 --duration 1 "
        "--users 2 || test $? = 3",
    ],
    "`locust -f benchmarks/locustfile.py --host URL`": [
        "locust -f benchmarks/locustfile.py --host http://localhost:3000 --headless -u 2 -r 2 -t 2s "
        "--protocol v2-binary --max-errors 0",
    ],
    "`hone containerize MODEL`": ["hone containerize wine --context context", "test -f context/Containerfile"],
    "`hone k8s render`, `dashboard`, `rules`, `wheels`": [
        "hone k8s dashboard --out dashboard.json",
        "hone k8s rules --out rules.yaml",
    ],
    "`hone k8s simulate --trace FILE\\|SHAPE`": [
        """echo '{"capacity_rps": 100, "latency_s": 0.01, "cpu_cores": 0.8, "start_s": 5}' > pod.json""",
        "hone k8s simulate --trace step --pod pod.json --out run.json | grep 'minutes outside the SLO'",
        "hone k8s simulate --trace burst --pod pod.json --budget 5 --write autoscaler.yaml",
    ],
    "`hone capacity plan`": [],
    "`hone capacity forecast`": [
        "(echo t,rate; seq 0 99 | awk '{print 3600 * $1 \",\" 100 + $1 % 24}') > load.csv",
        "hone capacity forecast --csv load.csv --days 1 --out forecast.json | grep back-test",
        "test -f forecast.html",
    ],
    "`hone backup FILE\\|DIR`, `hone backup verify FILE`, `hone restore FILE`": [
        "hone backup store.tar.gz",
        "hone backup verify store.tar.gz",
    ],
    "`hone deploy preflight OVERLAY`": [],
    "`hone status URL`": [
        "hone status http://localhost:3000 --errors 100",
        "hone status http://127.0.0.1:9 || test $? = 3",
    ],
    "`hone drift …`": [
        "mkdir -p sketches",
        "hone drift check wine --dir sketches || test $? = 4",
        "hone drift report wine --dir sketches --html drift.html",
        "hone drift watch wine --dir sketches --once || test $? = 4",
    ],
    "`hone registry …`": [
        "hone registry promote wine --reason first --dry-run || test $? = 1",  # the champion, when a page promoted it
        "hone registry list wine",
        "hone registry show wine",
        "hone registry annotate wine checked=yes",
        "hone registry history wine",
        "hone registry prune --keep 9",
    ],
    "`hone feedback …`": [
        "mkdir -p answers",
        "echo request_id,label > labels.csv",
        "hone feedback import labels.csv --model wine --dir answers || test $? = 1",
        "hone feedback watch wine --once --dir answers || test $? = 1 -o $? = 4",
    ],
    "`hone investigate MODEL --since 6h`": ["hone investigate wine --since 6h | grep 'not known'"],
    "`hone records delete`": [
        "mkdir -p answers",
        "hone records delete --request nobody --reason test --feedback-dir answers || test $? = 1",
    ],
    "`hone retrain …`": ["hone retrain status wine | grep 'never retrained'"],
    "`hone rollout …`, `hone split …`": [
        "hone split show wine --url http://localhost:3000 | grep 'are not split'",
        "hone split set wine --url http://localhost:3000 --arm onnx-fp32=100 | grep onnx-fp32",
        "hone split clear wine --url http://localhost:3000 | grep 'answers all requests'",
        "hone rollout status wine || test $? = 1",
        "hone rollout history wine",
    ],
    "`hone ab …`": [
        "hone ab plan --baseline 0.1 --effect 10% --rate 5000 | grep days",
        "hone ab start wine --to nothere --metric errors --url http://localhost:3000 || test $? = 1",
        "hone ab status | grep MODEL",
        "hone ab stop wine || test $? = 1",
        "hone ab history wine",
    ],
    "`hone up MODEL`, `hone down NAME`": [
        "hone up wine --status || test $? = 1",
        "hone down wine || test $? = 1",
    ],
    "`hone cache …`": ["hone cache list | grep passes", "hone cache prune --days 30 --dry-run"],
    "`hone models …`": [
        "rm -rf home/bentoml/hone-registry",  # a page promotes a version, which is then not removed
        "hone models list | grep wine:",
        "hone models show wine",
        "hone models export wine:onnx-fp32 fp32.tar.gz",
        "hone models rm wine:onnx-fp32 --yes",
        "hone models import fp32.tar.gz",
        "hone models verify",
        "hone models diff wine:onnx-fp32 wine:onnx-fp32 --layers",
    ],
    "`hone prove MODEL`": ["hone prove wine --turns 6 --tolerance 1000"],
    "`hone profile MODEL`": [
        "hone profile wine --rows 20 | grep 'SLOWEST NODE'",
        "hone profile wine --against wine:onnx-fp32 --rows 20 --batch 4 --threads 1 --out profiled",
        "test -f profiled/against/trace.json",
        "hone profile wine --rows 20 --json > profile.json",
    ],
    "`hone init`, `hone doctor`, `hone schema`, `hone report`": [
        "mkdir new && cp $(find home -name '*.onnx' | head -1) new/model.onnx",
        "hone init new/model.onnx",
        "hone doctor",
        "hone doctor wine",
        "hone schema --out schema.json",
        "hone report out/wine/report.json",
    ],
}
"""Each row of the README's table of commands, and how it is run."""


def elsewhere(command: str) -> bool:
    return any(command == shown or command.startswith(f"{shown} ") for shown in ELSEWHERE)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, dict[str, str]]]:
    """The README's own example: written, optimized, measured briefly, and served; with what each command printed."""
    folder = tmp_path_factory.mktemp("wine")
    (code,), (recipe,) = blocks("README.md", "python"), blocks("README.md", "yaml")
    (folder / "wine.py").write_text(code)
    (folder / "recipe.yaml").write_text(recipe + BRIEFLY)
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    made, printed = Project(folder, names={"digits": "wine", "onnx-int8-static": "onnx-fp32", "…": "*"}), {}
    *first, last = commands_of_the_example()
    for command in first:
        printed[command] = made.run(command)
    assert last == "hone serve wine"
    with made.serving(last):
        yield made, printed


def commands_of_the_example() -> list[str]:
    shown = commands("README.md")
    start = shown.index("hone optimize recipe.yaml")
    return shown[start : shown.index("hone serve wine") + 1]


def test_readme_example_is_optimized_listed_and_served(project: tuple[Project, dict[str, str]]) -> None:
    made, printed = project
    assert (made.folder / "out" / "wine" / "report.html").exists()
    assert "wine:onnx-" in printed["hone models list"]


def test_request_of_the_readme_gets_the_answer_that_it_shows(project: tuple[Project, dict[str, str]]) -> None:
    made, _ = project
    (block,) = [block for block in blocks("README.md", "bash") if block.startswith("curl")]
    (shown,) = re.findall(r"^# (\{.*\})$", block, re.MULTILINE)
    answer = made.run(block)
    assert re.fullmatch(re.escape(shown).replace("…", ".+"), answer.strip()), answer
    assert answer.count(",") == 3  # three scores and the model


def test_what_is_not_run_here_is_shown_and_run_elsewhere() -> None:
    shown = [command for page in PAGES for command in commands(page)]
    for prefix, (_, file, words) in ELSEWHERE.items():
        assert any(command.startswith(prefix) for command in shown), f"no page shows '{prefix}' any more"
        assert words in (ROOT / file).read_text(), f"{file} doesn't run '{prefix}'"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_other_command_of_the_documents_runs(project: tuple[Project, dict[str, str]]) -> None:
    made, _ = project
    done = {*commands_of_the_example(), *(command for command in commands("README.md") if "curl" in command)}
    self_signed(made.folder)
    for page in PAGES:
        run_page(made, [command for command in commands(page) if command not in done and not elsewhere(command)])


def run_page(made: Project, shown: list[str]) -> None:
    """Run a page's commands in turn; one that serves goes on to the end of the page, on a port of its own."""
    for place, command in enumerate(shown):
        if re.match(r"(\w+=\S+ )*hone serve", command):
            other = Project(made.folder, names=made.names)
            with other.serving(command, "https" if "--ssl-certfile" in command else "http"):
                run_page(other, shown[place + 1 :])
            return
        printed = made.run(command)
        assert '{"error"' not in printed, f"{command}\n{printed}"  # curl ends well whatever the answer is


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", sorted(ROWS))
def test_every_row_of_the_table_of_commands_runs(project: tuple[Project, dict[str, str]], row: str) -> None:
    made, _ = project
    for command in ROWS[row]:
        made.run(command)


def test_table_of_commands_has_no_row_that_is_not_run() -> None:
    rows = table_rows("README.md", "Commands")
    assert set(rows) == set(ROWS)
    for row, runs in ROWS.items():
        if not runs and row != "`hone serve MODEL`":
            assert elsewhere(row.strip("`")), row


@pytest.mark.parametrize("row", sorted(table_rows("README.md", "Commands")))
def test_options_and_commands_in_the_table_exist(row: str) -> None:
    """A row names a command, then options or commands under it."""
    rest = table_rows("README.md", "Commands")[row]
    options = re.findall(r"--[a-z0-9][a-z0-9-]*", row + rest)
    words = [re.findall(r"[a-z0-9]+", name) for name in re.findall(r"`(?:hone )?([a-z0-9 ]+)", row)]
    if "locust" in row:
        return  # its options: tests/benchmarks/test_locustfile.py
    known: set[str] = set()
    for path in words:
        command, rest_of_path = find(path if len(words) == 1 or command_of(cli, path[0]) else [words[0][0], *path])
        assert rest_of_path == [], f"{row}: no command {' '.join(path)}"
        below = [*command.commands.values(), command] if isinstance(command, click.Group) else [command]
        known |= {option for each in below for parameter in each.params for option in parameter.opts}
    assert [option for option in options if option not in known] == []
    names = re.findall(r"`([a-z ]+)`", rest) if row == "`hone models …`" else []
    models, _ = find(["models"])
    assert [name for name in " ".join(names).split() if command_of(models, name) is None] == []


def find(path: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that words name, and the words that are left."""
    command: click.Command = cli
    while path and (below := command_of(command, path[0])):
        command, path = below, path[1:]
    return command, path


def command_of(group: click.Command, name: str) -> click.Command | None:
    return group.get_command(click.Context(group), name) if isinstance(group, click.Group) else None


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_links_to_exist(page: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", (ROOT / page).read_text()):
        path = target.partition("#")[0]
        assert not path or ((ROOT / page).parent / path).exists(), f"{page}: {target}"
