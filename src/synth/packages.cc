// Descriptions of the Debian packages of this machine, as plain English documents.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "io/file.h"
#include "io/hash.h"
#include "synth/maker.h"

namespace puna::synth {
namespace {

constexpr int64_t kMaxBytes = 256 << 20;

struct Package {
  std::string name, text;
};

/// Adds a line of a long description: " words", "  a line of its own", " ." between paragraphs.
void add_line(std::string& text, std::string_view line) {
  if (line == " .") {
    while (text.ends_with('\n')) text.pop_back();
    text += "\n\n";
    return;
  }
  const bool own = line.size() > 1 && (line[1] == ' ' || line[1] == '\t');
  const size_t words = line.find_first_not_of(" \t");
  if (words == std::string_view::npos) return;
  if (!text.empty() && text.back() != '\n') text += own ? '\n' : ' ';
  text += line.substr(words);
  if (own) text += '\n';
}

/// Paragraphs of "Package: NAME" ... "Description: SHORT" and its indented lines; those without long description are
/// left out.
std::vector<Package> read_packages(const std::filesystem::path& file) {
  const std::string all = io::read_file(file, kMaxBytes);
  std::vector<Package> packages;
  Package package;
  std::string title, body;
  bool in_description = false;
  const auto finish = [&] {
    while (body.ends_with('\n')) body.pop_back();
    if (!package.name.empty() && !body.empty()) {
      package.text = package.name + ": " + title + ".\n\n" + body;
      packages.push_back(package);
    }
    package = {};
    title.clear();
    body.clear();
    in_description = false;
  };
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find('\n', begin), all.size());
    const std::string_view line = std::string_view(all).substr(begin, end - begin);
    begin = end + 1;
    if (line.empty()) {
      finish();
    } else if (line[0] == ' ') {
      if (in_description) add_line(body, line);
    } else {
      in_description = line.starts_with("Description: ");
      if (in_description) title = line.substr(13);
      if (line.starts_with("Package: ")) package.name = line.substr(9);
    }
  }
  finish();
  if (packages.empty()) fail(file.string(), "there is no package description; name a file like /var/lib/dpkg/status");
  return packages;
}

class Packages : public Maker {
 public:
  explicit Packages(const std::filesystem::path& file) : hash_(io::hash_of_file(file)) {
    for (Package& package : read_packages(file)) {
      (split_of(package.name) == Split::kTrain ? train_ : held_out_).push_back(std::move(package));
    }
  }

  int64_t available(Split split) const override { return static_cast<int64_t>(of(split).size()); }
  std::string fingerprint() const override { return hash_; }

  Draft make(Random&, Split split, int64_t number) const override {
    const Package& package = of(split)[static_cast<size_t>(number)];
    Draft draft;
    add_turn(draft.record, text::Role::kUser, package.text);
    draft.what = package.name;
    return draft;
  }

 private:
  const std::vector<Package>& of(Split split) const { return split == Split::kTrain ? train_ : held_out_; }

  std::vector<Package> train_, held_out_;
  std::string hash_;
};

}  // namespace

std::unique_ptr<Maker> make_packages(const std::filesystem::path& file) { return std::make_unique<Packages>(file); }

}  // namespace puna::synth
