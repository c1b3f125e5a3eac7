// The whole program behind main(): parses the arguments, runs one command, turns exceptions into messages and statuses.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace puna::cli {

/// All commands on one application; tests read its help from here.
void add_commands(CLI::App& app);

/// `arguments` without the program's name. Statuses: 0 done; 1 Error; 2 usage; 70 a bug of ours; 130 interrupted; 141
/// standard output closed by its reader; 143 ended by SIGTERM.
int run(std::vector<std::string> arguments);

}  // namespace puna::cli
