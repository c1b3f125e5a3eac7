#include "engine/speculation.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace puna::engine {
namespace {

constexpr int64_t kShortestMatch = 2, kLongestMatch = 4;

}  // namespace

std::vector<TokenId> guess_by_lookup(std::span<const TokenId> tokens, int64_t count) {
  const auto size = static_cast<int64_t>(tokens.size());
  int64_t best = 0, best_end = 0;
  for (int64_t end = size - 1; end >= kShortestMatch && best < kLongestMatch; --end) {
    if (tokens[end - 1] != tokens[size - 1]) continue;
    int64_t match = 1;
    while (match < std::min(kLongestMatch, end) && tokens[end - 1 - match] == tokens[size - 1 - match]) ++match;
    if (match > best) best = match, best_end = end;
  }
  if (best < kShortestMatch || count <= 0) return {};
  const auto from = tokens.begin() + best_end;
  return {from, from + std::min(count, size - best_end)};
}

// Every position may need a block in both pools; sequences longer than a chunk need less of the chunked one.
cache::CacheShape shape_for(const arch::TextConfig& config, int64_t tokens, int64_t context) {
  const auto plans = arch::layer_plan(config);
  const bool any_chunked = std::any_of(plans.begin(), plans.end(), [](const auto& plan) { return plan.chunked; });
  cache::CacheShape shape;
  shape.chunk_tokens = any_chunked ? config.attention_chunk_size : 0;
  shape.global_blocks = std::max<int64_t>(shape.global_blocks_of(tokens), 1);
  if (!any_chunked) return shape;
  const double sequences =
      std::max(1.0, static_cast<double>(tokens) / static_cast<double>(std::max<int64_t>(context, 1)));
  const auto in_chunk = static_cast<double>(shape.chunk_blocks_of(std::min(context, tokens)));
  shape.chunk_blocks = std::max<int64_t>(static_cast<int64_t>(std::ceil(sequences * in_chunk)), 1);
  return shape;
}

DraftModel::DraftModel(const LoadedModel& draft, const LoadedModel& target, const DraftOptions& options)
    : loaded_(draft),
      options_(options),
      blocks_(shape_for(draft.config().text, options.cache_tokens, options.context_tokens)),
      pages_(draft.config().text, model::PageFormat::of(draft.dtype, draft.device), blocks_.shape().global_blocks,
             blocks_.shape().chunk_blocks) {
  const int64_t mine = draft.config().text.vocab_size, theirs = target.config().text.vocab_size;
  bool same = mine == theirs;
  if (same && draft.tokenizer && target.tokenizer) {
    same = draft.tokenizer->vocab_size() == target.tokenizer->vocab_size();
    for (TokenId id = 0; same && id < draft.tokenizer->vocab_size(); ++id)
      same = draft.tokenizer->token_bytes(id) == target.tokenizer->token_bytes(id);
  }
  if (!same)
    fail(draft.name, "has another tokenizer than {} (vocabularies of {} and {}); a draft model must share it",
         target.name, mine, theirs);
}

// One entry that is guessed for, while the draft model reads and guesses.
struct DraftModel::Guesser {
  StepEntry* entry;
  int64_t wanted;         // guesses
  int64_t position = 0;   // tokens that the draft model has read, guesses among them
  bool guessing = false;  // has read all there is: its next row gives a guess
};

// Adds the guesser's next rows to a pass; false when there is neither room nor anything to do.
bool DraftModel::read(Guesser& g, std::vector<StepRows>& rows, int64_t& left) {
  Stream& stream = *g.entry->stream;
  cache::SequenceBlocks& blocks = stream.draft_blocks;
  const auto known = static_cast<int64_t>(stream.tokens.size());
  const int64_t end = known + std::ssize(g.entry->drafts);
  const int64_t count = std::min({end - g.position, left, blocks_.chunk_end(blocks) - g.position});
  if (count <= 0 || std::ssize(g.entry->drafts) >= g.wanted) return false;
  std::vector<cache::BlockCopy> none;
  if (!blocks_.extend(blocks, g.position + count, none)) return false;
  PUNA_CHECK(none.empty(), "the draft model's sequences are never forked");
  StepRows part;
  for (int64_t p = g.position; p < g.position + count; ++p)
    part.tokens.push_back(p < known ? stream.tokens[static_cast<size_t>(p)]
                                    : g.entry->drafts[static_cast<size_t>(p - known)]);
  part.table = page_table(blocks, g.position);
  g.guessing = g.position + count == end;
  if (g.guessing) part.outputs = {count - 1};
  left -= count;
  g.position += count;
  rows.push_back(std::move(part));
  return true;
}

void DraftModel::guess(std::vector<StepEntry>& entries, int64_t room) {
  std::vector<Guesser> guessers;
  for (StepEntry& entry : entries) {
    if (entry.stream->pending() != 1 || entry.rows != 1 || !entry.stream->has_logits) continue;
    const Request& request = entry.stream->job->request;
    const int64_t generated = std::ssize(entry.stream->tokens) - entry.stream->job->prompt_tokens();
    const int64_t wanted = std::min({options_.tokens, room, request.max_tokens - generated - 1});
    if (wanted <= 0) continue;
    room -= wanted;
    Guesser g{&entry, wanted};
    if (entry.stream->draft_blocks.length == 0) {
      blocks_.release(entry.stream->draft_blocks);
      blocks_.attach(entry.stream->draft_blocks, entry.stream->contents, std::ssize(entry.stream->contents) - 1);
    }
    g.position = entry.stream->draft_blocks.length;
    guessers.push_back(g);
  }
  int64_t left = options_.step_tokens;
  for (;;) {
    std::vector<StepRows> rows;
    std::vector<Guesser*> running;
    for (Guesser& g : guessers)
      if (read(g, rows, left)) running.push_back(&g);
    if (rows.empty()) return;
    const at::Tensor logits = run_rows(loaded_, pages_, rows);
    const at::Tensor best = logits.defined() ? logits.argmax(-1) : at::Tensor();
    int64_t row = 0;
    for (Guesser* g : running) {
      Stream& stream = *g->entry->stream;
      const int64_t known = std::min(g->position, static_cast<int64_t>(stream.tokens.size()));
      // What is known stays; guesses are read again once they have come true.
      if (known > stream.draft_blocks.length && g->position == known)
        blocks_.commit(stream.draft_blocks, stream.contents, known, known);
      if (g->guessing) g->entry->drafts.push_back(static_cast<TokenId>(best[row++].item<int64_t>()));
    }
  }
}

}  // namespace puna::engine
