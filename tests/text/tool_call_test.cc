// Dialects of tool calls, and texts that only look like calls: each whole, cut at every byte, and byte by byte.
#include <gtest/gtest.h>

#include <numeric>

#include "base/json.h"
#include "tests/text/tool_call_support.h"
#include "text/literal_reader.h"

namespace puna::text {
namespace {

struct Case {
  std::string text;
  std::vector<std::string> expected;
};

const std::string kStart = special_token("<|python_start|>"), kEnd = special_token("<|python_end|>");
const std::string kEom = special_token("<|eom|>");

std::vector<size_t> every_byte(const std::string& text) {
  std::vector<size_t> cuts(text.size());
  std::iota(cuts.begin(), cuts.end(), size_t{0});
  return cuts;
}

void check(const std::vector<Case>& cases, bool any = false) {
  const ToolCallRules rules = tool_rules(any);
  for (const auto& [text, expected] : cases) {
    SCOPED_TRACE(text);
    EXPECT_EQ(run_tool_calls(rules, text, {}), expected);
    EXPECT_EQ(run_tool_calls(rules, text, every_byte(text)), expected) << "byte by byte";
    for (size_t cut = 1; cut < text.size(); ++cut)
      EXPECT_EQ(run_tool_calls(rules, text, {cut}), expected) << "cut at " << cut;
  }
}

/// Cases of texts that stay what they are.
std::vector<Case> all_text(const std::vector<std::string>& texts) {
  std::vector<Case> cases;
  for (const auto& text : texts) cases.push_back({text, {"= " + text}});
  return cases;
}

TEST(ToolCalls, PythonLists) {
  check({
      {"[weather(city=\"Paris\")]", {R"(weather {"city":"Paris"})"}},
      {"[weather(city='Paris', unit=\"C\"), g()]", {R"(weather {"city":"Paris","unit":"C"})", "g {}"}},
      {"[g(), f(a=1), g()]", {"g {}", R"(f {"a":1})", "g {}"}},
      {"[ f ( a=1)]", {"= [ f ( a=1)]"}},
      {"[\n  f(\n    a = 1,\n    b = 2,\n  ),\n  g( ),\n]\n", {R"(f {"a":1,"b":2})", "g {}"}},
      {"[g()]", {"g {}"}},
      {"[get-time(zone=\"UTC\")]", {R"(get-time {"zone":"UTC"})"}},
      {"[math.add(x=1, y=2)]", {R"(math.add {"x":1,"y":2})"}},
      {"[search.call(query=\"a b\")]", {R"(search {"query":"a b"})"}},
      {"[f(a=1)\n[g(b=2)]", {R"(f {"a":1})", R"(g {"b":2})"}},
      {"[f(a=1)][g(b=2)]", {R"(f {"a":1})", R"(g {"b":2})"}},
      {"[f(a=1)], [g(b=2)]", {R"(f {"a":1})", R"(g {"b":2})"}},
      {"[f(a=1), g(b=2)", {R"(f {"a":1})", R"(g {"b":2})"}},
      {"[f(a=1", {R"(f! {"a":)"}},
      {"[f(a=", {R"(f! {"a":)"}},
      {"[f(a='x', b=tru", {R"(f! {"a":"x","b":)"}},
      {"[math.add(1, 2, 3)]", {R"(math.add! {"x":1,"y":2)", "=  3)]"}},
      {"[f(a=1),", {R"(f {"a":1})"}},
      {"[g()", {"g {}"}},
      {"[math.add(1, 2)]", {R"(math.add {"x":1,"y":2})"}},
      {"[weather(\"Rome\", unit='F')]", {R"(weather {"city":"Rome","unit":"F"})"}},
      {"[weather(None, True)]", {R"(weather {"city":null,"unit":true})"}},
      {"[f(\xC3\xA9t\xC3\xA9=1)]", {"f {\"\xC3\xA9t\xC3\xA9\":1}"}},
  });
}

TEST(ToolCalls, LonePythonCalls) {
  check({
      {"weather(city=\"Oslo\")", {R"(weather {"city":"Oslo"})"}},
      {"weather(city=\"Oslo\")\n", {R"(weather {"city":"Oslo"})"}},
      {"f(a=1", {R"(f! {"a":)"}},
      {"f(a=1); g(b=2)", {R"(f {"a":1})", R"(g {"b":2})"}},
      {"f(a=1)\ng()\n", {R"(f {"a":1})", "g {}"}},
      {"I look it up.\nsearch.call(query=\"x\")", {"= I look it up.\n", R"(search {"query":"x"})"}},
      {"  f(a='x\ny')  \nDone.", {R"(f {"a":"x\ny"})", "=   \nDone."}},
      {kStart + "f(a=1)" + kEnd, {R"(f {"a":1})"}},
      {kStart + "f(a=1)\ng(b=2)\n" + kEnd + kEom, {R"(f {"a":1})", R"(g {"b":2})"}},
  });
}

TEST(ToolCalls, SpecialTokens) {
  check({
      {kStart + "[f(a=1), g()]" + kEnd, {R"(f {"a":1})", "g {}"}},
      {"<|python_start|>[f(a=1), g()]<|python_end|>", {R"(f {"a":1})", "g {}"}},
      {"<|python_start|>[f(a=1), g()<|python_end|><|eom|>", {R"(f {"a":1})", "g {}"}},
      {"<|python_start|>\n[g()]\n<|python_end|>\n<|eot|>", {"g {}"}},
      {"<|python_start|>f(a=1)<|python_end|>", {R"(f {"a":1})"}},
      {kStart + "[f(a=1)" + kEnd + "Then.", {R"(f {"a":1})", "= Then."}},
      {kStart + "[f(a=\"x" + kEom, {R"(f! {"a":"x)"}},
      {"Hm." + kStart + "{\"name\": \"f\", \"parameters\": {\"a\": 1}}" + kEnd, {"= Hm.", R"(f {"a":1})"}},
      {"<|python_start|>Hm.<|python_end|>{\"name\": \"f\", \"parameters\": {\"a\": 1}}",
       {"= <|python_start|>Hm.<|python_end|>", R"(f {"a":1})"}},
      {kStart + "print(1)\n" + kEnd, {"= print(1)\n"}},
      {"[f(a=\"<|python_end|>\")]", {R"(f {"a":"<|python_end|>"})"}},
      {"[g()]" + kEom + "[g()]", {"g {}", "g {}"}},
      {"[f(a=1" + kEom, {R"(f! {"a":)"}},
      {"a <|pyth" + kEnd + "b", {"= a <|pythb"}},
  });
}

TEST(ToolCalls, JsonObjects) {
  const std::string call = R"({"type": "function", "name": "f", "parameters": {"a": 1}})";
  check({
      {call, {R"(f {"a":1})"}},
      {call + "; " + call, {R"(f {"a":1})", R"(f {"a":1})"}},
      {call + "\n" + call + "\n", {R"(f {"a":1})", R"(f {"a":1})"}},
      {"[" + call + ", " + call + "]", {R"(f {"a":1})", R"(f {"a":1})"}},
      {"[\n" + call + "\n]\nNext", {R"(f {"a":1})", "= \nNext"}},
      {R"({"name": "weather", "arguments": {"city": "Bonn", "days": [1, 2.5, -3e2]}})",
       {R"(weather {"city":"Bonn","days":[1,2.5,-3e2]})"}},
      {R"({"name": "f", "arguments": "{\"a\": \"x\\ny\", \"b\": [1]}"})", {R"(f {"a":"x\ny","b":[1]})"}},
      {R"({"name": "f", "arguments": ""})", {"f {}"}},
      {R"({"name": "f", "parameters": null})", {"f {}"}},
      {R"({"name": "f", "parameters": {}})", {"f {}"}},
      {R"({"id": "call_1", "parameters": {"a": 1}, "name": "f", "type": "function"})", {R"(f {"a":1})"}},
      {R"({'name': 'f', 'parameters': {'a': None, 'b': True}})", {R"(f {"a":null,"b":true})"}},
      {R"({"name": "f", "parameters": {"a": "\u00e9\ud83d\ude00\/"}})", {"f {\"a\":\"\xC3\xA9\xF0\x9F\x98\x80/\"}"}},
      {"{\"name\": \"f\", \"parameters\": {\"a\": \"x\ny\xC3\xA9\"}}", {"f {\"a\":\"x\\ny\xC3\xA9\"}"}},
      {R"({"name": "f", "parameters": {"a": {"b": [{}, []]},}})", {R"(f {"a":{"b":[{},[]]}})"}},
      {R"({"name": "f", "parameters": {"a": 1})", {R"(f {"a":1})"}},
      {R"({"name": "f", "parameters": {"a": "x)", {R"(f! {"a":"x)"}},
      {R"({"name": "f", "parameters": {"a": 1, "b)", {R"(f! {"a":1)"}},
      {R"({"name": "f", "parameters": {"a": 1}, "why": 1} ok)", {R"(f! {"a":1})", R"(= , "why": 1} ok)"}},
      {"```json\n" + call + "\n```", {"= ```json\n", R"(f {"a":1})", "= \n```"}},
  });
}

TEST(ToolCalls, FunctionTags) {
  check({
      {R"(<function=f>{"a": 1}</function>)", {R"(f {"a":1})"}},
      {R"(<function=f>{"a": 1}</function><function=g>{}</function>)", {R"(f {"a":1})", "g {}"}},
      {"<function=g></function>", {"g {}"}},
      {R"(Hm <function=f>{"a": 1})", {"= Hm ", R"(f {"a":1})"}},
      {R"(<function=f>{"a": 1}</function> ok </function>)", {R"(f {"a":1})", "=  ok </function>"}},
      {kStart + R"(<function=f> {"a": 1} </function>)" + kEnd, {R"(f {"a":1})"}},
      {R"(<function=f>{"a": [1)", {R"(f! {"a":[)"}},
  });
}

TEST(ToolCalls, TextAroundCalls) {
  check({
      {"I will ask.\n\n[weather(city=\"Rome\")]", {"= I will ask.\n\n", R"(weather {"city":"Rome"})"}},
      {"So: [f(a=1)] and so on", {"= So: ", R"(f {"a":1})", "=  and so on"}},
      {"\n\n[f(a=1)]\n", {R"(f {"a":1})"}},
      {"Sure.[f(a=1)]", {"= Sure.", R"(f {"a":1})"}},
      {"caf\xC3\xA9 [f(a=1)] \xF0\x9F\xA6\x99!", {"= caf\xC3\xA9 ", R"(f {"a":1})", "=  \xF0\x9F\xA6\x99!"}},
      {"[f(a=1), then more]", {R"(f {"a":1})", "= , then more]"}},
      {"[f(a=1), h(b=2)]", {R"(f {"a":1})", "= , h(b=2)]"}},
      {"[f(a='x\\u00zz')] x", {R"(f! {"a":"x)", "= \\u00zz')] x"}},
      {"[f(a='x', b=(1, oops))] x", {R"(f! {"a":"x","b":[1)", "=  oops))] x"}},
      {"[f(a='x', b=(1 oops)] x", {R"(f! {"a":"x","b":)", "= (1 oops)] x"}},
      {"[f(a=1, b=oops)] x", {R"(f! {"a":1,"b":)", "= oops)] x"}},
      {"[f(a=1, a=2)]", {R"(f! {"a":1)", "=  a=2)]"}},
  });
}

TEST(ToolCalls, PythonValues) {
  check({
      {R"([f(a='it\'s', b="\"q\"", c='"', d="\x41\101\u00e9\U0001F600\n\t\\\a\0")])",
       {"f {\"a\":\"it's\",\"b\":\"\\\"q\\\"\",\"c\":\"\\\"\","
        "\"d\":\"AA\xC3\xA9\xF0\x9F\x98\x80\\n\\t\\\\\\u0007\\u0000\"}"}},
      {R"([f(a="""x "y" ""z""", b='''''', c="", d='')])", {R"(f {"a":"x \"y\" \"\"z","b":"","c":"","d":""})"}},
      {R"([f(a=r"\d+\n", b=u'x', c="\d\/")])", {R"(f {"a":"\\d+\\n","b":"x","c":"\\d\\/"})"}},
      {"[f(a=1_000, b=-.5, c=5., d=+2, e=1E-3, f=0x1f, g=00, h=0b101, i=-0.0, j=1e+5)]",
       {R"(f {"a":1000,"b":-0.5,"c":5.0,"d":2,"e":1E-3,"f":31,"g":0,"h":5,"i":-0.0,"j":1e+5})"}},
      {"[f(a=None, b=True, c=False, d=null, e=true, f=false)]",
       {R"(f {"a":null,"b":true,"c":false,"d":null,"e":true,"f":false})"}},
      {"[f(a=[1, [2, []], {'k': {'l': ['m', 2]}},], b={}, c={1: 2, None: 3, 'x': (),})]",
       {R"(f {"a":[1,[2,[]],{"k":{"l":["m",2]}}],"b":{},"c":{"1":2,"null":3,"x":[]}})"}},
      {"[f(a=(1, 2), b=(1,), c=(1), d=((1, 2), 3), e=(('x')), f=((((1,)))))]",
       {R"(f {"a":[1,2],"b":[1],"c":1,"d":[[1,2],3],"e":"x","f":[1]})"}},
      {"[f(a=\"\\ud83d\\ude00\\ud83dx\\ude00\")]", {"f {\"a\":\"\xF0\x9F\x98\x80\xEF\xBF\xBDx\xEF\xBF\xBD\"}"}},
      {"[f(a=\"\xFF\xC3\x28\", b='a\\\nb')]", {"f {\"a\":\"\xEF\xBF\xBD\xEF\xBF\xBD(\",\"b\":\"ab\"}"}},
      {"[f(a=\"])}, g(b=1)\")]", {R"x(f {"a":"])}, g(b=1)"})x"}},
  });
}

TEST(ToolCalls, WhatOnlyLooksLikeACall) {
  check({{"", {}}});
  check(all_text({
      " \n",
      "No call at all.",
      "[h(a=1)]",
      "[f]",
      "[f(x)]",
      "[f(1)]",
      "[f(a)]",
      "[f(a=x)]",
      "[f(a=017)]",
      "[f(a=1e999)]",
      "[f(a={1, 2})]",
      "see [1] and [2, 3], [] or {} <b>bold</b> [",
      "{\"name\": \"h\", \"parameters\": {}}",
      "{\"name\": \"f\"}",
      "{\"type\": \"object\", \"name\": \"f\", \"parameters\": {\"a\": 1}}",
      "{\"name\": \"f\", \"description\": \"d\", \"parameters\": {\"type\": \"object\"}}",
      "{\"calls\": [{\"name\": \"f\", \"parameters\": {\"a\": 1}}]}",
      "[{\"role\": \"x\"}, {\"name\": \"f\", \"parameters\": {\"a\": 1}}]",
      "{\"parameters\": {\"a\": 1}, \"name\": \"h\"}",
      "{\"name\": \"f\", \"arguments\": \"no object\"}",
      "{\"name\": \"f\", \"parameters\": [1]}",
      "{\"name\": \"f\", \"name\": \"f\", \"parameters\": {}}",
      "The text `[f(a=1)]` calls f.",
      "x = [f(a=1)]",
      "x[f(a=1)]",
      "say f(a=1) now",
      "f(a=1) is how to call it",
      "f(a=1).b",
      "function f(a=1)",
      "<function=h>{}</function>",
      "<function=f>no</function>",
      "<function=f",
      "<|python_start|>x<|python_end|><|eom|>",
      "a < b, <|x|> <|python_start",
      "f\nweather\n search in the rain\n",
      "[weather]: [f] (a=1)",
      "[g() and more]",
      "\xFF\xFE [\xC3 \xE2\x82",
  }));
}

TEST(ToolCalls, AnyName) {
  check({{"[h(a=1), my.tool()]", {R"(h {"a":1})", "my.tool {}"}},
         {R"({"name": "h", "parameters": {"a": 1}})", {R"(h {"a":1})"}},
         {R"(<function=h>{"a": 1}</function>)", {R"(h {"a":1})"}},
         {"h(a=1)", {"= h(a=1)"}},
         {"[h(1)]", {"= [h(1)]"}},
         {"[ 9(a=1)]", {"= [ 9(a=1)]"}},
         {R"({"name": "John Smith", "parameters": {}})", {R"(= {"name": "John Smith", "parameters": {}})"}}},
        true);
}

TEST(ToolCalls, ArgumentsArriveAsSoonAsTheyAreKnown) {
  ToolCallParser parser(tool_rules());
  const auto arguments = [&](std::string_view piece) {
    std::string out;
    for (const ToolCallEvent& event : parser.push(piece)) {
      if (event.kind == ToolCallEvent::Kind::kCallBegun) out += event.text + ":";
      if (event.kind == ToolCallEvent::Kind::kArguments) out += event.text;
      if (event.kind == ToolCallEvent::Kind::kCallEnded) out += ".";
      EXPECT_NE(event.kind, ToolCallEvent::Kind::kContent);
    }
    return out;
  };
  EXPECT_EQ(arguments("[f(a="), "");
  EXPECT_EQ(arguments("\"x\xC3"), "f:{\"a\":\"x");
  EXPECT_EQ(arguments("\xA9y"), "\xC3\xA9y");
  EXPECT_EQ(arguments("\", b=(1"), "\",\"b\":");
  EXPECT_EQ(arguments(", 2"), "[1");
  EXPECT_EQ(arguments("), c=3"), ",2],\"c\":");
  EXPECT_EQ(arguments(")"), "3}.");
  EXPECT_EQ(arguments(", {\"name\": \"g\", \"parameters\": {\"z\": \"1"), "g:{\"z\":\"1");
  EXPECT_EQ(arguments("\"}}"), "\"}.");
  EXPECT_EQ(arguments(" ]"), "");
  EXPECT_TRUE(parser.finish().empty());
}

TEST(ToolCalls, ContentIsNotHeldBackWithoutNeed) {
  ToolCallParser parser(tool_rules());
  for (const std::string piece : {"Hello", " wor", "ld (a", " b]", "\nnot ", "even <b", " > {x", "} [x", "] h", "."}) {
    const auto events = parser.push(piece);
    ASSERT_EQ(events.size(), 1u) << piece;
    EXPECT_EQ(events[0].text, piece);
  }
  EXPECT_TRUE(parser.push("\xF0\x9F").empty());
  EXPECT_EQ(parser.push("\xA6\x99").at(0).text, "\xF0\x9F\xA6\x99");
}

std::string nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(ToolCalls, Limits) {
  const auto run = [](const std::string& text) { return run_tool_calls(tool_rules(true), text, {}); };
  const std::string deepest = nested(kMaxToolCallDepth - 1), deeper = nested(kMaxToolCallDepth);
  EXPECT_EQ(run("[f(a=" + deepest + ")]").at(0), "f {\"a\":" + deepest + "}");
  EXPECT_EQ(run("[f(a=" + deeper + ")]").at(0), "= [f(a=" + deeper + ")]");
  EXPECT_EQ(run(R"({"name": "f", "parameters": {"a": )" + deepest + "}}").at(0), "f {\"a\":" + deepest + "}");
  EXPECT_EQ(run(R"({"name": "f", "parameters": {"a": )" + deeper + "}}").at(0).substr(0, 2), "= ");

  const std::string name(kMaxToolNameBytes, 'n');
  EXPECT_EQ(run("[" + name + "(a=1)]").at(0), name + " {\"a\":1}");
  EXPECT_EQ(run("[n" + name + "(a=1)]").at(0), "= [n" + name + "(a=1)]");
  EXPECT_EQ(run("{\"name\": \"n" + name + "\", \"parameters\": {}}").at(0).substr(0, 2), "= ");

  const std::string large(kMaxToolCallBytes - 10, 'x');
  EXPECT_EQ(run("[f(a='" + large + "')]").at(0), "f {\"a\":\"" + large + "\"}");
  const auto cut = run("[f(a='" + large + large + "')]");
  ASSERT_EQ(cut.size(), 2u);
  EXPECT_TRUE(cut[0].starts_with("f! {\"a\":\"xxx"));
  EXPECT_EQ(cut[0].size() - std::string("f! {\"a\":\"").size() + cut[1].size() - 2, 2 * large.size() + 3);
  const std::string unknown = R"({"parameters": {"a": ")" + large + large + R"("}, "name": "f"})";
  EXPECT_EQ(run(unknown), std::vector<std::string>{"= " + unknown});
  const std::string line = "f(a='" + large + large + "')";
  EXPECT_EQ(run(line), std::vector<std::string>{"= " + line});
}

TEST(ToolCalls, HostileTextTakesTimeInProportion) {
  for (const std::string part :
       {"[", "{\"", "[f(", "{\"parameters\":{\"a\":", "\nf(a=(", "<", "<function=f>", "f(a='\n", "[{"}) {
    std::string text;
    while (text.size() < 1 << 18) text += part;
    std::string joined;
    for (const auto& line : run_tool_calls(tool_rules(), text, {}))
      joined += line.starts_with("= ") ? line.substr(2) : "";
    EXPECT_FALSE(joined.empty()) << part;
  }
}

TEST(ToolCalls, NumbersAsJson) {
  for (const auto* bad : {"", "-", ".", "1.2.3", "1e", "1e+", "0x", "0xg", "1__a", "01", "1_", "nan", "inf", "1e400",
                          "1j", "0xFFFFFFFFFFFFFFFFF", "1-2"})
    EXPECT_EQ(json_number(bad), "") << bad;
  EXPECT_EQ(json_number("01.5"), "1.5");
  EXPECT_EQ(json_number("-0x10"), "-16");
  EXPECT_EQ(json_number("123456789012345678901234567890"), "123456789012345678901234567890");
}

}  // namespace
}  // namespace puna::text
