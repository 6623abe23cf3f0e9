"""What a load is made of: sizes and times are those that were asked for, recorded or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hone.benchmarks.load import workload as workloads
from hone.benchmarks.load.answers import difference
from hone.benchmarks.load.payload import Rows, rows_for
from hone.benchmarks.load.run import Options
from hone.benchmarks.load.target import Access, Target
from hone.benchmarks.load.traffic import read_trace, recorded, replayed
from hone.benchmarks.load.wire import WIRES
from hone.benchmarks.scenarios import Scenario, parse_arrival, parse_sizes
from hone.errors import HoneError
from hone.services.observe.recording import Recorder
from hone.signature import Signature, TensorSpec
from tests.models.dense import dense_signature


def target(signature: Signature | None = None) -> Target:
    """A target at which nothing listens."""
    return Target(
        "http://127.0.0.1:9", Access(), "dense", "v1", None, "/models/dense", signature or dense_signature(), {}
    )


def made(scenario: Scenario, rows: int = 1000) -> workloads.Workload:
    pool = {"features": np.random.default_rng(0).random((rows, 4), np.float32)}
    return workloads.make(target(), scenario, Rows.of(pool, "a test"), WIRES["json"])


def test_sizes_have_their_shares_in_the_run_that_is_made() -> None:
    scenario = Scenario(rate=20, duration_s=20, warm_up_s=0, sizes=parse_sizes("1:70%,8:25%,64:5%"))
    workload = made(scenario)
    sizes = np.array([workload.calls[call].rows for call in workload.order])
    assert len(sizes) == len(workload.arrivals if workload.arrivals is not None else ())
    found = {size: float((sizes == size).mean()) for size in (1, 8, 64)}
    wanted = {1: 0.7, 8: 0.25, 64: 0.05}
    assert 0.5 * sum(abs(found[size] - wanted[size]) for size in wanted) < 0.02
    # Large ones come all along, not in one block.
    assert np.flatnonzero(sizes == 64).std() > len(sizes) / 10
    assert workload.rows.distinct == 1000


@pytest.mark.parametrize(("shape", "least"), [("constant", 0.999), ("burst", 0.9), ("ramp", 0.95), ("day", 0.95)])
def test_arrivals_have_their_mean_rate_in_any_shape(shape: str, least: float) -> None:
    scenario = Scenario.from_options(rate=200, duration_s=60, arrival=shape)
    times = scenario.arrivals() - scenario.warm_up_s
    times = times[times >= 0]
    assert (np.diff(times) >= 0).all()
    assert times[-1] < 60
    assert least < len(times) / (200 * 60) < 2 - least
    first, last = (times < 15).sum(), (times >= 45).sum()
    middle = ((times >= 22.5) & (times < 37.5)).sum()
    if shape == "constant":
        assert np.diff(times) == pytest.approx(1 / 200)
    elif shape == "burst":
        assert (np.diff(times) == 0).mean() == pytest.approx(0.9, abs=0.02)
    elif shape == "ramp":
        assert last > 5 * first
    else:
        assert middle > 2.5 * first
        assert middle > 2.5 * last


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 5, "users": 2}, "leave --users or --rate out"),
        ({"users": 2, "arrival": "day"}, "leave --users or --arrivals out"),
        ({"rows": 2, "sizes": "1:1"}, "leave --rows or --sizes out"),
        ({"sizes": "1:0"}, "'1:0' is no size with its share"),
        ({"sizes": "x"}, "'x' is no size with its share"),
        ({"sizes": ","}, "--sizes names no size"),
        ({"sizes": "1:70%,8:25%"}, "the shares are 95% together, not 100%; weights have no %: 1:7,8:3"),
        ({"sizes": "1:70%,8:30%,64:5%"}, "the shares are 105% together"),
        ({"sizes": "1:70%,8:30"}, "some shares have a % and some have none"),
        ({"sizes": "1:70%,8"}, "some shares have a % and some have none"),
        ({"rate": 0}, "rate: Input should be greater than 0"),
    ],
)
def test_options_that_make_no_load_are_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(HoneError, match=message):
        Scenario.from_options(**options)  # type: ignore[arg-type]
    with pytest.raises(HoneError, match="there is no 'poison'; did you mean 'poisson'"):
        parse_arrival("poison")


def test_rate_that_makes_no_request_or_too_many_is_refused() -> None:
    with pytest.raises(HoneError, match="would make no request"):
        made(Scenario(rate=0.001, duration_s=1, warm_up_s=0))
    with pytest.raises(HoneError, match=r"are over 20,000,000 requests"):
        made(Scenario(rate=1e7, duration_s=100))


def test_trace_is_replayed_as_it_is(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    times, rows = np.cumsum(random.exponential(0.01, 500)) + 1.7e9, random.choice([1, 4, 32], 500)
    lines = [f"{time:.6f},{size}" for time, size in zip(times, rows, strict=True)]
    (tmp_path / "trace.csv").write_text("\n".join(["time,rows", *lines]))
    np.savez(tmp_path / "rows.npz", features=random.random((50, 4), np.float32))
    options = Options(rows=tmp_path / "rows.npz")
    scenario, again = replayed(target(), Scenario(), options, trace=tmp_path / "trace.csv")
    workload = again.workload
    assert workload is not None and workload.arrivals is not None
    assert np.diff(workload.arrivals) == pytest.approx(np.diff(times), abs=2e-6)
    assert [workload.calls[call].rows for call in workload.order] == rows.tolist()
    assert scenario.arrival == "trace"
    assert dict(scenario.sizes) == pytest.approx({size: (rows == size).mean() for size in (1, 4, 32)})
    short, _ = replayed(target(), Scenario(), options, trace=tmp_path / "trace.csv", duration=1.0)
    assert short.duration_s <= 1.0
    (tmp_path / "excel.csv").write_text("time,rows\n1,2\n", encoding="utf-8-sig")
    assert read_trace(tmp_path / "excel.csv")[1].tolist() == [2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("moment\n1\n", "no column 'time'"),
        ("time\n", "the trace has no request"),
        ("time,rows\n1,1\n,1\n", "line 3: '' is no time in seconds: the trace has a hole"),
        ("time,rows\n1,1\nnan,1\n", "line 3: 'nan' is no time"),
        ("time,rows\n1,1\n2,\n", "line 3: '' is no number of rows: the trace has a hole"),
        ("time,rows\n1,0\n", "line 2: '0' is no number of rows"),
        ("time\n2\n1\n", "line 3: 1 comes after 2: the trace goes back in time"),
        (None, "no such file"),
    ],
)
def test_bad_trace_is_one_line_that_says_where(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "trace.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(HoneError, match=message):
        read_trace(file)


def test_recording_goes_with_no_options_of_its_own(tmp_path: Path) -> None:
    for scenario in (Scenario(rate=5), Scenario(kind="closed"), Scenario(rows=2), Scenario(sizes=((1, 1.0),))):
        with pytest.raises(HoneError, match="leave --rate, --users, --rows, --sizes and --arrivals out"):
            replayed(target(), scenario, Options(), trace=tmp_path / "trace.csv")
    with pytest.raises(HoneError, match="leave one out"):
        replayed(target(), Scenario(), Options(), trace=tmp_path, traffic=tmp_path)
    with pytest.raises(HoneError, match="leave --data out"):
        replayed(target(), Scenario(), Options(rows=tmp_path), traffic=tmp_path)
    with pytest.raises(HoneError, match="no recorded traffic of dense"):
        replayed(target(), Scenario(), Options(), traffic=tmp_path)


def record(folder: Path, inputs: list[dict[str, np.ndarray]], **options: object) -> None:
    recorder = Recorder(folder, **options)  # type: ignore[arg-type]
    for number, part in enumerate(inputs):
        rows = len(next(iter(part.values())))
        recorder.offer("dense", "v1", f"r{number}", part, {"scores": np.zeros((rows, 3), np.float32)}, 0.001 * number)
    recorder.close()


def test_recorded_traffic_comes_back_row_for_row(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    inputs = [{"features": random.random((int(size), 4), np.float32)} for size in random.integers(1, 9, 40)]
    record(tmp_path, inputs)
    workload = recorded(target(), tmp_path)
    assert workload.arrivals is not None
    assert (np.diff(workload.arrivals) >= 0).all()
    # Later ones took longer, so they began earlier than they ended: the order is that of their beginnings.
    came = {part["features"].tobytes() for part in workload.inputs}
    assert came == {part["features"].tobytes() for part in inputs}
    assert [call.rows for call in workload.calls] == [len(part["features"]) for part in workload.inputs]
    assert workload.rows.distinct == sum(len(part["features"]) for part in inputs)
    _, options = replayed(target(), Scenario(), Options(), traffic=tmp_path)
    assert options.workload is not None


def test_recording_of_another_model_or_with_a_hole_is_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    record(tmp_path / "hidden", [{"features": np.ones((1, 4), np.float32)}], hidden={"input.features": "drop"})
    with pytest.raises(HoneError, match="no rows for input 'features': it wasn't recorded"):
        recorded(target(), tmp_path / "hidden")
    record(tmp_path / "other", [{"features": np.ones((1, 5), np.float32)}])
    with pytest.raises(HoneError, match=r"input 'features' has shape \[1, 5\], the model float32\[batch, 4\]"):
        recorded(target(), tmp_path / "other")
    record(tmp_path / "hole", [{"features": np.ones((3, 4), np.float32)}] * 2)
    (file,) = (tmp_path / "hole").glob("model=*/version=*/*.parquet")
    table = pq.ParquetFile(file).read()
    pq.write_table(table.take([0, 2, 3, 4, 5]), file)
    with pytest.raises(HoneError, match="the recording has a hole"):
        recorded(target(), tmp_path / "hole")


def test_rows_of_files_fit_the_model_or_are_refused(tmp_path: Path) -> None:
    rows = np.round(np.random.default_rng(0).random((20, 4)), 3)
    header = "a,b,c,d,label\n"
    (tmp_path / "rows.csv").write_text(header + "\n".join(",".join(map(str, [*row, 1])) for row in rows))
    found = rows_for(target(), tmp_path / "rows.csv")
    assert found.pool["features"] == pytest.approx(rows.astype(np.float32))
    assert found.distinct == 20
    for name, text, message in (
        ("few.csv", "a,b\n1,2\n", "no rows for input 'features'"),
        ("empty.csv", header, "the data holds no rows"),
        ("ragged.csv", header + "1,2\n", "row 1 has 2 cells, the header 5"),
        ("rows.txt", "1", "give an .npz, .parquet or .csv file"),
        ("rows.npz", "not one", "can't be read as .npz"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(HoneError, match=message):
            rows_for(target(), tmp_path / name)
    with pytest.raises(HoneError, match="no such file"):
        rows_for(target(), tmp_path / "none.csv")


def test_request_too_large_for_memory_is_refused() -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 1_000_000))
    wide = target(Signature(inputs=(spec,), outputs=(spec,)))
    pool = {"x": np.zeros((2, 1_000_000), np.float32)}
    with pytest.raises(HoneError, match="a request of 100 rows has over 256,000,000 bytes"):
        workloads.requests(pool, wide.signature, (100,))


def test_wrong_answers_are_told_from_rounding() -> None:
    scores, classes = np.array([[0.1, 2.0]], np.float32), np.array([3, 1])
    assert difference({"s": [[0.1005, 2.0]]}, {"s": scores}, exact=True) == ""
    assert difference({"s": [[0.15, 2.0]]}, {"s": scores}, exact=False) == ""
    assert "is off by 0.05" in difference({"s": [[0.15, 2.0]]}, {"s": scores}, exact=True)
    assert "is off by nan" in difference({"s": [[None, 2.0]]}, {"s": scores}, exact=True)
    assert "differs in 50%" in difference({"c": [3, 2]}, {"c": classes}, exact=False)
    assert "has shape [1]" in difference({"c": [3]}, {"c": classes}, exact=True)
    assert "is none of the artifact's" in difference({"d": [3]}, {"c": classes}, exact=True)


def test_same_scenario_sends_the_same_load() -> None:
    scenario = Scenario(rate=50, duration_s=2, sizes=((1, 1.0), (4, 1.0)), seed=7)
    first, second, other = made(scenario), made(scenario), made(scenario.model_copy(update={"seed": 8}))
    assert first.order.tolist() == second.order.tolist()
    assert [call.body for call in first.calls] == [call.body for call in second.calls]
    for workload, same in ((second, True), (other, False)):
        assert first.arrivals is not None and workload.arrivals is not None
        assert (first.arrivals.tolist() == workload.arrivals.tolist()) is same
