#include "synth/generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/suggest.h"
#include "synth/maker.h"

namespace puna::synth {
namespace {

constexpr int64_t kDefaultLength = 256;
const std::filesystem::path kFolder = "recipes/demo";
const std::filesystem::path kPackages = "/var/lib/dpkg/status";

struct Kind {
  const char* name;
  bool has_length, has_file;  // which of the options it reads
};
constexpr std::array kKinds = {Kind{"arithmetic", false, false}, Kind{"conversations", true, true},
                               Kind{"lookup", true, false},      Kind{"packages", false, true},
                               Kind{"pictures", false, false},   Kind{"questions", false, true},
                               Kind{"repeats", true, false},     Kind{"retrieval", true, false},
                               Kind{"shapes", false, false},     Kind{"unknown", false, true}};

void check_options(const GeneratorOptions& options) {
  const auto kind = std::ranges::find_if(kKinds, [&](const Kind& one) { return one.name == options.kind; });
  if (kind == kKinds.end()) return;  // make_maker() says so
  if (options.length != 0 && !kind->has_length)
    fail("generate", "'length' has no effect on {}; leave it out", options.kind);
  if (!options.file.empty() && !kind->has_file)
    fail("generate", "'file' has no effect on {}; leave it out", options.kind);
}

std::unique_ptr<Maker> make_maker(const GeneratorOptions& options) {
  check_options(options);
  const std::string& kind = options.kind;
  const int64_t length = options.length == 0 ? kDefaultLength : options.length;
  if (length < 32 || length > (1 << 20)) fail("generate", "length {} is not in [32, 1048576]", options.length);
  const auto file = [&](const char* name) {
    if (options.file.empty() && !std::filesystem::exists(kFolder / name))
      fail("generate", "there is no {} below this directory; give a file of that form", (kFolder / name).string());
    return options.file.empty() ? kFolder / name : options.file;
  };
  if (kind == "arithmetic") return make_arithmetic();
  if (kind == "pictures") return make_pictures();
  if (kind == "shapes") return make_shapes();
  if (kind == "lookup") return make_lookup(length);
  if (kind == "repeats") return make_repeats(length);
  if (kind == "retrieval") return make_retrieval(length);
  if (kind == "questions") return make_questions(file("facts.jsonl"));
  if (kind == "unknown") return make_unknown(file("unknown.jsonl"));
  if (kind == "packages") return make_packages(options.file.empty() ? kPackages : options.file);
  if (kind == "conversations") return make_conversations(length, options.file.empty() ? kFolder : options.file);
  const std::vector<std::string> names = generator_names();
  const std::string nearest = nearest_name(kind, names);
  fail("generate", "there is no kind '{}'; {}", kind,
       nearest.empty() ? fmt::format("there are {}", fmt::join(names, ", "))
                       : fmt::format("did you mean '{}'?", nearest));
}

class Generator : public data::RecordSource {
 public:
  explicit Generator(GeneratorOptions options) : options_(std::move(options)), maker_(make_maker(options_)) {
    if (options_.documents < 0) fail("generate", "{} documents are asked for; give 0 or more", options_.documents);
    const int64_t available = maker_->available(options_.split);
    documents_ = available < 0 ? options_.documents : std::min(options_.documents, available);
  }

  std::optional<data::Record> next() override {
    if (number_ >= documents_) return std::nullopt;
    Random random(content_hash(fmt::format("{} {} {}", options_.kind, options_.seed, number_)));
    Draft draft = draw(*maker_, random, options_.split, number_);
    draft.record.id = fmt::format("{}/{}/{}", options_.kind, draft.what, number_);
    ++number_;
    return std::move(draft.record);
  }

  std::string fingerprint() const override {
    return fmt::format("generated {} documents={} seed={} split={} length={} form={} {}", options_.kind, documents_,
                       options_.seed, options_.split == Split::kTrain ? "train" : "held-out", options_.length, kForm,
                       maker_->fingerprint());
  }

  double progress() const override {
    return documents_ == 0 ? 1.0 : static_cast<double>(number_) / static_cast<double>(documents_);
  }

 private:
  static constexpr int kForm = 8;  // raised when the same options give other records

  GeneratorOptions options_;
  std::unique_ptr<Maker> maker_;
  int64_t documents_ = 0;
  int64_t number_ = 0;
};

}  // namespace

std::unique_ptr<data::RecordSource> open_generator(const GeneratorOptions& options) {
  return std::make_unique<Generator>(options);
}

std::vector<std::string> generator_names() {
  std::vector<std::string> names;
  for (const Kind& kind : kKinds) names.emplace_back(kind.name);
  return names;
}

}  // namespace puna::synth
