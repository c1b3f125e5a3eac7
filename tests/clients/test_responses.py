"""/v1/responses and /v1/embeddings through the openai package: streamed and whole, tools, pictures, structured output."""
import base64
import io
import json
import math

import openai
import pydantic
import pytest
from PIL import Image
from serve_support import ask, demo_model, serving

WEATHER = {"type": "function", "name": "weather", "description": "Weather of a town", "strict": True, "parameters": {
    "type": "object", "properties": {"town": {"type": "string", "maxLength": 8}}, "required": ["town"]}}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serving(demo_model(tmp_path_factory)) as (url, _):
        yield url


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=120)


def picture(colour):
    data = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def test_whole_is_what_chat_gives(client):
    options = {"model": "demo", "temperature": 1, "extra_body": {"seed": 3}}
    answer = client.responses.create(input="hello", instructions="Be brief.", max_output_tokens=12, **options)
    chat = client.chat.completions.create(messages=[{"role": "system", "content": "Be brief."},
                                                    {"role": "user", "content": "hello"}], max_tokens=12, **options)
    assert answer.output_text == chat.choices[0].message.content
    assert answer.usage.output_tokens == chat.usage.completion_tokens
    assert answer.usage.input_tokens == chat.usage.prompt_tokens
    assert answer.object == "response" and answer.id.startswith("resp_")
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_events_come_in_order_and_are_the_whole(client):
    options = {"model": "demo", "input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
               "temperature": 1, "max_output_tokens": 12, "extra_body": {"seed": 4}, "top_logprobs": 2}
    whole = client.responses.create(**options)
    events = list(client.responses.create(stream=True, **options))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    assert kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done",
                          "response.incomplete"]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text == events[-1].response.output_text
    assert len(whole.output[0].content[0].logprobs) == whole.usage.output_tokens
    assert len(whole.output[0].content[0].logprobs[0].top_logprobs) == 2
    counts = [(usage.input_tokens, usage.output_tokens, usage.total_tokens) for usage in (events[-1].response.usage, whole.usage)]
    assert counts[0] == counts[1]
    with client.responses.stream(model="demo", input="hello", max_output_tokens=6, extra_body={"ignore_eos": True}) as stream:
        final = [event for event in stream][-1]
    assert final.type == "response.incomplete"


def test_a_tool_is_called_and_its_result_goes_back(client):
    options = {"model": "demo", "tools": [WEATHER], "tool_choice": "required", "temperature": 1, "max_output_tokens": 200,
               "extra_body": {"seed": 2}}
    whole = client.responses.create(input="Rain?", **options)
    assert whole.status == "completed"
    (call,) = whole.output
    assert (call.type, call.name) == ("function_call", "weather") and list(json.loads(call.arguments)) == ["town"]
    events = list(client.responses.create(input="Rain?", stream=True, **options))
    pieces = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    assert pieces == call.arguments
    assert [event.arguments for event in events if event.type == "response.function_call_arguments.done"] == [call.arguments]
    again = [{"role": "user", "content": "Rain?"}, call.model_dump(exclude_none=True),
             {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    answer = client.responses.create(model="demo", input=again, tools=[WEATHER], tool_choice="none", max_output_tokens=4)
    alone = client.responses.create(model="demo", input="Rain?", max_output_tokens=4)
    assert answer.usage.input_tokens > alone.usage.input_tokens + 10


def test_structured_output(client):
    class Person(pydantic.BaseModel):
        age: int
        home: pydantic.HttpUrl
    schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["age"]}
    answer = client.responses.create(model="demo", input="who", temperature=1, max_output_tokens=100,
                                     text={"format": {"type": "json_schema", "name": "person", "schema": schema}})
    assert 0 <= json.loads(answer.output_text)["age"] <= 99
    chat = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "who"}], temperature=1, seed=1, max_tokens=3000,
        response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": Person.model_json_schema()}})
    if chat.choices[0].finish_reason == "stop":
        Person.model_validate_json(chat.choices[0].message.content)


def test_pictures_and_what_they_cost(client):
    def look(*urls):
        content = [{"type": "input_text", "text": "what?"}] + [{"type": "input_image", "image_url": url} for url in urls]
        return client.responses.create(model="demo", input=[{"role": "user", "content": content}], max_output_tokens=1)

    none, one, two = look().usage, look(picture("red")).usage, look(picture("red"), picture("blue")).usage
    details = two.input_tokens_details.model_dump()
    assert [image["tokens"] for image in details["images"]] == [one.input_tokens - none.input_tokens] * 2
    assert details["image_tokens"] == two.input_tokens - none.input_tokens


@pytest.mark.parametrize("body,field", [
    ({}, "input"), ({"input": []}, "input"), ({"input": [{"type": "what"}]}, "input[0].type"),
    ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
    ({"input": "x", "background": True}, "background"),
    ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": "{"}]}, "input[0].arguments"),
    ({"input": "x", "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "nothing"}}}}, "text.format.schema"),
    ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
])
def test_wrong_requests_name_the_field(url, body, field):
    status, _, answer = ask(url + "/v1/responses", body)
    assert (status, answer["error"]["param"]) == (400, field), answer


def test_embeddings(client, url):
    texts = ["one", "two words", "one"]
    vectors = [item.embedding for item in client.embeddings.create(model="demo", input=texts).data]
    floats = [item.embedding for item in client.embeddings.create(model="demo", input=texts, encoding_format="float").data]
    assert [len(v) for v in vectors] == [len(vectors[0])] * 3
    for a, b in zip(vectors, floats):
        assert a == pytest.approx(b, abs=1e-6)
        assert math.hypot(*a) == pytest.approx(1, abs=1e-4)
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-3)
    assert math.dist(vectors[0], vectors[1]) > 0.01
    _, _, ids = ask(url + "/tokenize", {"prompt": "one"})
    by_ids = client.embeddings.create(model="demo", input=ids["tokens"])
    assert by_ids.data[0].embedding == pytest.approx(vectors[0], abs=1e-3)
    assert by_ids.usage.prompt_tokens == len(ids["tokens"])
    for body in ({}, {"input": ""}, {"input": []}, {"input": ["a", 3]}, {"input": "a", "dimensions": 3},
                 {"input": "a", "encoding_format": "int8"}):
        status, _, answer = ask(url + "/v1/embeddings", body)
        assert status == 400 or body == {"input": ""}, answer
