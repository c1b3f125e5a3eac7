// Many clients of a server on this machine, on one thread and of little work, so that they take little from the server.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace puna::cli {

/// Connections to 127.0.0.1 that say nothing, of a process of their own: each process may open only so many files.
class IdleConnections {
 public:
  /// Starts the process; to be called while there is one thread.
  IdleConnections();
  /// Closes them.
  ~IdleConnections();
  IdleConnections(const IdleConnections&) = delete;
  IdleConnections& operator=(const IdleConnections&) = delete;

  /// Throws Error when so many cannot be opened.
  void open(uint16_t port, int64_t count);

 private:
  int process_ = -1, to_ = -1, from_ = -1;
};

struct StreamResult {
  double seconds = 0;       // from the first byte sent to the last stream's end
  int64_t whole = 0;        // streams that ended with [DONE], with status 200
  std::string first_wrong;  // how the first other one began; "": none
};

/// POSTs each body to the path on a connection of its own, all at once, and reads the streams of events to their ends.
StreamResult run_streams(uint16_t port, const std::string& path, const std::vector<std::string>& bodies);

/// Allows this process so many open files, where the system lets it; what it then has.
int64_t raise_open_files(int64_t wanted);

}  // namespace puna::cli
