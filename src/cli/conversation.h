// A conversation with one model: messages, images, what the cache holds; and its form on disk.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/generate.h"
#include "engine/prompt.h"
#include "text/chat.h"

namespace puna::cli {

class Conversation {
 public:
  Conversation(const engine::LoadedModel& loaded, const engine::EngineOptions& options)
      : loaded_(loaded), engine_(loaded, options) {}

  /// Adds the user's text, with the images given since the last turn before it, and generates the answer. When this
  /// throws, or is cancelled before the first word, the conversation is as before.
  engine::Generation say(const std::string& text, const engine::GenerateOptions& options);

  /// Reads and encodes an image for the next message; throws Error over the prompt's limit of images.
  void add_image(const std::filesystem::path& file);
  void set_system(std::string text) { system_ = std::move(text); }
  const std::string& system() const { return system_; }

  /// Forgets messages and images, not the system message.
  void reset();
  /// JSON, whole or not at all. Images are saved as paths.
  void save(const std::filesystem::path& file) const;
  /// Replaces the conversation; unchanged when this throws.
  void load(const std::filesystem::path& file);

  /// What the engine's cache holds of the conversation, so that a later run need not read it again. Throws Error for a
  /// file of another model, and when there is nothing to save.
  void save_cache(const std::filesystem::path& file);
  void load_cache(const std::filesystem::path& file) { engine_.load_prefix(file); }

  size_t num_messages() const { return messages_.size(); }
  size_t num_images() const { return images_.size(); }
  const engine::Engine& engine() const { return engine_; }

 private:
  engine::Prompt prompt() const;

  const engine::LoadedModel& loaded_;
  engine::Engine engine_;
  std::string system_;
  std::vector<text::Message> messages_;
  std::vector<engine::EncodedImage> images_;
  std::vector<std::string> image_files_;
  std::vector<text::Part> waiting_;  // images for the next message
};

}  // namespace puna::cli
