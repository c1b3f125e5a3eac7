"""puna serve through the openai package and by hand: what is answered, in pieces and whole, and what is refused."""
import base64
import hashlib
import io
import json
import math
import os
import re
import signal
import socket
import subprocess
import threading
import time

import openai
import pytest
from PIL import Image
from serve_support import PUNA, ask, serving

DECLINED = [
    ({}, 400, "messages"),
    ({"messages": []}, 400, "messages"),
    ({"messages": "hi"}, 400, "messages"),
    ({"messages": [{"role": "king", "content": "hi"}]}, 400, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, 400, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "messages[0].content[0].text"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b.png"}}]}]}, 400,
     "messages[0].content[0].image_url.url"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,!"}}]}]},
     400, "messages[0].content[0].image_url.url"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]},
     422, "messages[0].content[0].image_url.url"),
    ({"messages": [{"role": "user", "content": "hi"}], "temperature": "hot"}, 400, "temperature"),
    ({"messages": [{"role": "user", "content": "hi"}], "temperature": -1}, 400, "temperature"),
    ({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 0}, 400, "max_tokens"),
    ({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1e300}, 400, "max_tokens"),
    ({"messages": [{"role": "user", "content": "hi"}], "n": 1000000}, 400, "n"),
    ({"messages": [{"role": "user", "content": "hi"}], "stop": [3.5]}, 400, "stop"),
    ({"messages": [{"role": "user", "content": "hi"}], "stop": 4294967297}, 400, "stop"),
    ({"messages": [{"role": "user", "content": "hi"}], "stop_token_ids": [-1]}, 400, "stop_token_ids"),
    ({"messages": [{"role": "user", "content": "hi"}], "stop": "x" * 2000}, 400, "stop"),
    ({"messages": [{"role": "user", "content": "hi"}], "priority": 5}, 400, "priority"),
    ({"messages": [{"role": "user", "content": "hi"}], "logit_bias": {"x": 1}}, 400, "logit_bias"),
    ({"messages": [{"role": "user", "content": "hi"}], "top_logprobs": 3}, 400, "top_logprobs"),
    ({"messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "xml"}}, 400, "response_format.type"),
    ({"messages": [{"role": "user", "content": "hi"}], "grammar": "root ::= ("}, 400, "grammar"),
    ({"messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "what"}}}},
     400, "response_format.json_schema.schema"),
    ({"messages": [{"role": "user", "content": "hi"}], "tool_choice": "required"}, 400, "tool_choice"),
    ({"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "function"}]}, 400, "tools[0].function"),
    ({"messages": [{"role": "user", "content": "hi"}], "tools": [{"function": {"name": "f"}}],
      "tool_choice": {"function": {"name": "g"}}}, 400, "tool_choice"),
    ({"messages": [{"role": "user", "content": "hi"}], "model": "gpt-5"}, 404, "model"),
    ({"messages": [{"role": "user", "content": "word " * 9000}]}, 400, "messages"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "demo"
    subprocess.run([PUNA, "demo-model", "--out", out], check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def url(model):
    with serving(model) as (url, _):
        yield url


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=120)


def say(text):
    return [{"role": "user", "content": text}]


def test_an_answer_is_that_of_puna_generate(model, client):
    flags = ["--model", model, "--threads", "1", "--prompt", "hello", "--max-tokens", "16", "--json"]
    for extra, options in ((["--temperature", "0"], {"temperature": 0}),
                           (["--temperature", "1", "--seed", "7"], {"temperature": 1, "seed": 7})):
        made = json.loads(subprocess.run([PUNA, "generate", *flags, *extra], capture_output=True, check=True).stdout)
        answer = client.chat.completions.create(model="demo", messages=say("hello"), max_tokens=16, **options)
        assert answer.choices[0].message.content == made["text"]
        assert answer.usage.prompt_tokens == made["usage"]["prompt_tokens"]
        assert answer.usage.completion_tokens == made["usage"]["completion_tokens"]


def test_pieces_are_the_whole(client):
    options = {"model": "demo", "messages": say("hello"), "max_tokens": 20, "temperature": 1, "seed": 3, "n": 3}
    whole = client.chat.completions.create(logprobs=True, top_logprobs=2, **options)
    texts, logprobs, reasons, usage = ["", "", ""], [[], [], []], [None] * 3, None
    for chunk in client.chat.completions.create(stream=True, stream_options={"include_usage": True}, logprobs=True,
                                                top_logprobs=2, **options):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            logprobs[choice.index] += choice.logprobs.content if choice.logprobs else []
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    for choice in whole.choices:
        assert texts[choice.index] == choice.message.content
        assert reasons[choice.index] == choice.finish_reason
        assert [e.token for e in logprobs[choice.index]] == [e.token for e in choice.logprobs.content]
        for entry in choice.logprobs.content:
            assert len(entry.top_logprobs) == 2
            assert entry.logprob <= 0
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_stops_and_limits(client):
    text = client.chat.completions.create(model="demo", messages=say("a"), max_tokens=24, temperature=0).choices[0]
    assert text.finish_reason == "length"
    middle = text.message.content[len(text.message.content) // 2:][:3]
    cut = client.chat.completions.create(model="demo", messages=say("a"), max_tokens=24, temperature=0, stop=middle)
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].message.content == text.message.content.split(middle)[0]


def test_json_schema_holds(client):
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer",
              "minimum": 0, "maximum": 99}}, "required": ["name", "age"]}
    answer = client.chat.completions.create(
        model="demo", messages=say("who"), max_tokens=200, temperature=1, seed=1,
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema}})
    person = json.loads(answer.choices[0].message.content)
    assert list(person) == ["name", "age"] and 0 <= person["age"] <= 99 and len(person["name"]) <= 5


WEATHER = {"type": "function", "function": {"name": "weather", "description": "Weather of a town", "parameters": {
    "type": "object", "properties": {"town": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1,
    "maximum": 9}}, "required": ["town", "days"]}}}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_tool_call_that_must_be_made(client, choice):
    options = {"model": "demo", "messages": say("Rain?"), "max_tokens": 300, "temperature": 1, "seed": 2, "tools": [WEATHER],
               "tool_choice": choice}
    whole = client.chat.completions.create(**options).choices[0]
    assert whole.finish_reason == "tool_calls" and whole.message.content is None
    (call,) = whole.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "weather" and list(arguments) == ["town", "days"] and 1 <= arguments["days"] <= 9
    name, streamed, reason = "", "", None
    for chunk in client.chat.completions.create(stream=True, **options):
        assert not chunk.choices[0].delta.content
        for delta in chunk.choices[0].delta.tool_calls or []:
            name += delta.function.name or ""
            streamed += delta.function.arguments or ""
        reason = chunk.choices[0].finish_reason or reason
    assert (name, json.loads(streamed), reason) == ("weather", arguments, "tool_calls")
    # The call and its result go back to the model.
    again = [*say("Rain?"), whole.message.model_dump(exclude_none=True),
             {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    answer = client.chat.completions.create(model="demo", messages=again, tools=[WEATHER], max_tokens=4, tool_choice="none")
    assert answer.usage.prompt_tokens > 0 and answer.choices[0].message.tool_calls is None


def test_pictures_change_the_answer_and_are_counted(client):
    def picture(colour):
        data = io.BytesIO()
        Image.new("RGB", (60, 40), colour).save(data, "PNG")
        return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()}}

    def look(*parts):
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": "what?"}]}]
        return client.chat.completions.create(model="demo", messages=messages, max_tokens=4, temperature=0, logprobs=True)

    none, red, blue = look(), look(picture("red")), look(picture("blue"))
    assert red.usage.prompt_tokens > none.usage.prompt_tokens
    assert red.choices[0].logprobs.content[0].logprob != blue.choices[0].logprobs.content[0].logprob
    assert look(picture("red")).usage.prompt_tokens_details.cached_tokens > 0


