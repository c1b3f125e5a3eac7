"""Mixed traffic for `puna serve`: streams, fixed seeds, schemas, pictures, embeddings, wrong requests, clients that leave.

    pip install locust
    ./puna serve &
    locust -f bench/load/locustfile.py --headless --users 64 --spawn-rate 8 --run-time 10m --host http://127.0.0.1:8080

A failure is a status that the request does not deserve, a stream without its end, or an answer with a fixed seed that is
not what it was the first time. At the end stands how the server's memory went.
"""
import base64
import json
import random
import re
import struct
import time
import zlib

import gevent
from locust import HttpUser, between, events, task

KNOWN = {}  # what requests with a fixed seed were answered first
MEMORY = []  # (seconds since the start, bytes)
QUESTIONS = ["What is Puna?", "How do I train a model?", "What is 12 + 30?", "Which is greater, 41 or 14?", "Tell me about the moon."]


def png(colour):
    """A picture of 96 x 96 of one colour."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = (b"\0" + bytes(colour) * 96) * 96
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 96, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def memory_of(client):
    text = client.get("/metrics").text
    return int(float(re.search(r"^puna_memory_bytes (\S+)", text, re.M)[1]))


@events.test_start.add_listener
def watch_memory(environment, **_):
    import requests
    start = time.time()

    def look():
        while True:
            try:
                MEMORY.append((time.time() - start, memory_of(type("C", (), {"get": staticmethod(lambda p: requests.get(environment.host + p))}))))
            except Exception as error:  # the server may be gone: the requests say so
                print("metrics:", error)
            gevent.sleep(10)

    gevent.spawn(look)


@events.quitting.add_listener
def tell_memory(environment, **_):
    if len(MEMORY) < 4:
        return
    part = max(1, len(MEMORY) // 10)
    after = [size for _, size in MEMORY[part:2 * part]]
    last = [size for _, size in MEMORY[-part:]]
    mean = lambda sizes: sum(sizes) / len(sizes) / 2 ** 20
    print(f"memory: {mean(after):.0f} MiB in the second tenth of the time, {mean(last):.0f} MiB in the last, "
          f"at most {max(size for _, size in MEMORY) / 2 ** 20:.0f} MiB")


class Somebody(HttpUser):
    wait_time = between(0.05, 0.5)

    def chat(self, body, name, wanted=200, path="/v1/chat/completions"):
        with self.client.post(path, json=body, name=name, catch_response=True) as answer:
            if answer.status_code != wanted:
                answer.failure(f"{answer.status_code} instead of {wanted}: {answer.text[:200]}")
                return None
            answer.success()
            return answer.json()

    @task(6)
    def streams(self):
        body = {"messages": [{"role": "user", "content": random.choice(QUESTIONS)}], "max_tokens": 100, "stream": True}
        with self.client.post("/v1/chat/completions", json=body, name="stream", stream=True, catch_response=True) as answer:
            lines = [line for line in answer.iter_lines() if line]
            if answer.status_code != 200 or not lines or lines[-1] != b"data: [DONE]":
                answer.failure(f"{answer.status_code}, {lines[-1:]}")

    @task(3)
    def leaves(self):
        body = {"prompt": random.choice(QUESTIONS), "max_tokens": 2000, "ignore_eos": True, "stream": True}
        with self.client.post("/v1/completions", json=body, name="leave", stream=True, catch_response=True) as answer:
            next(answer.iter_lines(), None)
            answer.close()
            answer.success()

    @task(3)
    def the_same_again(self):
        number = random.randrange(20)
        body = {"messages": [{"role": "user", "content": f"{QUESTIONS[number % 5]} {number}"}], "max_tokens": 40, "temperature": 0.8, "seed": number}
        answer = self.chat(body, "fixed seed")
        if answer is None:
            return
        text = answer["choices"][0]["message"]["content"]
        if KNOWN.setdefault(number, text) != text:
            self.environment.events.request.fire(request_type="CHECK", name="fixed seed", response_time=0, response_length=0, context={},
                                                 exception=AssertionError(f"{text!r}, at first {KNOWN[number]!r}"))

    @task(2)
    def with_a_picture(self):
        url = "data:image/png;base64," + base64.b64encode(png(random.choice([(255, 0, 0), (0, 128, 0), (0, 0, 255)]))).decode()
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is in the picture?"}]
        self.chat({"messages": [{"role": "user", "content": parts}], "max_tokens": 40}, "picture")

    @task(1)
    def embeds(self):
        self.chat({"input": random.sample(QUESTIONS, 3)}, "embeddings", path="/v1/embeddings")

    @task(1)
    def with_a_schema(self):
        schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"], "additionalProperties": False}
        answer = self.chat({"messages": [{"role": "user", "content": "What is 12 + 30?"}], "max_tokens": 60,
                            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}, "schema")
        if answer and answer["choices"][0]["finish_reason"] == "stop":
            assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["answer"], int)

    @task(2)
    def wrong(self):
        body, wanted = random.choice([({"messages": "hello"}, 400), ({"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}, 400),
                                      ({"messages": [{"role": "user", "content": "x"}], "model": "other"}, 404),
                                      ({"messages": [{"role": "user", "content": "x" * 100_000}]}, 400)])
        self.chat(body, "wrong", wanted)
