// Fields that the requests of several interfaces share.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>

#include "server/completion.h"
#include "server/tools.h"

namespace puna::server {

inline constexpr int kMostAlternatives = 20;
inline constexpr int kMostCompletions = 128;

using GrammarPointer = std::shared_ptr<const grammar::CompiledGrammar>;

// All throw ApiError, naming the field.

/// Throws unless it is a token of the vocabulary.
engine::TokenId read_token(const OrderedJson& id, const std::string& path, const engine::LoadedModel& loaded);

/// `grammar` and `response_format`; null: any text.
GrammarPointer read_grammar(Fields& fields, const Service::Place& place);
/// {"type": "json_schema", "json_schema": {"schema"}}; `flat`: {"type": "json_schema", "schema"}.
GrammarPointer read_format(const OrderedJson& format, const std::string& path, bool flat, const Service::Place& place);

/// An array of strings, as stops beside those of read_common().
void read_stop_strings(Fields& fields, const std::string& name, engine::Request& request);
/// `model`, or the server's own where there is none. `adapter`: the one that the name stands for. 404 for any other.
std::string read_model(Fields& fields, const Service& service, std::shared_ptr<const engine::RequestAdapter>& adapter);
/// Model, sampling, stops, deadline, streaming.
engine::Request read_common(Fields& fields, Service& service, Service::Place& place, CompletionCall& call);
/// 415 where pictures of a form have no place.
void refuse_uploads(const Service::Place& place);
/// `n`
void read_completions(Fields& fields, const Service& service, engine::Request& request);
/// The first of `names` that is there.
void set_tokens(Fields& fields, std::initializer_list<const char*> names, int64_t least, const Service& service,
                engine::Request& request);
/// Makes the conversation the call's one prompt.
void set_prompt(Conversation conversation, Tools tools, engine::Request request, CompletionCall& call,
                Service::Place& place);

}  // namespace puna::server
