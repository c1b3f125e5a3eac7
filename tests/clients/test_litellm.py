"""litellm as the client: chat, stream, tools, embeddings."""
import json
import os

import pytest
from serve_support import demo_model, serving

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its list of prices comes with it
import litellm  # noqa: E402

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"town": {"type": "string", "maxLength": 8}}, "required": ["town"]}}}


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    with serving(demo_model(tmp_path_factory)) as (url, _):
        yield {"model": "openai/demo", "api_base": url + "/v1", "api_key": "none", "num_retries": 0}


def test_chat_and_stream(options):
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 12, "temperature": 0, **options}
    whole = litellm.completion(**chat)
    pieces = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(stream=True, **chat)]
    assert "".join(pieces) == whole.choices[0].message.content
    assert whole.usage.completion_tokens == 12


def test_tools(options):
    answer = litellm.completion(messages=[{"role": "user", "content": "Rain?"}], tools=[WEATHER], tool_choice="required",
                                max_tokens=200, **options)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather" and list(json.loads(call.function.arguments)) == ["town"]


def test_embeddings(options):
    data = litellm.embedding(input=["one", "two"], **options).data
    assert len(data) == 2 and len(data[0]["embedding"]) == len(data[1]["embedding"]) > 0
