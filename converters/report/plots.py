"""The pictures of a report, as SVG text: quality against latency, and sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hone.pages.figures import BLUE, GRAY, GREEN, ORANGE, log_axis, new_figure, to_svg

from .records import Report, VariantReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINNER, MET, MISSED, SOURCE = GREEN, BLUE, GRAY, ORANGE
OPEN = "#7b5ea7"
LEADER = "#52606d"


def pareto_svg(report: Report) -> str:
    """Quality against p50 latency (log scale) at the budget's conditions, with the Pareto front and the budget."""
    figure, (axes,) = new_figure(7.6, 4.5)
    points = [(_latency(v, report), float(v.quality or 0.0), v) for v in report.variants if v.status == "built"]
    floor = _budget_line(axes, report)
    front = sorted((latency, quality) for latency, quality, variant in points if variant.pareto)
    if len(front) > 1:
        axes.step(*zip(*front, strict=True), where="post", color=MET, alpha=0.35, linewidth=1.5, zorder=1)
    sign = 1 if report.higher_is_better else -1
    for latency, quality, variant in points:
        if variant.loss is not None and variant.loss_lower is not None and variant.loss_upper is not None:
            ends = [quality - sign * (bound - variant.loss) for bound in (variant.loss_lower, variant.loss_upper)]
            axes.plot([latency, latency], ends, color=_color(variant, report), linewidth=1.2, alpha=0.55, zorder=2)
        winner = variant.name == report.winner
        axes.scatter(
            latency, quality, s=150 if winner else 58, color=_color(variant, report), marker="*" if winner else "o",
            zorder=3, edgecolors="white", linewidths=0.8,
        )  # fmt: skip
    log_axis(axes)
    low, high = min(p[0] for p in points), max(p[0] for p in points)
    left, right = low / 1.35, high * max(1.35, (high / low) ** 0.28)
    middle = (left * right) ** 0.5
    # At least a decade, so that the axis has more than one number on it.
    axes.set_xlim(min(left, middle / 10**0.5), max(right, middle * 10**0.5))
    axes.margins(y=0.2)
    _label_points(axes, points, report, floor)
    threads = report.budget.at.threads
    axes.set_xlabel(f"p50 latency, ms (batch {report.budget.at.batch}, threads: {threads}; log scale)")
    axes.set_ylabel(report.metric.rpartition(":")[2])
    return to_svg(figure)


def size_svg(report: Report) -> str:
    """Size on disk, smallest first."""
    built = sorted((v for v in report.variants if v.status == "built"), key=lambda v: -(v.size_mb or 0))
    figure, (axes,) = new_figure(5.2, 0.5 + 0.33 * len(built))
    names = [variant.name for variant in built]
    sizes = [variant.size_mb or 0.0 for variant in built]
    axes.barh(names, sizes, color=[_color(variant, report) for variant in built], height=0.62)
    for row, size in enumerate(sizes):
        text = f"{size:.2f} MB" if size >= 0.1 else f"{size * 1000:.0f} kB"
        axes.annotate(text, (size, row), xytext=(5, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, max(sizes) * 1.25)
    axes.grid(visible=False)
    axes.xaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    return to_svg(figure)


def _latency(variant: VariantReport, report: Report) -> float:
    return variant.latency_ms[str(report.budget.at.batch)][str(report.budget.at.threads)].p50


def _color(variant: VariantReport, report: Report) -> str:
    if variant.baseline:
        return SOURCE
    if variant.name == report.winner:
        return WINNER
    return {"met": MET, "undecided": OPEN, "missed": MISSED}[variant.outcome]


def _budget_line(axes: Axes, report: Report) -> float:
    """Draw and return the quality floor that the budget sets; the source's own quality is its reference."""
    source = report.baseline.quality or 0.0
    drop = report.budget.quality_drop
    allowed = float(drop.rstrip("% ")) / 100 * abs(source) if isinstance(drop, str) else drop
    floor = source - allowed if report.higher_is_better else source + allowed
    axes.axhline(floor, color=SOURCE, linewidth=1, linestyle=(0, (4, 3)), alpha=0.7, zorder=0.8)
    axes.annotate(
        "quality budget",
        (1, floor),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize=9,
        color=SOURCE,
    )
    return floor


Box = tuple[float, float, float, float]


def _label_points(axes: Axes, points: list[tuple[float, float, VariantReport]], report: Report, floor: float) -> None:
    """Write each name near its point, where it covers no other point, name or the budget's line, and on the side of
    that line where the point is; a thin line joins those moved far."""
    axes.figure.canvas.draw()
    scale = axes.figure.dpi / 72
    pixels = {variant.name: axes.transData.transform((x, y)) for x, y, variant in points}
    taken: list[Box] = [(x - 7, y - 7, x + 7, y + 7) for x, y in pixels.values()]
    frame = axes.bbox
    line = axes.transData.transform((1.0, floor))[1]
    words = "quality budget"
    taken += [(frame.x0, line - 2, frame.x1, line + 2), (frame.x1 - CHARACTER * len(words), line, frame.x1, line + 16)]
    for latency, quality, variant in sorted(points, key=lambda point: (point[2].name != report.winner, point[0])):
        x, y = pixels[variant.name]
        width = CHARACTER * len(variant.name)
        options = [(dx, dy, _text_box(x + dx * scale, y + dy * scale, width, align), align) for dx, dy, align in PLACES]
        inside = [option for option in options if frame.x0 - 20 < option[2][0] and option[2][2] < frame.x1 + 4]
        sided = [option for option in inside if (option[2][1] - line) * (y - line) >= 0]
        dx, dy, box, align = min(
            sided or inside or options, key=lambda option: sum(_overlap(option[2], other) for other in taken)
        )
        taken.append(box)
        axes.annotate(
            variant.name,
            (latency, quality),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=align,
            va="center",
            fontsize=9.5,
            fontweight="bold" if variant.name == report.winner else "normal",
            color=_color(variant, report) if variant.outcome != "missed" or variant.baseline else "#7b8794",
            arrowprops={"arrowstyle": "-", "color": LEADER, "linewidth": 0.8, "shrinkB": 4} if abs(dy) > 16 else None,
        )


def _places() -> list[tuple[float, float, str]]:
    """Offsets in points to try for a label, nearest first: beside, above and below, then farther up and down."""
    near: list[tuple[float, float, str]] = [(9, 0, "left"), (0, 13, "center"), (0, -13, "center"), (-9, 0, "right")]
    far = [(9.0, sign * step, "left") for step in range(14, 120, 13) for sign in (1, -1)]
    return near + far


PLACES = _places()
CHARACTER = 7.2  # pixels of a character of 9.5 points, on the wide side


def _text_box(x: float, y: float, width: float, align: str) -> Box:
    left = {"left": x, "center": x - width / 2, "right": x - width}[align]
    return (left, y - 8, left + width, y + 8)


def _overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)