@pytest.fixture(scope="module")
def exact_url(model):
    """In FP32: puna perplexity runs other kernels for attention, which round BF16 elsewhere."""
    with serving(model, "--dtype", "fp32") as (url, _):
        yield url


def test_prompt_logprobs_sum_to_the_perplexity(model, exact_url, tmp_path):
    url = exact_url
    text = "The quick brown fox jumps over the lazy dog."
    (tmp_path / "text").write_text(text)
    command = [PUNA, "perplexity", "--model", model, "--threads", "1", "--dtype", "fp32", "--json", "--text", tmp_path / "text"]
    expected = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    _, _, answer = ask(url + "/v1/completions", {"prompt": text, "echo": True, "logprobs": 1, "max_tokens": 0})
    logprobs = answer["choices"][0]["logprobs"]
    assert "".join(logprobs["tokens"]) == text == answer["choices"][0]["text"]
    assert all(value is not None for value in logprobs["token_logprobs"])
    mean = -sum(logprobs["token_logprobs"]) / len(logprobs["token_logprobs"])
    assert math.exp(mean) == pytest.approx(expected["perplexity"], rel=1e-5)
    _, _, ids = ask(url + "/tokenize", {"prompt": text})
    _, _, answer = ask(url + "/v1/completions", {"prompt": ids["tokens"], "echo": True, "logprobs": 1, "max_tokens": 1})
    given = answer["choices"][0]["logprobs"]
    assert given["token_logprobs"][0] is None
    assert given["token_logprobs"][1:len(ids["tokens"])] == pytest.approx(logprobs["token_logprobs"], rel=1e-5)


