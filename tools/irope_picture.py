"""The picture of irope_experiment.py: panels of lines over lengths, as SVG with text as text."""

import math

COLORS = {"interleaved": "#1b7837", "control": "#b2182b"}
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 440, 300, 46, 34, 24, 78


def panel(lengths, title, lines, marks, left):
    values = [v for line in lines.values() for v in line]
    low, high = min(0, math.floor(min(values))), max(1, math.ceil(max(values)))
    x = lambda i: left + LEFT + i * (WIDTH - LEFT - RIGHT) / (len(lengths) - 1)
    y = lambda v: HEIGHT - BOTTOM - (v - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
    out = [f'<text x="{left + LEFT}" y="18" font-weight="bold">{title}</text>']
    for i in range(5):
        v = low + (high - low) * i / 4
        out.append(f'<path d="M{x(0):.1f} {y(v):.1f}H{x(len(lengths) - 1):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{x(0) - 6:.1f}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>')
    for i, length in enumerate(lengths):
        out.append(f'<text x="{x(i):.1f}" y="{y(low) + 16:.1f}" text-anchor="middle">{length}</text>')
        if length in marks:
            out.append(f'<path d="M{x(i):.1f} {y(low):.1f}V{y(high):.1f}" stroke="#999" stroke-dasharray="2 3"/>')
    out.append(f'<text x="{(x(0) + x(len(lengths) - 1)) / 2:.1f}" y="{y(low) + 32:.1f}" text-anchor="middle">tokens</text>')
    for (model, moment), line in lines.items():
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(line))
        dash = ' stroke-dasharray="6 4"' if moment == "before" else ""
        out.append(f'<polyline points="{points}" fill="none" stroke="{COLORS[model]}" stroke-width="2"{dash}/>')
    return out


def draw(lengths, panels, marks):
    """`panels`: (title, {(model, moment): value per length}); `marks`: lengths trained at, dotted."""
    width = WIDTH * len(panels)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for i, (title, lines) in enumerate(panels):
        out += panel(lengths, title, lines, marks, i * WIDTH)
    for i, (model, moment) in enumerate(panels[0][1]):
        at = LEFT + i * 206
        dash = ' stroke-dasharray="6 4"' if moment == "before" else ""
        out.append(f'<path d="M{at} {HEIGHT - 18}h28" stroke="{COLORS[model]}" stroke-width="2"{dash}/>')
        out.append(f'<text x="{at + 34}" y="{HEIGHT - 14}">{model}, {moment} extension</text>')
    return "\n".join([*out, "</svg>", ""])
