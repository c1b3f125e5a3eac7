// What the answer to a call looks like in the words of one interface: whole, and in pieces as server-sent events.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "server/api_error.h"
#include "server/completion.h"

namespace puna::server {

/// A call of a tool that was made.
struct MadeCall {
  std::string id, name, arguments;
};

/// One completion on its way.
struct Choice {
  std::optional<text::ToolCallParser> parser;
  std::string content;  // text that is no call: with a parser as it comes, else at the end
  std::vector<MadeCall> calls;
  std::vector<engine::Sample> samples;  // of a stream with log-probabilities: since the last piece
  engine::Clock::time_point last_token;
};

/// What writers may look at. One thread at a time does.
struct AnswerState {
  Service& service;
  const std::string id;
  const int64_t created;
  const CompletionCall call;
  std::vector<Choice> choices;              // of the first prompt, of the second, ...
  std::vector<engine::Response> responses;  // of each prompt, once done

  size_t completions() const { return choices.size() / call.requests.size(); }
  const engine::Generation& generation(size_t choice) const {
    return responses[choice / completions()].completions[choice % completions()];
  }
  /// Whether a limit ended it, or the model in the middle of a call: clients must not take the call as whole.
  bool is_cut(size_t choice) const {
    const engine::StopReason reason = generation(choice).reason;
    const bool stopped = reason == engine::StopReason::kStopToken || reason == engine::StopReason::kStopString;
    const auto& parser = choices[choice].parser;
    return !stopped || (parser && !parser->complete());
  }
};

class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;

  // Events of a stream; "" for none. `choice` is an index of AnswerState::choices, `call` one of its calls.
  virtual std::string begin() { return {}; }
  virtual std::string text(size_t choice, std::string_view text) = 0;
  virtual std::string call_begun(size_t choice, size_t call) = 0;
  virtual std::string call_arguments(size_t choice, size_t call, std::string_view piece) = 0;
  virtual std::string choice_end(size_t choice) = 0;
  /// After all choices.
  virtual std::string end() = 0;
  virtual std::string error(const ApiError& error) = 0;

  /// The body of a whole answer.
  virtual OrderedJson whole() = 0;
};

std::unique_ptr<AnswerWriter> openai_writer(AnswerState& state);     // chat and completions
std::unique_ptr<AnswerWriter> responses_writer(AnswerState& state);  // /v1/responses
std::unique_ptr<AnswerWriter> messages_writer(AnswerState& state);   // /v1/messages

}  // namespace puna::server
