"""Runs Puna's commands and draws what they print as a terminal, for the README.

    python tools/make_terminal_picture.py docs/images/terminal.svg

The commands run in a temporary directory with ./puna of this checkout; nothing is drawn that they did not print. Long
output is cut with a line of dots.
"""
import base64, html, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = "models/puna-demo/example.png"  # drawn beside the command that names it
SHOWN = [  # (command, lines of its output to keep)
    ("./puna generate --prompt 'How do I train a model?'", range(0, 2)),
    ("./puna generate --prompt 'What is 348 + 76?'", range(0, 2)),
    (f"./puna generate --image {PICTURE} --prompt 'What is in the picture?'", range(0, 2)),
    ("./puna generate --prompt 'Who won the world cup?'", range(0, 2)),
    ("./puna inspect scout", list(range(0, 1)) + list(range(44, 74))),
]
WIDTH, LINE, CHAR = 100, 18, 8.4


def lines():
    with tempfile.TemporaryDirectory() as folder:
        for name in ("puna", "models"):
            (Path(folder) / name).symlink_to(ROOT / name)
        for command, kept in SHOWN:
            yield "$ " + command
            run = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
            printed, last = run.stdout.rstrip().split("\n"), -1
            for i in kept:
                if i >= len(printed):
                    break
                if i != last + 1:
                    yield "..."
                yield printed[i][:WIDTH]
                last = i
            if last + 1 < len(printed):
                yield "..."
            yield ""


def svg(rows):
    height, width = LINE * len(rows) + 30, int(WIDTH * CHAR) + 40
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
           f'<rect width="{width}" height="{height}" rx="8" fill="#161b22"/>',
           '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">']
    for i, row in enumerate(rows):
        colour = "#7ee787" if row.startswith("$ ") else "#8b949e" if row == "..." else "#e6edf3"
        if PICTURE in row:
            data = base64.b64encode((ROOT / PICTURE).read_bytes()).decode()
            out.append(f'<image x="{width - 110}" y="{LINE * i - 10}" width="80" height="80" '
                       f'href="data:image/png;base64,{data}"/>')
        out.append(f'<text x="20" y="{LINE * (i + 1) + 10}" fill="{colour}">{html.escape(row)}</text>')
    return "\n".join(out + ["</g>", "</svg>", ""])


Path(sys.argv[1]).write_text(svg(list(lines())), encoding="utf-8")