def test_several_prompts(client):
    both = client.completions.create(model="demo", prompt=["one", "two"], n=2, max_tokens=6, temperature=1, seed=5)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    alone = client.completions.create(model="demo", prompt="two", n=2, max_tokens=6, temperature=1, seed=5)
    assert [c.text for c in both.choices[2:]] == [c.text for c in alone.choices]


def test_tokens_there_and_back(url):
    _, _, tokens = ask(url + "/tokenize", {"content": "hello world"})
    _, _, text = ask(url + "/detokenize", {"tokens": tokens["tokens"]})
    assert text["content"] == "hello world"
    _, _, prompt = ask(url + "/apply-template", {"messages": say("hi <|eot|>")})
    _, _, chat = ask(url + "/tokenize", {"messages": say("hi <|eot|>")})
    _, _, decoded = ask(url + "/detokenize", {"tokens": chat["tokens"]})
    assert decoded["content"] == prompt["prompt"]
    _, _, plain = ask(url + "/tokenize", {"messages": say("hi ")})
    assert len(chat["tokens"]) > len(plain["tokens"]) + 1  # what a user writes never becomes a special token
    assert ask(url + "/tokenizer_info")[2]["bos_token"] == "<|begin_of_text|>"


def test_models_health_and_metrics(url, client):
    assert [entry.id for entry in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").id == "demo"
    assert ask(url + "/health")[2] == {"status": "ok"}
    text = ask(url + "/metrics")[2]
    values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[:1] != "#"}
    assert values["puna_generated_tokens_total"] > 0
    assert values['puna_requests_total{path="/v1/models",status="200"}'] >= 2
    assert values["puna_time_to_first_token_seconds_count"] > 0


@pytest.mark.parametrize("body,status,field", DECLINED)
def test_wrong_requests_name_the_field(url, body, status, field):
    got, _, answer = ask(url + "/v1/chat/completions", body)
    assert (got, answer["error"]["param"]) == (status, field), answer
    assert answer["error"]["message"]


