// Closed lists of words for the generated texts, and made-up names that no list holds.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "synth/random.h"

namespace puna::synth {

inline constexpr std::array<std::string_view, 64> kNames = {
    "Anna",   "Ben",   "Carla", "David", "Emma",   "Felix", "Grace", "Henry", "Ida",    "Jack",   "Kate",
    "Leo",    "Maria", "Noah",  "Olga",  "Paul",   "Rosa",  "Sam",   "Tina",  "Victor", "Wanda",  "Yara",
    "Zoe",    "Adam",  "Bella", "Carl",  "Diana",  "Eric",  "Fiona", "Georg", "Helen",  "Ivan",   "Julia",
    "Karl",   "Laura", "Max",   "Nina",  "Oscar",  "Petra", "Robin", "Sofia", "Tom",    "Ursula", "Vera",
    "Walter", "Alice", "Bob",   "Clara", "Daniel", "Eva",   "Frank", "Gina",  "Hugo",   "Iris",   "Jonas",
    "Lena",   "Mark",  "Nora",  "Peter", "Rita",   "Simon", "Thea",  "Uwe",   "Will"};
inline constexpr std::array<std::string_view, 40> kTowns = {
    "Paris",   "Rome",  "Berlin", "Madrid",  "Oslo",   "Vienna", "Lisbon", "Prague",  "Warsaw",  "Dublin",
    "Athens",  "Bern",  "Milan",  "Hamburg", "Lyon",   "Porto",  "Krakow", "Bergen",  "Turin",   "Ghent",
    "Cairo",   "Delhi", "Tokyo",  "Lima",    "Quito",  "Boston", "Denver", "Toronto", "Sydney",  "Seoul",
    "Bristol", "Leeds", "Basel",  "Graz",    "Naples", "Malaga", "Riga",   "Vilnius", "Tallinn", "Zagreb"};
inline constexpr std::array<std::string_view, 14> kWordColours = {"red",    "green",  "blue",   "yellow", "orange",
                                                                  "purple", "black",  "white",  "brown",  "grey",
                                                                  "pink",   "silver", "golden", "violet"};
inline constexpr std::array<std::string_view, 32> kThings = {
    "box",  "lamp",   "chair", "book",   "key",    "coat",   "bag",   "cup",   "clock", "table",  "ring",
    "map",  "letter", "hat",   "bottle", "basket", "mirror", "knife", "phone", "radio", "drum",   "ladder",
    "rope", "candle", "coin",  "pen",    "towel",  "spoon",  "bell",  "kite",  "boat",  "bicycle"};
inline constexpr std::array<std::string_view, 16> kRooms = {
    "kitchen", "garden", "cellar", "attic",  "office",  "hall",    "garage", "library",
    "shed",    "tower",  "barn",   "studio", "bedroom", "cabinet", "tent",   "bathroom"};
inline constexpr std::array<std::string_view, 24> kJobs = {
    "baker",     "doctor", "teacher", "farmer",   "pilot",  "painter", "lawyer",   "nurse",
    "carpenter", "cook",   "driver",  "gardener", "judge",  "miller",  "musician", "plumber",
    "sailor",    "singer", "smith",   "soldier",  "tailor", "waiter",  "writer",   "engineer"};
inline constexpr std::array<std::string_view, 16> kAnimals = {"dog",   "cat",    "horse", "rabbit", "parrot", "goat",
                                                              "sheep", "donkey", "duck",  "turtle", "mouse",  "pony",
                                                              "cow",   "goose",  "snake", "hamster"};
inline constexpr std::array<std::string_view, 24> kFoods = {
    "bread", "cheese", "apples",  "soup",   "rice",     "fish",   "cake",   "honey",
    "plums", "nuts",   "beans",   "salad",  "pears",    "grapes", "pasta",  "olives",
    "pizza", "onions", "carrots", "butter", "cherries", "peas",   "lemons", "eggs"};
inline constexpr std::array<std::string_view, 7> kDays = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                                          "Friday", "Saturday", "Sunday"};
inline constexpr std::array<std::string_view, 12> kBuildings = {"bridge",  "church", "school",   "station",
                                                                "castle",  "market", "theatre",  "museum",
                                                                "harbour", "mill",   "hospital", "prison"};

/// Two or three syllables, such as "Tolbany": about 30,000 of them.
std::string made_up_name(Random& random);
/// A listed or, half of the time, a made-up one.
std::string person(Random& random);
std::string town(Random& random);
/// "4719", or letters and digits such as "QX71".
std::string code(Random& random);
/// A word of small letters from any list, or a made-up one.
std::string any_word(Random& random);
/// A sentence without a fact that is ever asked for.
std::string filler_sentence(Random& random);

/// Tokens of a text under a vocabulary of a few thousand entries, within a third.
int64_t rough_tokens(std::string_view text);

}  // namespace puna::synth
