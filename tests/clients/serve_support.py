"""A running `puna serve`, as a context manager, for tests that are its clients."""
import contextlib
import json
import os
import re
import signal
import subprocess
import urllib.request

PUNA = os.environ["PUNA"]


@contextlib.contextmanager
def serving(model, *flags, stderr=None, port=0):
    """Gives the URL and the process; afterwards the server must have ended by itself with status 0."""
    command = [PUNA, "serve", "--model", str(model), "--port", str(port), "--threads", "1", "--drain", "20", *map(str, flags)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        line = process.stdout.readline()
        match = re.match(r"(https?://\S+) serves ", line)
        assert match, (line, process.poll())
        yield match[1], process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def ask(url, body=None, headers=None, method=None):
    """Status, headers and JSON (or text) of an answer, whatever the status is."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"} | (headers or {}), method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            status, head, text = answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, head, text = error.code, error.headers, error.read().decode()
    return status, head, json.loads(text) if head.get_content_type() == "application/json" and text else text


def demo_model(tmp_path_factory):
    """A small model with random weights and a real tokenizer."""
    out = tmp_path_factory.mktemp("model") / "demo"
    subprocess.run([PUNA, "demo-model", "--out", out], check=True, capture_output=True)
    return out
