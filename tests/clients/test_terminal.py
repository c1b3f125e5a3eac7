"""The program at a terminal and in pipes: interrupts, closed and full outputs, line editing, history, colours, progress."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest
from train_support import command, write_recipe

PUNA = os.environ["PUNA"]
PROMPT = re.compile(rb">(\x1b\[0m)? ")
FOREVER = ["--max-tokens", "2000000", "--ignore-stop-tokens", "--prompt", "x"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "model"
    subprocess.run([PUNA, "demo-model", "--out", out], check=True, capture_output=True)
    return out


class Terminal:
    """`puna` on a pseudo-terminal; read_until() waits for text on its screen."""

    def __init__(self, args, env, columns=0):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            if columns:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            os.execve(PUNA, [PUNA, *map(str, args)], {**os.environ, "TERM": "xterm", "LC_ALL": "C", **env})
        self.screen = b""

    def read_until(self, text, timeout=60):
        pattern = text if isinstance(text, re.Pattern) else re.compile(re.escape(text))
        end = time.monotonic() + timeout
        while not pattern.search(self.screen):
            assert time.monotonic() < end, (text, self.screen[-2000:])
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.screen += os.read(self.fd, 65536)
                except OSError:
                    break
        found = pattern.search(self.screen)
        assert found, self.screen[-2000:]
        before, self.screen = self.screen[:found.start()], self.screen[found.end():]
        return before

    def send(self, data):
        os.write(self.fd, data)

    def interrupt(self):
        """Ctrl-C. The kernel may drop the prompt printed just after it with what it flushes; an empty line brings another."""
        self.send(b"\x03")
        time.sleep(0.3)
        self.send(b"\n")

    def status(self, timeout=60):
        """Waits for the end; all that was still written is then in `screen`."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:  # drain, or the process may wait for room
            try:
                if select.select([self.fd], [], [], 0.1)[0]:
                    self.screen += os.read(self.fd, 65536)
            except OSError:  # the other end is closed
                break
        else:
            os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_ctrl_c_ends_generate_with_what_it_wrote(demo):
    p = subprocess.Popen([PUNA, "generate", "--model", demo, *FOREVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = os.read(p.stdout.fileno(), 1)
    p.send_signal(signal.SIGINT)
    rest, err = p.communicate(timeout=30)
    assert first and rest.endswith(b"\n") and err == b""
    assert p.returncode == 130


def test_a_closed_pipe_ends_it_quietly(demo):
    p = subprocess.Popen([PUNA, "generate", "--model", demo, *FOREVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.read(p.stdout.fileno(), 1)
    p.stdout.close()
    assert p.stderr.read() == b""
    assert p.wait(timeout=30) == 141


@pytest.mark.parametrize("args", [["generate", "--prompt", "x", "--max-tokens", "3"], ["--help"], ["inspect", "scout"]])
def test_a_full_disk_is_an_error(demo, args):
    if args[0] == "generate":
        args = args + ["--model", demo]
    with open("/dev/full", "w") as full:
        p = subprocess.run([PUNA, *args], stdout=full, stderr=subprocess.PIPE, text=True)
    assert p.returncode == 1 and "No space left" in p.stderr


def test_chat_at_a_terminal(demo, tmp_path):
    t = Terminal(["chat", "--model", demo, "--max-tokens", "3", "--seed", "1"], {"XDG_STATE_HOME": str(tmp_path)})
    t.read_until(b"/help lists the commands")
    t.read_until(PROMPT)
    t.send("z\u00fc\u00e9".encode() + b"\x7fX\n")  # backspace takes a character, not a byte
    t.read_until(b"\n")
    t.read_until(PROMPT)
    t.send(b"half a line")
    t.interrupt()
    t.read_until(PROMPT)
    t.send(b"/stats\n")
    assert b"messages 2" in t.read_until(b"available")
    t.read_until(PROMPT)
    t.send(b"\x1b[A\x1b[A\n")  # the line before the last one
    t.read_until(b"\n")
    t.read_until(PROMPT)
    t.send(b"/stats\n")
    assert b"messages 4" in t.read_until(b"available")
    t.read_until(PROMPT)
    t.send(b"\x04")
    assert t.status() == 0
    history = tmp_path / "puna" / "chat_history"
    assert history.read_text().splitlines()[1:3] == ["z\u00fcX", "/stats"]
    assert history.stat().st_mode & 0o077 == 0


def test_ctrl_c_stops_an_answer_and_not_the_chat(demo, tmp_path):
    # A long context, so that the answer lasts until it is stopped; stop tokens would end it, so ask until it is long.
    t = Terminal(["chat", "--model", demo, "--max-tokens", "1000000"], {"XDG_STATE_HOME": str(tmp_path)})
    t.read_until(PROMPT)
    for _ in range(50):
        t.send(b"talk\n")
        t.read_until(b"\n")
        time.sleep(0.05)
        t.interrupt()
        if b"(stopped)" in t.read_until(PROMPT):
            break
    else:
        pytest.fail("no answer was stopped")
    t.send(b"/quit\n")
    assert t.status() == 0


@pytest.mark.parametrize("env, coloured", [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours(demo, tmp_path, env, coloured):
    t = Terminal(["chat", "--model", demo], {"XDG_STATE_HOME": str(tmp_path), **env})
    shown = t.read_until(b"\x1b[1;36m>\x1b[0m " if coloured else b"\n> ")  # what is typed has no colour
    assert coloured or b"\x1b[1;36m" not in shown
    t.send(b"\x04")
    assert t.status() == 0


def test_no_colours_and_no_notes_in_a_pipe(demo):
    p = subprocess.run([PUNA, "chat", "--model", demo, "--max-tokens", "3"], input=b"/stats\n", capture_output=True, check=True)
    assert b"\x1b" not in p.stdout and p.stdout.startswith(b"messages 0")


ASIDE = r"Using \S*/puna-demo, the small model that comes with Puna; another one: --model PATH"


@pytest.mark.parametrize("args", [["chat"], ["generate", "--prompt", "x", "--max-tokens", "1"]])
@pytest.mark.parametrize("env, dim, plain", [({}, r"\x1b\[2m", r"\x1b\[0m"), ({"NO_COLOR": "1"}, "", "")])
def test_a_dim_line_says_which_model_answers(tmp_path, args, env, dim, plain):
    t = Terminal(args, {"XDG_STATE_HOME": str(tmp_path), **env})
    if args == ["chat"]:
        before = t.read_until(PROMPT)
        t.send(b"\x04")
        assert t.status() == 0
        t.screen = before + t.screen
    else:
        assert t.status() == 0
    assert re.match(rf"{dim}{ASIDE}{plain}\r\n", t.screen.decode()), t.screen
    assert t.screen.count(b"--model") == 1


def test_the_line_about_the_model_is_plain_where_standard_error_is_no_terminal():
    screen, stdout = pty.openpty()
    p = subprocess.run([PUNA, "generate", "--prompt", "x", "--max-tokens", "1"], stdout=stdout, stderr=subprocess.PIPE, text=True)
    os.close(stdout)
    os.close(screen)
    assert p.returncode == 0 and re.fullmatch(ASIDE + r"\n", p.stderr), p.stderr


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A third of a second of work for `puna data build`."""
    path = tmp_path_factory.mktemp("records") / "lines.jsonl"
    path.write_text("".join(json.dumps({"text": f"Line {i}: the quick brown fox jumps over the lazy dog. " * 4}) + "\n" for i in range(20000)))
    return path


def build(demo, records, out):
    return ["data", "build", "--tokenizer", demo, "--out", out, records]


def pause_while_building(pid, out):
    """A bar appears after half a second of work, which a fast machine does not need for any reasonable file: so it is stopped meanwhile."""
    end = time.monotonic() + 60
    while not (out / "vocabulary.safetensors").exists():  # the last that is written before the first record is read
        assert time.monotonic() < end
        time.sleep(0.002)
    for _ in range(3):
        time.sleep(0.03)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.6)
        os.kill(pid, signal.SIGCONT)


def test_a_bar_shows_how_far_a_build_is(demo, records, tmp_path):
    out = tmp_path / "data"
    t = Terminal(build(demo, records, out), {})
    pause_while_building(t.pid, out)
    assert t.status() == 0
    screen = t.screen.decode()
    line = r"\rbuilding [^\r\n\x1b]+ \[[#.]{24}\][^\r\n\x1b]+\x1b\[K"
    assert re.fullmatch(rf"({line})+\r\x1b\[Kdata: 20000 documents, \d+ tokens, 0 images\r\n", screen), screen
    bars = re.findall(r"\[(#*)\.*\] +(\d+)% (\d+), (\d+)/s, (\d+):(\d\d) left\x1b", screen)
    assert bars, screen
    for cells, percent, *numbers in bars:
        done, rate, minutes, seconds = map(int, numbers)
        left = 60 * minutes + seconds
        assert abs(len(cells) - int(percent) * 24 / 100) <= 1 and abs(int(percent) - done / 200) <= 5, "of 20,000 records"
        assert abs(left * rate - (20000 - done)) <= 1000 + left + rate, "but for what both were rounded by"
    counts = [int(bar[2]) for bar in bars]
    assert counts == sorted(counts) and 0 < counts[0] <= counts[-1] <= 20000
    drawn = [piece.split("\x1b")[0] for piece in screen.split("\r") if "/s" in piece]
    assert all(len(line) < 80 for line in drawn), "a longer one could not be drawn over"


def test_a_build_shows_no_bar_in_a_pipe(demo, records, tmp_path):
    out = tmp_path / "data"
    screen, stdout = pty.openpty()  # that standard output is a terminal changes nothing
    with subprocess.Popen([PUNA, *build(demo, records, out)], stdout=stdout, stderr=subprocess.PIPE) as p:
        pause_while_building(p.pid, out)
        assert p.stderr.read() == b""
    assert p.returncode == 0
    assert os.read(screen, 65536).startswith(b"data: 20000 documents")
    os.close(stdout)
    os.close(screen)


STEP = r"(?:short|long) (\d+)/9  loss (\d+\.\d{4})  (\d+) tokens/s  MFU (\d+)%  data wait \d+%  (?:\d+m)?(\d+)s left"
# Experts below nearly all of an even load count as dead after two steps: there are notes between the lines.
TRAIN = ["stage.short.steps=8", "stage.long.steps=1", "stage.long.schedule={}", "balance.dead_fraction=0.99", "balance.dead_steps=2"]


def test_a_run_draws_one_line_over(tmp_path):
    t = Terminal(command(write_recipe(tmp_path), tmp_path / "run", *TRAIN)[1:], {})
    assert t.status() == 0
    screen = re.sub(r"\r[^\r\n\x1b]+\x1b\[K", "", t.screen.decode())  # without the bars of a slow machine's other work
    *lines, done, end = screen[screen.index("\r\x1b[Kshort 1/9"):].split("\r\n")
    drawn = []
    for line in [*lines, done]:
        *pieces, whole = line.split("\r\x1b[K")
        assert "\r" not in whole and "\x1b" not in whole, "what stays stands on a line that was erased"
        assert whole.startswith("warning: " if line is not done else "Done: the model is in "), whole
        drawn += [piece for piece in pieces if piece]
    assert done.startswith("\r\x1b[K") and end == "" and lines
    steps = [re.fullmatch(STEP, piece) for piece in drawn]
    assert all(steps) and len(steps) > 1, drawn
    assert int(steps[0][1]) == 1 and int(steps[-1][1]) == 9 and steps[-1][5] == "0"
    assert all(0 < float(step[2]) < 20 and int(step[3]) > 0 for step in steps)


def test_a_run_writes_plain_lines_in_a_pipe(tmp_path):
    p = subprocess.run(command(write_recipe(tmp_path), tmp_path / "run", *TRAIN), capture_output=True, check=True)
    said = (p.stdout + p.stderr).decode()
    assert "\r" not in said and "\x1b" not in said and said.endswith("\n")
    lines = [re.fullmatch(STEP, line) for line in p.stderr.decode().splitlines() if not line.startswith("warning: ")]
    assert all(lines) and lines[0][1] == "1" and lines[-1][1] == "9"
    assert len(lines) < 9, "a line now and then, not one a step"


def test_what_is_drawn_over_fits_a_narrow_terminal(demo, records, tmp_path):
    bar = Terminal(build(demo, records, tmp_path / "data"), {}, columns=40)
    pause_while_building(bar.pid, tmp_path / "data")
    line = Terminal(command(write_recipe(tmp_path), tmp_path / "run", *TRAIN)[1:], {}, columns=40)
    assert bar.status() == 0 and line.status() == 0
    bars = re.findall(r"\r([^\r\n\x1b]+)\x1b\[K", bar.screen.decode())
    lines = re.findall(r"\r\x1b\[K((?:short|long) [^\r\n\x1b]*)", line.screen.decode())
    assert bars and lines and {len(drawn) for drawn in lines} == {39} and all(len(drawn) < 40 for drawn in bars)
