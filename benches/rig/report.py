"""Figures to Markdown and SVG. Ratios are taken within a round; the median and the spread are shown."""
from html import escape
from statistics import median, stdev

COLOURS = {"nginx": "#8a8f98", "haproxy": "#6f8fbf", "caddy": "#b7a06a", "jailgate": "#c2452d"}


def per_round(rows, base, key):
    """[contender][round] of `key`, divided by `base`'s of the same round."""
    return {name: [run[key] / rows[base][i][key] for i, run in enumerate(runs) if rows[base][i][key]]
            for name, runs in rows.items()}


def spread(values, digits=2):
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def error(values):
    """The standard error of their mean."""
    return f" ± {stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""


def table(rows, base):
    """One group: {contender: [figures of a round, …]}."""
    cpu, rps, p99 = (per_round(rows, base, key) for key in ("cpu", "rps", "p99"))
    lines = [f"| | CPU µs/request | CPU / {base} | requests/s | requests/s / {base} | p50 ms | p99 ms | p99 / {base} | p99.9 ms | RSS MB | failed |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for name, runs in rows.items():
        mid = lambda key: median(run[key] for run in runs)
        failed = sum(run["bad"] + run["broken"] for run in runs)
        lines.append(f"| {name} | {spread([r['cpu'] for r in runs], 1)} | **{spread(cpu[name])}** | {mid('rps'):,.0f} "
                     f"| {spread(rps[name])} | {mid('p50'):.2f} | {mid('p99'):.2f} | {spread(p99[name])} "
                     f"| {mid('p999'):.2f} | {mid('rss'):.0f} | {failed} |")
    return "\n".join(lines)


def goals(checked, elsewhere=()):
    """[(work, required, values, limit, whether lower is met)] as the table of what must be true;
    `elsewhere` are (work, required, where to read it)."""
    lines = ["| work | required | measured | met |", "|---|---|---|---|"]
    for work, required, values, limit, below in checked:
        if not values:
            lines.append(f"| {work} | {required} | not measured | – |")
            continue
        met = median(values) <= limit if below else median(values) >= limit
        lines.append(f"| {work} | {required} | {spread(values, 3)}{error(values)} | {'yes' if met else '**no**'} |")
    lines += [f"| {work} | {required} | {where} | – |" for work, required, where in elsewhere]
    return "\n".join(lines)


def chart(groups, title):
    """{group: ({contender: rounds}, base)} as horizontal bars of CPU per request against the base."""
    row, gap, left, wide = 20, 34, 250, 520
    bars, y = [], 56
    for group, (rows, base) in groups.items():
        bars.append(f'<text x="12" y="{y + 2}" font-weight="bold">{escape(group)}</text>')
        y += 10
        ratios = per_round(rows, base, "cpu")
        for name, values in ratios.items():
            value = median(values)
            width = min(value, 4.0) / 4.0 * wide
            colour = next((c for key, c in COLOURS.items() if key in name), "#999")
            more = " →" if value > 4 else ""
            bars.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
                        f'<rect x="{left}" y="{y + 3}" width="{width:.1f}" height="{row - 6}" fill="{colour}"/>'
                        f'<text x="{left + width + 6:.1f}" y="{y + 14}">{value:.2f}{more}</text>')
            y += row
        y += gap - 10
    line = left + wide / 4
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + wide + 90}" height="{y}" font-family="sans-serif" font-size="12" fill="#222">'
            f'<rect width="100%" height="100%" fill="#fff"/><text x="12" y="22" font-size="15" font-weight="bold">{escape(title)}</text>'
            f'<text x="12" y="40" fill="#666">CPU time per request, nginx = 1.00, lower is better</text>'
            f'<line x1="{line}" y1="48" x2="{line}" y2="{y - 20}" stroke="#888" stroke-dasharray="3 3"/>' + "".join(bars) + "</svg>\n")
