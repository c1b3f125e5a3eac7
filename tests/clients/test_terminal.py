"""The program at a terminal and in pipes: interrupts, closed and full outputs, line editing, history, colours."""
import os
import pty
import select
import signal
import subprocess
import time

import pytest

PUNA = os.environ["PUNA"]
FOREVER = ["--max-tokens", "2000000", "--ignore-stop-tokens", "--prompt", "x"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "model"
    subprocess.run([PUNA, "demo-model", "--out", out], check=True, capture_output=True)
    return out


class Terminal:
    """`puna chat` on a pseudo-terminal; read_until() waits for text on its screen."""

    def __init__(self, args, env):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(PUNA, [PUNA, *map(str, args)], {**os.environ, "TERM": "xterm", "LC_ALL": "C", **env})
        self.screen = b""

    def read_until(self, text, timeout=60):
        end = time.monotonic() + timeout
        while text not in self.screen:
            assert time.monotonic() < end, (text, self.screen[-2000:])
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.screen += os.read(self.fd, 65536)
                except OSError:
                    break
        assert text in self.screen, self.screen[-2000:]
        before, self.screen = self.screen.split(text, 1)
        return before

    def send(self, data):
        os.write(self.fd, data)

    def interrupt(self):
        """Ctrl-C. The kernel may drop the prompt printed just after it with what it flushes; an empty line brings another."""
        self.send(b"\x03")
        time.sleep(0.3)
        self.send(b"\n")

    def status(self, timeout=60):
        end = time.monotonic() + timeout
        while time.monotonic() < end:  # drain, or the process may wait for room
            try:
                if select.select([self.fd], [], [], 0.1)[0] and not os.read(self.fd, 65536):
                    break
            except OSError:
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
    t.read_until(b"> ")
    t.send("z\u00fc\u00e9".encode() + b"\x7fX\n")  # backspace takes a character, not a byte
    t.read_until(b"\n")
    t.read_until(b"> ")
    t.send(b"half a line")
    t.interrupt()
    t.read_until(b"> ")
    t.send(b"/stats\n")
    assert b"messages 2" in t.read_until(b"available")
    t.read_until(b"> ")
    t.send(b"\x1b[A\x1b[A\n")  # the line before the last one
    t.read_until(b"\n")
    t.read_until(b"> ")
    t.send(b"/stats\n")
    assert b"messages 4" in t.read_until(b"available")
    t.read_until(b"> ")
    t.send(b"\x04")
    assert t.status() == 0
    history = tmp_path / "puna" / "chat_history"
    assert history.read_text().splitlines()[1:3] == ["z\u00fcX", "/stats"]
    assert history.stat().st_mode & 0o077 == 0


def test_ctrl_c_stops_an_answer_and_not_the_chat(demo, tmp_path):
    # A long context, so that the answer lasts until it is stopped; stop tokens would end it, so ask until it is long.
    t = Terminal(["chat", "--model", demo, "--max-tokens", "1000000"], {"XDG_STATE_HOME": str(tmp_path)})
    t.read_until(b"> ")
    for _ in range(50):
        t.send(b"talk\n")
        t.read_until(b"\n")
        time.sleep(0.05)
        t.interrupt()
        if b"(stopped)" in t.read_until(b"> "):
            break
    else:
        pytest.fail("no answer was stopped")
    t.send(b"/quit\n")
    assert t.status() == 0


@pytest.mark.parametrize("env, coloured", [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours(demo, tmp_path, env, coloured):
    t = Terminal(["chat", "--model", demo], {"XDG_STATE_HOME": str(tmp_path), **env})
    shown = t.read_until(b"> ")
    assert (b"\x1b[1;36m" in shown) == coloured
    t.send(b"\x04")
    assert t.status() == 0


def test_no_colours_and_no_notes_in_a_pipe(demo):
    p = subprocess.run([PUNA, "chat", "--model", demo, "--max-tokens", "3"], input=b"/stats\n", capture_output=True, check=True)
    assert b"\x1b" not in p.stdout and p.stdout.startswith(b"messages 0")
