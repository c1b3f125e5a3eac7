// Questions about pictures of simple shapes, with short answers in regular forms.
#include <fmt/format.h>

#include <array>
#include <string>

#include "synth/maker.h"
#include "synth/scene.h"

namespace puna::synth {
namespace {

struct Asked {
  std::string_view what;
  std::string question, answer;
};

constexpr std::array<std::string_view, 18> kDescribe = {
    "Describe the picture.",
    "Describe this picture.",
    "Describe the image.",
    "Describe this image.",
    "What is in the picture?",
    "What is in this picture?",
    "What is in the image?",
    "What is in this image?",
    "What do you see?",
    "What can you see in the picture?",
    "What does the picture show?",
    "What does this image show?",
    "What is shown here?",
    "What is this?",
    "Tell me what you see.",
    "What's in the picture?",
    "What do you see in this image?",
    "Say what is in the picture.",
};
constexpr std::array<std::string_view, 7> kCountShapes = {
    "How many shapes are there?",
    "How many shapes are in the picture?",
    "How many things do you see?",
    "How many objects are there?",
    "Count the shapes.",
    "How many shapes can you see?",
    "How many objects are in the image?",
};
constexpr std::array<std::string_view, 7> kCount = {
    "How many {x} are there?",   "How many {x} are in the picture?", "How many {x} do you see?",   "Count the {x}.",
    "How many {x} can you see?", "How many {x} are in this image?",  "What is the number of {x}?",
};
constexpr std::array<std::string_view, 6> kWhere = {
    "Where is the {x}?",         "Where is the {x} in the picture?", "In which place is the {x}?",
    "Where do you see the {x}?", "Where can I find the {x}?",        "What is the position of the {x}?",
};
constexpr std::array<std::string_view, 8> kColourOf = {
    "What colour is the {x}?",        "What color is the {x}?",         "Which colour is the {x}?",
    "Which color does the {x} have?", "What is the colour of the {x}?", "What is the color of the {x}?",
    "Tell me the colour of the {x}.", "Which colour has the {x}?",
};
constexpr std::array<std::string_view, 6> kShapeOf = {
    "What shape is {x}?",     "Which shape is {x}?",         "What is the {x} shape?",
    "What is the {x} thing?", "What is {x} in the picture?", "Which shape has the colour {x}?",
};
constexpr std::array<std::string_view, 6> kIsThere = {
    "Is there {x}?",    "Is there {x} in the picture?", "Do you see {x}?",
    "Can you see {x}?", "Does the picture show {x}?",   "Is {x} in the image?",
};

std::string shape_name(const Shape& s) { return std::string(kShapes[static_cast<size_t>(s.shape)]); }
std::string colour_name(const Shape& s) { return std::string(kColours[static_cast<size_t>(s.colour)]); }

std::string capital(std::string text) {
  if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
  return text;
}

std::string article(const std::string& name) { return (name.starts_with("orange") ? "an " : "a ") + name; }
std::string a(const Shape& shape) { return article(name_of(shape)); }

std::string there_are(size_t n) { return fmt::format("There {} {}.", n == 1 ? "is" : "are", n); }
std::string yes_no(bool yes) { return yes ? "Yes." : "No."; }

std::string description(const Scene& scene) {
  const std::vector<Shape>& s = scene.shapes;
  switch (scene.kind) {
    case Scene::Kind::kSingle:
      return capital(a(s[0])) + ".";
    case Scene::Kind::kSame:
      return fmt::format("{} {}.", s.size(), name_of(s[0], true));
    default:
      break;
  }
  const bool row = scene.kind == Scene::Kind::kRow;
  if (s.size() == 2) return fmt::format("{} {} {}.", capital(a(s[0])), row ? "to the left of" : "above", a(s[1]));
  return fmt::format("{}: {}, {} and {}.", row ? "From left to right" : "From top to bottom", a(s[0]), a(s[1]),
                     a(s[2]));
}

Asked describe(Random& random, const Scene& scene) {
  return {"describe", std::string(random.pick(kDescribe)), description(scene)};
}

Asked count(Random& random, const Scene& scene) {
  const size_t n = scene.shapes.size();
  if (random.chance(0.4)) {
    return {"count", std::string(random.pick(kCountShapes)), there_are(n)};
  }
  const bool same = scene.kind == Scene::Kind::kSame;
  const Shape& shown = random.pick(scene.shapes);
  if (random.chance(0.2)) {
    const auto other = static_cast<size_t>(random.below(kShapes.size()));
    size_t found = 0;
    for (const Shape& s : scene.shapes) found += static_cast<size_t>(s.shape) == other ? 1 : 0;
    return {"count", fill(random.pick(kCount), {{"x", plural_of(kShapes[other])}}), there_are(found)};
  }
  const std::string name = random.chance(0.4) ? name_of(shown, true) : plural_of(shape_name(shown));
  return {"count", fill(random.pick(kCount), {{"x", name}}), there_are(same ? n : 1)};
}

Asked where(Random& random, const Scene& scene) {
  const std::vector<Shape>& s = scene.shapes;
  const auto index = static_cast<size_t>(random.below(static_cast<int64_t>(s.size())));
  const std::string name = random.chance(0.5) ? name_of(s[index]) : shape_name(s[index]);
  const std::string question = fill(random.pick(kWhere), {{"x", name}});
  if (scene.kind == Scene::Kind::kSingle) {
    const std::string_view place = place_of(s[0]);
    return {"where", question,
            fmt::format("{} the {}.",
                        place.starts_with("top") || place.starts_with("bottom") ? "At"
                        : place == "centre"                                     ? "In"
                                                                                : "On",
                        place)};
  }
  const bool row = scene.kind == Scene::Kind::kRow;
  if (s.size() == 2) {
    const char* relation = row ? (index == 0 ? "To the left of" : "To the right of") : (index == 0 ? "Above" : "Below");
    return {"where", question, fmt::format("{} the {}.", relation, name_of(s[1 - index]))};
  }
  constexpr std::array<std::string_view, 3> kInRow = {"On the left.", "In the middle.", "On the right."};
  constexpr std::array<std::string_view, 3> kInColumn = {"At the top.", "In the middle.", "At the bottom."};
  return {"where", question, std::string(row ? kInRow[index] : kInColumn[index])};
}

Asked neighbour(Random& random, const Scene& scene) {
  const bool row = scene.kind == Scene::Kind::kRow;
  const auto index = static_cast<size_t>(random.below(2));
  const char* relation = row ? (index == 0 ? "to the left of" : "to the right of") : (index == 0 ? "above" : "below");
  const std::string_view form = random.chance(0.5) ? "What is {r} the {x}?" : "Which shape is {r} the {x}?";
  return {"neighbour", fill(form, {{"r", relation}, {"x", name_of(scene.shapes[1 - index])}}),
          capital(a(scene.shapes[index])) + "."};
}

Asked is_related(Random& random, const Scene& scene) {
  const bool row = scene.kind == Scene::Kind::kRow;
  const auto index = static_cast<size_t>(random.below(2));
  const bool first = random.chance(0.5);  // asks for what holds of the first one
  const char* relation = row ? (first ? "to the left of" : "to the right of") : (first ? "above" : "below");
  const bool whole = random.chance(0.6);
  const auto name = [&](const Shape& s) { return whole ? name_of(s) : shape_name(s); };
  return {"relation",
          fmt::format("Is the {} {} the {}?", name(scene.shapes[index]), relation, name(scene.shapes[1 - index])),
          yes_no((index == 0) == first)};
}

Asked colour(Random& random, const Scene& scene) {
  const Shape& s = random.pick(scene.shapes);
  const bool many = scene.kind == Scene::Kind::kSame;
  if (many)
    return {"colour", fmt::format("What colour are the {}?", plural_of(shape_name(s))), capital(colour_name(s)) + "."};
  const std::string name = scene.kind == Scene::Kind::kSingle && random.chance(0.3) ? "shape" : shape_name(s);
  return {"colour", fill(random.pick(kColourOf), {{"x", name}}), capital(colour_name(s)) + "."};
}

Asked shape(Random& random, const Scene& scene) {
  const Shape& s = random.pick(scene.shapes);
  return {"shape", fill(random.pick(kShapeOf), {{"x", colour_name(s)}}), capital(article(shape_name(s))) + "."};
}

Asked at_place(Random& random, const Scene& scene) {
  constexpr std::array<std::string_view, 3> kAcross = {"on the left", "in the middle", "on the right"};
  constexpr std::array<std::string_view, 3> kDown = {"at the top", "in the middle", "at the bottom"};
  const size_t n = scene.shapes.size(), place = n == 2 ? 2 * static_cast<size_t>(random.below(2)) : random.below(3);
  const std::string_view name = scene.kind == Scene::Kind::kRow ? kAcross[place] : kDown[place];
  const std::string_view form = random.chance(0.6) ? "What is {p}?" : "Which shape is {p}?";
  return {"at", fill(form, {{"p", std::string(name)}}), capital(a(scene.shapes[n == 2 ? place / 2 : place])) + "."};
}

/// "a circle", "anything red"
Asked is_any_there(Random& random, const Scene& scene) {
  Shape s = random.pick(scene.shapes);
  const bool by_shape = random.chance(0.7), shown = random.chance(0.5);
  if (!shown && by_shape) s.shape = static_cast<int>(random.below(kShapes.size()));
  if (!shown && !by_shape) s.colour = static_cast<int>(random.below(kColours.size()));
  bool there = false;
  for (const Shape& other : scene.shapes)
    there = there || (by_shape ? other.shape == s.shape : other.colour == s.colour);
  const std::string name = by_shape ? article(shape_name(s)) : "anything " + colour_name(s);
  return {"yes-no", fill(random.pick(kIsThere), {{"x", name}}), yes_no(there)};
}

Asked is_there(Random& random, const Scene& scene) {
  if (random.chance(0.5)) return is_any_there(random, scene);
  Shape s = random.pick(scene.shapes);
  const double sort = random.unit();
  if (sort >= 0.5 && sort < 0.75) s.colour = static_cast<int>(random.below(kColours.size()));
  if (sort >= 0.75) s.shape = static_cast<int>(random.below(kShapes.size()));
  bool there = false;
  for (const Shape& other : scene.shapes) there = there || (other.shape == s.shape && other.colour == s.colour);
  return {"yes-no", fill(random.pick(kIsThere), {{"x", a(s)}}), yes_no(there)};
}

Asked ask(Random& random, const Scene& scene) {
  const bool line = scene.kind == Scene::Kind::kRow || scene.kind == Scene::Kind::kColumn;
  const bool same = scene.kind == Scene::Kind::kSame;
  const double sort = random.unit();
  if (same)
    return sort < 0.35   ? describe(random, scene)
           : sort < 0.75 ? count(random, scene)
           : sort < 0.85 ? colour(random, scene)
                         : is_there(random, scene);
  if (sort < 0.3) return describe(random, scene);
  if (sort < 0.55) {
    if (line && scene.shapes.size() == 2 && random.chance(0.6)) {
      return random.chance(0.5) ? neighbour(random, scene) : is_related(random, scene);
    }
    if (line && random.chance(0.35)) return at_place(random, scene);
    return where(random, scene);
  }
  if (sort < 0.67) return colour(random, scene);
  if (sort < 0.79) return shape(random, scene);
  if (sort < 0.9) return is_there(random, scene);
  return count(random, scene);
}

class Pictures : public Maker {
 public:
  explicit Pictures(Scene (*draw_scene)(Random&)) : draw_scene_(draw_scene) {}

  /// Training documents ask up to eight questions of a picture, which costs more than they do; held-out ones a single
  /// one.
  Draft make(Random& random, Split split, int64_t) const override {
    const Scene scene = draw_scene_(random);
    Draft draft;
    draft.content = scene.content();
    data::Record& record = draft.record;
    record.kind = data::Record::Kind::kChat;
    const int64_t turns = split == Split::kHeldOut || random.chance(0.15) ? 1 : random.between(3, 8);
    for (int64_t i = 0; i < turns; ++i) {
      Asked asked = ask(random, scene);
      if (i == 0) draft.what = asked.what;
      add_turn(record, text::Role::kUser, casual(random, std::move(asked.question)), i == 0 ? 0 : -1);
      add_turn(record, text::Role::kAssistant, std::move(asked.answer));
    }
    if (split_of(draft.content) == split) record.images.push_back(draw_png(scene));
    return draft;
  }

 private:
  Scene (*draw_scene_)(Random&);
};

}  // namespace

std::unique_ptr<Maker> make_pictures() { return std::make_unique<Pictures>(random_scene); }
std::unique_ptr<Maker> make_shapes() { return std::make_unique<Pictures>(single_shape); }

}  // namespace puna::synth
