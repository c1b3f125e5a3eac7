#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include "base/env.h"
#include "base/error.h"

namespace puna {

void init_logging() {
  spdlog::drop("puna");
  auto logger = spdlog::stderr_color_mt("puna");
  logger->set_pattern("%^%l%$: %v");
  logger->set_level(spdlog::level::warn);
  if (const auto wanted = env::log_level()) {
    const auto level = spdlog::level::from_str(*wanted);
    if (level == spdlog::level::off && *wanted != "off")
      fail("PUNA_LOG", "unknown level '{}'; use trace, debug, info, warn, error or off", *wanted);
    logger->set_level(level);
  }
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace puna