def test_what_is_no_request_at_all(url):
    chat = url + "/v1/chat/completions"
    assert ask(chat, b"{")[0] == 400
    assert ask(chat, b'{"messages": [' + b"[" * 100000)[0] == 400
    assert ask(chat, b"\xff\xfe")[0] == 400
    assert ask(chat, b"x=1", {"Content-Type": "application/x-www-form-urlencoded"})[0] == 415
    assert ask(chat)[0] == 405
    status, _, answer = ask(url + "/v1/chat/completion", {})
    assert status == 404 and "did you mean /v1/chat/completions?" in answer["error"]["message"]
    for host in ("evil.example", "127.evil.example", "127.0.0.1.evil.com:80", "[::1].evil.com"):
        assert ask(url + "/health", headers={"Host": host})[0] == 403, host
    for host in ("LOCALHOST:1", "[::1]:8080", "127.0.0.1"):
        assert ask(url + "/health", headers={"Host": host})[0] == 200, host
    assert ask(chat, {"messages": say("hi")}, {"Origin": "https://evil.example"})[0] == 403
    assert ask(chat, {"messages": say("hi"), "max_tokens": 1}, {"Origin": url})[0] == 200
    assert ask(chat, {"messages": say("hi"), "max_tokens": 1}, {"Content-Type": ""})[0] == 415
    assert ask(chat, {"messages": say("hi"), "max_tokens": 1}, {"Content-Type": "Application/JSON ; charset=utf-8"})[0] == 200
    status, head, _ = ask(chat, {"messages": say("hi"), "max_tokens": 1, "colour": "red"})
    assert status == 200 and head["X-Puna-Ignored"] == "colour"


def test_a_grammar_that_fails_at_its_start_hurts_nobody_else(url, client):
    rules = "".join(f'r{i} ::= "a" r{i} "b" | "c"\n' for i in range(5000))
    grammar = "root ::= " + " | ".join(f"r{i}" for i in range(5000)) + "\n" + rules
    stream = iter(client.chat.completions.create(model="demo", messages=say("go"), max_tokens=400, stream=True,
                                                 extra_body={"ignore_eos": True}))
    next(stream)
    assert ask(url + "/v1/chat/completions", {"messages": say("hi"), "grammar": grammar})[0] == 400
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"


def test_what_clients_send_beside(client, url):
    chat = url + "/v1/chat/completions"
    history = [*say("hi"), {"role": "assistant", "content": None, "refusal": "no"}, *say("why")]
    assert ask(chat, {"messages": history, "max_tokens": 1})[0] == 200
    greedy = {"messages": say("a"), "max_tokens": 8, "temperature": 0}
    texts = [ask(chat, greedy | more)[2]["choices"][0]["message"]["content"] for more in ({}, {"temperature": 1, "top_p": 0})]
    assert texts[0] == texts[1]
    parameters = {"$defs": {"P": {"type": "string", "enum": ["x", "y"]}}, "type": "object",
                  "properties": {"p": {"$ref": "#/$defs/P"}}, "required": ["p"]}
    for choice in ("required", {"type": "function", "function": {"name": "f"}}):
        answer = client.chat.completions.create(
            model="demo", messages=say("go"), max_tokens=60, temperature=1, tool_choice=choice,
            tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}])
        assert json.loads(answer.choices[0].message.tool_calls[0].function.arguments)["p"] in ("x", "y")
    status, _, answer = ask(url + "/v1/completions", {"prompt": "a", "echo": True, "logprobs": 1, "stream": True})
    assert (status, answer["error"]["param"]) == (400, "stream")


def test_a_client_that_leaves_stops_the_work(url):
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps({"messages": say("go"), "max_tokens": 100000, "ignore_eos": True, "stream": True}).encode()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert b"200" in connection.recv(4096)
        connection.recv(4096)
    def generated():
        return int(re.search(r"^puna_generated_tokens_total (\d+)", ask(url + "/metrics")[2], re.M)[1])

    before = generated()
    for _ in range(600):
        if "puna_completions_running 0" in ask(url + "/metrics")[2]:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the completion went on")
    assert generated() - before < 4000, "of the 16,000 that it asked for"


