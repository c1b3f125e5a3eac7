// Ways to ask the same thing: frames around a task or a thing, and small changes that keep the sense.
#pragma once

#include <string>
#include <string_view>

#include "synth/random.h"

namespace puna::synth {

/// "train a model" -> "How do I train a model?" and some twenty more.
std::string ask_for_task(Random& random, std::string_view task);
/// "the router" -> "What is the router?" and some ten more.
std::string ask_for_thing(Random& random, std::string_view thing);
size_t num_task_frames();
size_t num_thing_frames();
std::string task_in_frame(size_t frame, std::string_view task);
std::string thing_in_frame(size_t frame, std::string_view thing);

/// Contractions, equal words ("picture", "image"), then casual() and, rarely, a slip of the finger.
std::string reworded(Random& random, std::string question);

/// Small letters, digits and single spaces: two questions that differ in less are the same question.
std::string normalised(std::string_view question);

}  // namespace puna::synth
