#include "server/tools.h"

#include <fmt/format.h>

#include <algorithm>

#include "server/api_error.h"

namespace puna::server {
namespace {

constexpr size_t kMostTools = 512;

struct Tool {
  text::ToolSignature signature;
  OrderedJson parameters;  // their schema
};

Tool read_tool(const OrderedJson& json, const std::string& path) {
  Fields fields(json, path);
  if (const std::string type = fields.text("type").value_or("function"); type != "function")
    wrong_field(fields.path_of("type"), OrderedJson(type), "function");
  const OrderedJson* function = fields.find("function");
  if (!function)
    throw ApiError(400, fmt::format("'{}' is missing", fields.path_of("function")), fields.path_of("function"));
  Fields inner(*function, fields.path_of("function"));
  Tool tool{{inner.required_text("name")}, {{"type", "object"}, {"properties", OrderedJson::object()}}};
  if (tool.signature.name.empty() || tool.signature.name.size() > text::kMaxToolNameBytes)
    wrong_field(inner.path_of("name"), tool.signature.name, fmt::format("1 to {} bytes", text::kMaxToolNameBytes));
  const OrderedJson* parameters = inner.find("parameters");
  if (!parameters) return tool;
  if (!parameters->is_object()) wrong_field(inner.path_of("parameters"), *parameters, "a JSON schema");
  tool.parameters = *parameters;
  if (const auto properties = parameters->find("properties");
      properties != parameters->end() && properties->is_object()) {
    for (const auto& [name, schema] : properties->items()) tool.signature.parameters.push_back(name);
  }
  return tool;
}

/// References to the schema's own root, "#" and what begins with "#/", made to begin at `root`.
void move_references(OrderedJson& schema, const std::string& root) {
  if (schema.is_object()) {
    const auto reference = schema.find("$ref");
    if (reference != schema.end() && reference->is_string() &&
        reference->get_ref<const std::string&>().starts_with("#"))
      *reference = root + reference->get<std::string>().substr(1);
  }
  if (schema.is_structured()) {
    for (OrderedJson& part : schema) move_references(part, root);
  }
}

/// `path` is where the schema will stand.
OrderedJson call_schema(const Tool& tool, const std::string& path) {
  OrderedJson parameters = tool.parameters;
  move_references(parameters, path + "/properties/parameters");
  return {{"type", "object"},
          {"properties", {{"name", {{"const", tool.signature.name}}}, {"parameters", std::move(parameters)}}},
          {"required", {"name", "parameters"}}};
}

/// The name that tool_choice asks for; "auto", "none" and "required" as such, with `named` false.
std::string read_choice(Fields& fields, bool& named) {
  const OrderedJson* choice = fields.find("tool_choice");
  named = choice && choice->is_object();
  if (!choice) return "auto";
  if (!named) {
    const std::string word = choice->is_string() ? choice->get<std::string>() : "";
    if (word != "auto" && word != "none" && word != "required")
      wrong_field("tool_choice", *choice, "auto, none, required, or an object that names a function");
    return word;
  }
  Fields object(*choice, "tool_choice");
  object.ignore({"type"});
  const OrderedJson* function = object.find("function");
  if (!function) return object.required_text("name");
  return Fields(*function, "tool_choice.function").required_text("name");
}

}  // namespace

Tools read_tools(Fields& fields) {
  Tools result;
  bool named = false;
  const std::string choice = read_choice(fields, named);
  const OrderedJson* given = fields.find("tools");
  if (!given || given->empty()) {
    if (named || choice == "required") throw ApiError(400, "'tool_choice' needs 'tools'", "tool_choice");
    return result;
  }
  if (!given->is_array() || given->size() > kMostTools)
    wrong_field("tools", *given, fmt::format("an array of at most {} tools", kMostTools));
  std::vector<Tool> tools;
  for (size_t i = 0; i < given->size(); ++i) tools.push_back(read_tool((*given)[i], fmt::format("tools[{}]", i)));
  if (!named && choice == "none") return result;

  result.definitions = *given;
  for (const Tool& tool : tools) result.rules.tools.push_back(tool.signature);
  if (named) {
    const auto at = std::find_if(tools.begin(), tools.end(), [&](const Tool& t) { return t.signature.name == choice; });
    if (at == tools.end())
      throw ApiError(400, fmt::format("'tool_choice' names '{}', which is no tool", choice), "tool_choice");
    result.schema = call_schema(*at, "#").dump();
  } else if (choice == "required") {
    OrderedJson any = OrderedJson::array();
    for (const Tool& tool : tools) any.push_back(call_schema(tool, fmt::format("#/anyOf/{}", any.size())));
    result.schema = OrderedJson{{"anyOf", std::move(any)}}.dump();
  }
  return result;
}

}  // namespace puna::server
