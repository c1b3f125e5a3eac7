// Chats of several turns of the other kinds, as people hold them: each answer must look past what came before.
#include <array>
#include <string>

#include "synth/maker.h"

namespace puna::synth {
namespace {

class Conversations : public Maker {
 public:
  Conversations(int64_t length, const std::filesystem::path& folder)
      : arithmetic_(make_arithmetic()),
        pictures_(make_pictures()),
        lookup_(make_lookup(std::max<int64_t>(32, length / 3))),
        questions_(make_questions(folder / "facts.jsonl")),
        unknown_(make_unknown(folder / "unknown.jsonl")) {}

  std::string fingerprint() const override { return questions_->fingerprint() + unknown_->fingerprint(); }

  Draft make(Random& random, Split split, int64_t) const override {
    const int64_t turns = random.between(2, 4);
    Draft draft;
    draft.what = "turns";
    bool lookup_used = false;
    for (int64_t i = 0; i < turns; ++i) {
      const double sort = random.unit();
      const Maker* maker = sort < 0.27   ? arithmetic_.get()
                           : sort < 0.60 ? questions_.get()
                           : sort < 0.78 ? unknown_.get()
                           : sort < 0.88 ? pictures_.get()
                                         : lookup_.get();
      if (maker == lookup_.get() && std::exchange(lookup_used, true)) maker = unknown_.get();
      if (maker == pictures_.get() && !draft.record.images.empty()) maker = questions_.get();
      const int64_t available = maker->available(split);
      Draft part = draw(*maker, random, split, available > 0 ? random.below(available) : 0);
      if (i == 0) {
        draft.record = std::move(part.record);
        continue;
      }
      for (text::Message& message : part.record.messages) draft.record.messages.push_back(std::move(message));
      for (std::string& image : part.record.images) draft.record.images.push_back(std::move(image));
    }
    return draft;
  }

 private:
  std::unique_ptr<Maker> arithmetic_, pictures_, lookup_, questions_, unknown_;
};

}  // namespace

std::unique_ptr<Maker> make_conversations(int64_t length, const std::filesystem::path& folder) {
  return std::make_unique<Conversations>(length, folder);
}

}  // namespace puna::synth