def test_many_at_once_get_what_each_gets_alone(client):
    def one(i):
        answer = client.chat.completions.create(model="demo", messages=say(f"number {i % 4}"), max_tokens=8, temperature=0)
        return answer.choices[0].message.content

    alone = [one(i) for i in range(4)]
    together = [None] * 24
    threads = [threading.Thread(target=lambda i=i: together.__setitem__(i, one(i))) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [alone[i % 4] for i in range(24)]


def test_keys_and_origins(model, tmp_path):
    (tmp_path / "keys").write_text("# of the team\n" + hashlib.sha256(b"sesame").hexdigest() + "  team\n")
    with serving(model, "--keys", tmp_path / "keys", "--origin", "https://Chat.example:443/") as (url, _):
        assert ask(url + "/health")[0] == 200
        for path in ("/v1/models", "/metrics", "/tokenizer_info"):
            assert ask(url + path)[0] == 401
            assert ask(url + path, headers={"Authorization": "Bearer wrong"})[0] == 401
            status, head, _ = ask(url + path, headers={"Authorization": "Bearer sesame", "Origin": "https://chat.example"})
            assert status == 200 and head["Access-Control-Allow-Origin"] == "https://chat.example"
        status, head, _ = ask(url + "/v1/models", headers={"X-Api-Key": "sesame", "Origin": "https://evil.example"})
        assert status == 403 and head["Access-Control-Allow-Origin"] is None
        preflight = {"Origin": "https://chat.example", "Access-Control-Request-Headers": "authorization, x-stainless-os"}
        status, head, _ = ask(url + "/v1/chat/completions", headers=preflight, method="OPTIONS")
        assert status == 204 and head["Access-Control-Allow-Headers"] == "authorization, x-stainless-os"
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as stranger:  # whose body nobody waits for
            stranger.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n"
                             b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n")
            answer = stranger.recv(4096)
            assert answer.startswith(b"HTTP/1.1 401") and b"\r\nConnection: close\r\n" in answer
    origin = subprocess.run([PUNA, "serve", "--model", model, "--origin", "chat.example"], capture_output=True, text=True)
    assert origin.returncode == 2 and "SCHEME://HOST" in origin.stderr
    (tmp_path / "bad").write_text("sesame\n")
    bad = subprocess.run([PUNA, "serve", "--model", model, "--keys", tmp_path / "bad"], capture_output=True, text=True)
    assert bad.returncode == 1 and "bad:1" in bad.stderr and "sha256sum" in bad.stderr


def test_too_many_requests_are_told_to_come_back(model):
    with serving(model, "--max-requests", 1) as (url, _):
        slow = {"messages": say("go"), "max_tokens": 2000, "ignore_eos": True, "stream": True}
        client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
        stream = client.chat.completions.create(model="demo", messages=slow["messages"], max_tokens=2000, stream=True,
                                                extra_body={"ignore_eos": True})
        next(iter(stream))
        status, head, answer = ask(url + "/v1/chat/completions", {"messages": say("hi")})
        assert status == 429 and head["Retry-After"] and answer["error"]["type"] == "rate_limit_error"
        stream.close()


def test_sigterm_lets_answers_end(model):
    with serving(model) as (url, process):
        client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
        stream = iter(client.chat.completions.create(model="demo", messages=say("go"), max_tokens=300, stream=True,
                                                     extra_body={"ignore_eos": True}))
        next(stream)
        process.send_signal(signal.SIGTERM)
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
        assert process.wait(timeout=60) == 0


def test_a_port_in_use_is_said(model, url):
    port = url.rsplit(":", 1)[1]
    second = subprocess.run([PUNA, "serve", "--model", model, "--port", port], capture_output=True, text=True, timeout=60)
    assert second.returncode == 1 and "--port" in second.stderr and os.linesep not in second.stderr.strip()
