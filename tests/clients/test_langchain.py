"""langchain-openai as the client: a loop of tool calls, structured output, embeddings."""
from typing import Annotated

import pydantic
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from serve_support import demo_model, serving


@tool
def weather(town: Annotated[str, pydantic.Field(max_length=8)]) -> str:
    """Weather of a town"""
    return "sunny in " + town


class Age(pydantic.BaseModel):
    years: int


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serving(demo_model(tmp_path_factory)) as (url, _):
        yield url + "/v1"


@pytest.fixture(scope="module")
def model(url):
    return ChatOpenAI(model="demo", base_url=url, api_key="none", max_retries=0, temperature=0, max_tokens=400)


def test_a_loop_of_tool_calls(model):
    messages = [HumanMessage("Rain?")]
    asks = model.bind_tools([weather], tool_choice="required")
    for turn in range(3):
        answer = asks.invoke(messages)
        messages.append(answer)
        assert answer.tool_calls, answer
        for call in answer.tool_calls:
            result = weather.invoke(call)
            assert isinstance(result, ToolMessage) and result.content == "sunny in " + call["args"]["town"]
            messages.append(result)
    last = model.bind_tools([weather], tool_choice="none").invoke(messages)
    assert not last.tool_calls and last.usage_metadata["input_tokens"] > 0


def test_a_streamed_call_is_the_whole_one(model):
    asks = model.bind_tools([weather], tool_choice="weather")
    whole = asks.invoke("Rain?").tool_calls[0]
    total = None
    for chunk in asks.stream("Rain?"):
        total = chunk if total is None else total + chunk
    assert total.tool_calls[0]["args"] == whole["args"]


def test_structured_output(model):
    answer = model.with_structured_output(Age, method="json_schema").invoke("How old?")
    assert isinstance(answer.years, int)


def test_embeddings(url):
    embeddings = OpenAIEmbeddings(model="demo", base_url=url, api_key="none", max_retries=0, check_embedding_ctx_length=False)
    one, two = embeddings.embed_documents(["one", "two"])
    assert len(one) == len(two) > 0 and embeddings.embed_query("one") == pytest.approx(one, abs=1e-3)
