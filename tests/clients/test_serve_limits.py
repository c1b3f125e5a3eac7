"""puna serve: where pictures may come from, what keys may ask, the log of requests, time limits, costly requests."""
import base64
import hashlib
import io
import json
import threading
import time
import uuid

import pytest
from PIL import Image
from serve_support import ask, demo_model, serving


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return demo_model(tmp_path_factory)


@pytest.fixture(scope="module")
def url(model):
    with serving(model) as (url, _):
        yield url


def say(content):
    return [{"role": "user", "content": content}]


def png(colour="red"):
    data = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(data, "PNG")
    return data.getvalue()


def with_picture(address):
    return {"messages": say([{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": "what?"}]),
            "max_tokens": 4, "temperature": 0, "logprobs": True}


def form(parts):
    boundary = uuid.uuid4().hex
    body = b"".join(b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="x"\r\n\r\n%s\r\n'
                    % (boundary.encode(), name.encode(), data) for name, data in parts)
    return body + b"--%s--\r\n" % boundary.encode(), {"Content-Type": "multipart/form-data; boundary=" + boundary}


def logprob(answer):
    return answer["choices"][0]["logprobs"]["content"][0]["logprob"]


def test_as_many_pictures_as_a_prompt_may_have(url):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(png()).decode()}}
    for count, expected in ((48, 200), (49, 400)):
        status, _, answer = ask(url + "/v1/chat/completions", {"messages": say([picture] * count), "max_tokens": 2})
        assert status == expected, answer
        if status == 200:
            assert len(answer["usage"]["prompt_tokens_details"]["images"]) == count


def test_pictures_of_a_form_and_of_a_directory(model, tmp_path):
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    allowed.mkdir()
    outside.mkdir()
    (allowed / "cat.png").write_bytes(png())
    (outside / "secret.png").write_bytes(png())
    (allowed / "link.png").symlink_to(outside / "secret.png")
    with serving(model, "--image-dir", allowed) as (url, _):
        chat = url + "/v1/chat/completions"
        _, _, wanted = ask(chat, with_picture("data:image/png;base64," + base64.b64encode(png()).decode()))
        _, _, other = ask(chat, with_picture("data:image/png;base64," + base64.b64encode(png("blue")).decode()))
        assert logprob(wanted) != logprob(other)
        cost = wanted["usage"]["prompt_tokens_details"]
        assert cost["image_tokens"] == cost["images"][0]["tokens"] > 0
        for address in ("file:cat.png", f"file://{allowed}/cat.png"):
            status, _, answer = ask(chat, with_picture(address))
            assert status == 200 and logprob(answer) == logprob(wanted), answer
        said = set()
        for address in (f"file://{outside}/secret.png", "file:../outside/secret.png", "file:link.png", "file:none.png",
                        "file:", "file:///etc/passwd", "file:///dev/zero"):
            status, _, answer = ask(chat, with_picture(address))
            assert status == 400, address
            said.add(answer["error"]["message"])
        assert len(said) == 1  # what is there and what is not look the same
        # Named by the request, and not named: before what the user said.
        body = json.dumps(with_picture("attachment:cat")).encode()
        plain = with_picture("attachment:cat") | {"messages": say("what?")}
        for request in (body, json.dumps(plain).encode()):
            status, _, answer = ask(chat, *form([("request", request), ("cat", png())]))
            assert status == 200 and logprob(answer) == logprob(wanted), answer
        for parts in ([("cat", png())], [("request", b"{")], [("request", body), ("dog", png())], []):
            assert ask(chat, *form(parts))[0] == 400
        assert ask(chat, b"--x--", {"Content-Type": "multipart/form-data"})[0] == 400


def test_addresses_are_fetched_only_when_asked_and_never_of_a_private_network(model, url):
    chat = url + "/v1/chat/completions"
    status, _, answer = ask(chat, with_picture("http://127.0.0.1:1/x.png"))
    assert status == 400 and "nothing is fetched" in answer["error"]["message"]
    with serving(model, "--fetch-images") as (fetching, _):
        for address in (url + "/health", "http://localhost:1/x.png", "http://[::1]/x.png", "http://169.254.169.254/latest",
                        "http://0x7f000001/x.png", "http://[::ffff:127.0.0.1]/x"):
            status, _, answer = ask(fetching + "/v1/chat/completions", with_picture(address))
            assert status == 400 and answer["error"]["param"].endswith("image_url.url"), (address, answer)
            assert "private network" in answer["error"]["message"] or "cannot be fetched" in answer["error"]["message"]


def test_a_key_has_its_limits_and_the_log_names_it(model, tmp_path):
    sums = [hashlib.sha256(key).hexdigest() for key in (b"one", b"two", b"free")]
    (tmp_path / "keys").write_text(f"{sums[0]}  - at-once=1\n{sums[1]} team per-minute=2\n{sums[2]} open\n")
    log = tmp_path / "log"
    with serving(model, "--keys", tmp_path / "keys", "--request-log", log) as (url, _):
        chat = url + "/v1/chat/completions"

        def one(key, **options):
            return ask(chat, {"messages": say("secret words"), "max_tokens": 2} | options, {"Authorization": "Bearer " + key})

        long = threading.Thread(target=one, args=("one",), kwargs={"max_tokens": 1500, "ignore_eos": True})
        long.start()
        while not ask(url + "/requests", headers={"Authorization": "Bearer one"})[2]["data"]:
            assert long.is_alive()
        status, head, _ = one("one")
        assert (status, head["Retry-After"]) == (429, "1")
        assert one("free")[0] == 200
        long.join()
        assert one("one")[0] == 200
        assert [one("two")[0] for _ in range(3)] == [200, 200, 429]
        assert 1 <= int(one("two")[1]["Retry-After"]) <= 31
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert "secret" not in log.read_text() and sums[0] not in log.read_text()
    team = [line for line in lines if line["key"] == "team"]
    assert sorted(line["status"] for line in team) == [200, 200, 429, 429]  # written when all of an answer is sent
    assert team[0]["generated_tokens"] == 2 and team[0]["prompt_tokens"] > 0 and team[0]["answer"].startswith("chatcmpl-") and team[0]["id"]
    assert team[0]["path"] == "/v1/chat/completions" and team[0]["peer"] == "127.0.0.1"


def test_texts_are_logged_when_asked_for(model, tmp_path):
    log = tmp_path / "log"
    with serving(model, "--request-log", log, "--log-texts") as (url, _):
        answer = ask(url + "/v1/chat/completions", {"messages": say("secret words"), "max_tokens": 5, "temperature": 0})[2]
        ask(url + "/v1/chat/completions", {"messages": 5}, {"X-Request-Id": "mine-1"})
    first, second = (json.loads(line) for line in log.read_text().splitlines())
    assert "secret words" in first["asked"] and first["answered"] == answer["choices"][0]["message"]["content"] and first["id"].startswith("req_")
    assert (second["id"], second["status"], second["answered"]) == ("mine-1", 400, "")


def test_a_request_has_its_time(url):
    begin = time.monotonic()
    status, _, answer = ask(url + "/v1/chat/completions",
                            {"messages": say("go"), "max_tokens": 100000, "ignore_eos": True, "timeout": 1})
    assert status == 200 and answer["choices"][0]["finish_reason"] == "length"
    assert time.monotonic() - begin < 20


def test_ambiguous_grammars_are_refused_in_time(url):
    rules = "".join(f'r{i} ::= "a" r{i} "b" | "a" [a-c]* | "c"\n' for i in range(1500))
    grammar = "root ::= (" + " | ".join(f"r{i}" for i in range(1500)) + ")+\n" + rules
    begin = time.monotonic()
    status, _, answer = ask(url + "/v1/chat/completions", {"messages": say("hi"), "grammar": grammar, "max_tokens": 50,
                                                                  "temperature": 0})  # others end before it becomes costly
    assert status == 400 and "ambiguous" in answer["error"]["message"], answer
    assert time.monotonic() - begin < 60


def test_objects_of_many_keys_are_read_in_time(url):
    body = {"messages": say("hi"), "max_tokens": 1, "metadata": {f"key number {i}": i for i in range(10000)}}
    begin = time.monotonic()
    for _ in range(10):
        assert ask(url + "/v1/chat/completions", body)[0] == 200
    assert time.monotonic() - begin < 20
    assert ask(url + "/v1/chat/completions", body | {"metadata": {f"key number {i}": i for i in range(10001)}})[0] == 400
    twice = b'{"messages": [], ' + b", ".join(b'"%d": 1' % (i % 50) for i in range(51)) + b"}"
    status, _, answer = ask(url + "/v1/chat/completions", twice)
    assert status == 400 and "appears twice" in answer["error"]["message"]


def test_too_long_a_text_is_refused_before_its_pictures_are_read(url):
    messages = say([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    {"type": "text", "text": "word " * 9000}])
    status, _, answer = ask(url + "/v1/chat/completions", {"messages": messages})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


def test_tools_with_any_first_messages(url):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    system, developer = {"role": "system", "content": "a"}, {"role": "developer", "content": "b"}
    assistant = {"role": "assistant", "content": "hello"}
    for messages in ([system, developer, *say("x")], [developer, *say("x")], [assistant, *say("x")], [system, assistant],
                     [system]):
        body = {"messages": messages, "tools": tools, "max_tokens": 2}
        assert ask(url + "/v1/chat/completions", body)[0] == 200, messages
    _, _, both = ask(url + "/apply-template", {"messages": [system, developer, *say("x")]})
    _, _, joined = ask(url + "/apply-template", {"messages": [{"role": "system", "content": "a\n\nb"}, *say("x")]})
    assert both == joined


def test_tokens_that_are_no_text_have_names_of_their_own(url):
    _, _, answer = ask(url + "/v1/completions", {"prompt": "\u00e9\u4e2d\U0001f600 text", "echo": True, "logprobs": 20,
                                                 "max_tokens": 0})
    logprobs = answer["choices"][0]["logprobs"]
    assert all("\ufffd" not in token for token in logprobs["tokens"])
    assert all(len(top) == 20 for top in logprobs["top_logprobs"] if top)
    raw = [token for token in logprobs["tokens"] if token.startswith("bytes:")]
    assert raw and all(token.startswith("bytes:\\x") for token in raw)
