"""/requests and /v1/requests/ID/routing: what they tell, to whom, and for how long."""
import base64
import hashlib
import json
import threading
import time

import pytest
from page_support import MODEL, PICTURE
from serve_support import ask, serving



@pytest.fixture(scope="module")
def url():
    with serving(MODEL) as (url, _):
        yield url


def chat(url, text="What is Puna?", headers=None, **fields):
    return ask(url + "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 12} | fields,
               headers)


def routing(url, answer, headers=None):
    return ask(f"{url}/v1/requests/{answer['id']}/routing", headers=headers)


def test_each_token_has_its_experts_by_layer(url):
    status, head, answer = chat(url, return_routing=True)
    assert status == 200 and "X-Puna-Ignored" not in head
    status, _, told = routing(url, answer)
    assert status == 200
    config = json.loads((MODEL / "config.json").read_text())["text_config"]
    assert told["layers"] == config["moe_layers"] and told["num_experts"] == config["num_local_experts"]
    assert told["prompt_tokens"] == answer["usage"]["prompt_tokens"] and told["completion_tokens"] == answer["usage"]["completion_tokens"]
    count = told["prompt_tokens"] + told["completion_tokens"]
    assert len(told["tokens"]) == len(told["token_ids"]) == len(told["experts"]) == len(told["scores"]) == count
    assert "".join(told["tokens"][told["prompt_tokens"]:]) == answer["choices"][0]["message"]["content"]
    assert told["experts"][-1] is None  # written, and never read
    for experts, scores in zip(told["experts"][told["cached_tokens"]:-1], told["scores"][told["cached_tokens"]:-1]):
        assert len(experts) == len(scores) == len(told["layers"])
        assert all(len(of) == told["experts_per_token"] and all(0 <= e < told["num_experts"] for e in of) for of in experts)
        assert all(0 < score < 1 for of in scores for score in of)
    assert len({experts[0][0] for experts in told["experts"] if experts}) > 1
    # The same prompt again: what the cache had was not read, the rest went the same way.
    again = routing(url, chat(url, return_routing=True)[2])[2]
    assert again["cached_tokens"] > 0
    assert again["experts"] == [None] * again["cached_tokens"] + told["experts"][again["cached_tokens"]:]


def test_tiles_of_pictures_and_their_places(url):
    picture = "data:image/png;base64," + base64.b64encode(PICTURE.read_bytes()).decode()
    parts = [{"type": "text", "text": "Two:"}] + [{"type": "image_url", "image_url": {"url": picture}}] * 2
    answer = ask(url + "/v1/chat/completions", {"messages": [{"role": "user", "content": parts}], "return_routing": True, "max_tokens": 3})[2]
    told = routing(url, answer)[2]
    patches = [i for i, token in enumerate(told["tokens"]) if token == "<|patch|>"]
    places = [p for image in told["images"] for tile in image["tiles"] for p in range(tile["position"], tile["position"] + tile["tokens"])]
    assert len(told["images"]) == 2 and places == patches
    for image in told["images"]:
        assert sum(tile["row"] is None for tile in image["tiles"]) == 1
        assert len(image["tiles"]) in (1, image["rows"] * image["columns"] + 1)


def test_what_is_not_known_or_wrong(url):
    answer = chat(url)[2]  # without return_routing
    for path in (f"/v1/requests/{answer['id']}/routing", "/v1/requests/nothing/routing"):
        status, _, error = ask(url + path)
        assert status == 404 and error["error"]["code"] == "request_not_found" and error["error"]["param"] == "id"
    for path in ("/v1/requests", "/v1/requests/", "/v1/requests//routing", "/v1/requests/x", "/v1/requests/routing"):
        assert ask(url + path)[0] == 404, path
    assert ask(url + "/v1/requests/x/routing", {}, method="POST")[0] == 405
    for fields, where in (({"return_routing": True, "n": 2}, "return_routing"), ({"return_routing": 7}, "return_routing")):
        status, _, error = chat(url, **fields)
        assert status == 400 and error["error"]["param"] == where


def test_only_the_latest_are_kept(url):
    first = chat(url, return_routing=True, max_tokens=1)[2]
    assert routing(url, first)[0] == 200
    for i in range(256):
        latest = chat(url, f"{i}", return_routing=True, max_tokens=1)[2]
    assert routing(url, first)[0] == 404 and routing(url, latest)[0] == 200


def test_running_requests_are_listed(url):
    worker = threading.Thread(target=chat, args=(url, "all"), kwargs={"max_tokens": 3500, "ignore_eos": True, "return_routing": True})
    worker.start()
    seen = []
    while worker.is_alive():
        listed = ask(url + "/requests")[2]
        seen += listed["data"]
        time.sleep(0.02)
    worker.join()
    assert not any("id" in one for one in seen), "without keys nobody learns what others ask"
    writing = [one for one in seen if one["state"] == "answering" and one["tokens_per_second"]]
    assert writing and writing[-1]["completion_tokens"] > writing[0]["completion_tokens"]
    assert ask(url + "/requests")[2]["data"] == []
    engine = ask(url + "/requests")[2]["engine"]
    assert [pool["pool"] for pool in engine["cache"]] == ["global", "chunked"] and engine["experts"] is None
    assert all(pool["kept"] > 0 and pool["blocks"] > pool["kept"] for pool in engine["cache"])
    metrics = ask(url + "/metrics")[2]
    assert 'puna_cache_blocks{pool="global"}' in metrics and 'puna_cache_blocks_kept{pool="chunked"}' in metrics


def test_a_key_sees_its_own_requests_alone(tmp_path):
    keys = ["first key", "second key"]
    (tmp_path / "keys").write_text("".join(f"{hashlib.sha256(key.encode()).hexdigest()}  {key}\n" for key in keys))
    with serving(MODEL, "--keys", tmp_path / "keys") as (url, _):
        first, second = ({"Authorization": f"Bearer {key}"} for key in keys)
        answer = chat(url, headers=first, return_routing=True)[2]
        assert routing(url, answer, first)[0] == 200
        assert routing(url, answer, second)[0] == 404
        assert routing(url, answer)[0] == 401
        assert ask(url + "/requests")[0] == 401
        assert ask(url + "/")[0] == 200  # the page asks for the key by itself
        worker = threading.Thread(target=chat, args=(url, "all", first), kwargs={"max_tokens": 3500, "ignore_eos": True})
        worker.start()
        mine = theirs = 0
        while worker.is_alive():
            for one in ask(url + "/requests", headers=first)[2]["data"]:
                mine += 1
                assert ask(f"{url}/v1/requests/{one['id']}/routing", headers=first)[0] in (404, 409)  # 404: it has ended meanwhile
            theirs += len(ask(url + "/requests", headers=second)[2]["data"])
        worker.join()
        assert mine > 0 and theirs == 0
