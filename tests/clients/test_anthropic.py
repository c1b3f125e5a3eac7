"""/v1/messages through the anthropic package: streamed and whole, tools, pictures, counted tokens, errors."""
import base64
import io
import json

import anthropic
import pytest
from PIL import Image
from serve_support import ask, demo_model, serving

WEATHER = {"name": "weather", "description": "Weather of a town", "input_schema": {
    "type": "object", "properties": {"town": {"type": "string", "maxLength": 8}}, "required": ["town"]}}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serving(demo_model(tmp_path_factory)) as (url, _):
        yield url


@pytest.fixture(scope="module")
def client(url):
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=120)


def say(content):
    return [{"role": "user", "content": content}]


def test_whole_is_what_chat_gives(client, url):
    answer = client.messages.create(model="demo", system="Be brief.", messages=say("hello"), max_tokens=12, extra_body={"temperature": 0})
    _, _, chat = ask(url + "/v1/chat/completions", {"messages": [{"role": "system", "content": "Be brief."}, *say("hello")],
                                                    "max_tokens": 12, "temperature": 0})
    assert answer.content[0].text == chat["choices"][0]["message"]["content"]
    assert answer.usage.output_tokens == chat["usage"]["completion_tokens"]
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens == chat["usage"]["prompt_tokens"]
    assert (answer.stop_reason, answer.role, answer.type) == ("max_tokens", "assistant", "message")


def test_a_stream_is_the_whole(client):
    options = {"model": "demo", "messages": say("hello"), "max_tokens": 12, "extra_body": {"temperature": 0}}
    whole = client.messages.create(**options)
    with client.messages.stream(**options) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    kinds = [event.type for event in client.messages.create(stream=True, **options)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_stop_sequences(client):
    options = {"model": "demo", "messages": say("a"), "max_tokens": 24, "extra_body": {"temperature": 0}}
    text = client.messages.create(**options).content[0].text
    stop = text[len(text) // 2:][:3]
    cut = client.messages.create(stop_sequences=[stop], **options)
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)
    assert cut.content[0].text == text.split(stop)[0]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
def test_a_tool_is_called_and_its_result_goes_back(client, choice):
    options = {"model": "demo", "messages": say("Rain?"), "max_tokens": 200, "tools": [WEATHER], "tool_choice": choice,
               "extra_body": {"temperature": 0}}
    whole = client.messages.create(**options)
    (call,) = whole.content
    assert (whole.stop_reason, call.type, call.name) == ("tool_use", "tool_use", "weather")
    assert list(call.input) == ["town"]
    with client.messages.stream(**options) as stream:
        streamed = stream.get_final_message().content[0]
    assert (streamed.name, streamed.input) == (call.name, call.input)
    again = [*say("Rain?"), {"role": "assistant", "content": [call.model_dump(exclude_none=True)]},
             *say([{"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]},
                   {"type": "text", "text": "So?"}])]
    answer = client.messages.create(model="demo", messages=again, tools=[WEATHER], tool_choice={"type": "none"}, max_tokens=4)
    alone = client.messages.count_tokens(model="demo", messages=say("Rain?")).input_tokens
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens > alone + 10


def test_pictures_and_counted_tokens(client):
    data = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(data, "PNG")
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png",
                                         "data": base64.b64encode(data.getvalue()).decode()}}
    with_image = say([image, {"type": "text", "text": "what?"}])
    answer = client.messages.create(model="demo", messages=with_image, max_tokens=1)
    counted = client.messages.count_tokens(model="demo", messages=with_image).input_tokens
    assert counted == answer.usage.input_tokens + answer.usage.cache_read_input_tokens
    text_alone = client.messages.count_tokens(model="demo", messages=say([{"type": "text", "text": "what?"}])).input_tokens
    assert counted - text_alone == answer.usage.model_dump()["image_tokens"] > 0


def test_errors_are_in_its_form(client, url):
    with pytest.raises(anthropic.BadRequestError) as wrong:
        client.messages.create(model="demo", messages=say([{"type": "what"}]), max_tokens=1)
    assert wrong.value.body["error"]["type"] == "invalid_request_error"
    assert "messages[0].content[0].type" in wrong.value.body["error"]["message"]
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="other", messages=say("x"), max_tokens=1)
    status, _, answer = ask(url + "/v1/messages", {"messages": say("x")})
    assert (status, answer["type"]) == (400, "error") and "max_tokens" in answer["error"]["message"]
    body = json.dumps({"messages": say("x"), "max_tokens": 1}).encode()
    assert ask(url + "/v1/messages", body, {"Content-Type": "text/plain"})[0] == 415
