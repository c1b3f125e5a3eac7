#include "http/request_parser.h"

#include <algorithm>
#include <boost/beast/core/buffers_range.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/parser.hpp>
#include <optional>
#include <utility>

#include "base/error.h"
#include "http/target.h"

namespace puna::http {
namespace {

namespace beast = boost::beast;
namespace bhttp = boost::beast::http;

// What a client announces is not yet memory that it gets.
constexpr uint64_t kReserveBytes = 1 << 20;

struct StringBody {
  using value_type = std::string;

  class reader {
   public:
    template <bool isRequest, class Fields>
    reader(bhttp::header<isRequest, Fields>&, value_type& body) : body_(body) {}

    void init(const boost::optional<uint64_t>& length, beast::error_code& error) {
      error = {};
      if (length) body_.reserve(static_cast<size_t>(std::min(*length, kReserveBytes)));
    }
    template <class Buffers>
    size_t put(const Buffers& buffers, beast::error_code& error) {
      error = {};
      size_t size = 0;
      for (const auto& buffer : beast::buffers_range_ref(buffers)) {
        body_.append(static_cast<const char*>(buffer.data()), buffer.size());
        size += buffer.size();
      }
      return size;
    }
    void finish(beast::error_code& error) { error = {}; }

   private:
    value_type& body_;
  };
};

[[noreturn]] void refuse(const beast::error_code& error, int64_t header_bytes, int64_t body_bytes) {
  if (error == bhttp::error::header_limit)
    throw Refusal(431, fmt::format("the header has more than {} bytes", header_bytes));
  if (error == bhttp::error::body_limit) throw Refusal(413, fmt::format("the body has more than {} bytes", body_bytes));
  if (error == bhttp::error::bad_version) throw Refusal(505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
  throw Refusal(400, fmt::format("not a request of HTTP/1.1: {}", error.message()));
}

std::string to_lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

std::string_view view(beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace

struct RequestParser::State {
  bhttp::request_parser<StringBody> parser;
  int64_t header_bytes, body_bytes;
  size_t header_taken = 0;
  bool begun = false, expects_continue = false, dropped = false;
  Request request;

  void count_header(size_t taken, size_t waiting);
  void check_header();
  void keep_header();
};

RequestParser::RequestParser(int64_t header_bytes, int64_t body_bytes) : state_(std::make_unique<State>()) {
  state_->header_bytes = header_bytes;
  state_->body_bytes = body_bytes;
  state_->parser.header_limit(static_cast<uint32_t>(header_bytes));
  state_->parser.body_limit(static_cast<uint64_t>(body_bytes));
}

RequestParser::~RequestParser() = default;

size_t RequestParser::put(std::string_view bytes) {
  auto& parser = state_->parser;
  size_t taken = 0;
  // RFC 9112, 2.2: empty lines before a request line are passed over.
  while (!state_->begun && bytes.substr(taken).starts_with("\r\n")) taken += 2;
  if (!state_->begun && bytes.substr(taken) == "\r") return taken;
  while (taken < bytes.size() && !parser.is_done()) {
    state_->begun = true;
    const bool in_header = !parser.is_header_done();
    beast::error_code error;
    const size_t step = parser.put({bytes.data() + taken, bytes.size() - taken}, error);
    taken += step;
    if (in_header) state_->count_header(step, error == bhttp::error::need_more ? bytes.size() - taken : 0);
    if (error == bhttp::error::need_more) {
      if (std::cmp_greater(bytes.size() - taken, state_->header_bytes))
        throw Refusal(400, "a chunk's extension or the trailer is too long");
      break;
    }
    if (error) refuse(error, state_->header_bytes, state_->body_bytes);
    if (in_header && parser.is_header_done()) {
      state_->check_header();
      state_->keep_header();
      break;
    }
  }
  return taken;
}

// Beast's own limit is for the lines behind the first alone.
void RequestParser::State::count_header(size_t taken, size_t waiting) {
  header_taken += taken;
  if (std::cmp_greater(header_taken + waiting, header_bytes))
    throw Refusal(431, fmt::format("the header has more than {} bytes", header_bytes));
}

void RequestParser::State::check_header() {
  const auto& message = parser.get();
  const bool is_1_0 = message.version() < 11;
  const auto hosts = message.count(bhttp::field::host);
  if (hosts > 1 || (hosts == 0 && !is_1_0)) throw Refusal(400, "a request has one Host");
  if (const auto coding = message.find(bhttp::field::transfer_encoding); coding != message.end()) {
    if (is_1_0) throw Refusal(400, "HTTP/1.0 has no Transfer-Encoding");
    if (!beast::iequals(coding->value(), "chunked"))
      throw Refusal(501, "no Transfer-Encoding but 'chunked' is understood");
  }
  if (const auto expect = message.find(bhttp::field::expect); expect != message.end() && !is_1_0) {
    if (!beast::iequals(expect->value(), "100-continue")) throw Refusal(417, "no Expect but '100-continue' is known");
    expects_continue = !parser.is_done();
  }
}

// Before the body, so that a trailer behind it adds nothing.
void RequestParser::State::keep_header() {
  const auto& message = parser.get();
  request.method = view(message.method_string());
  auto target = parse_target(view(message.target()));
  if (!target) throw Refusal(400, "the target is not a path, or its percent-encoding is wrong");
  request.path = std::move(target->path);
  request.query = std::move(target->query);
  for (const auto& field : message) {
    auto [at, is_new] = request.headers.try_emplace(to_lower(view(field.name_string())), view(field.value()));
    if (!is_new) at->second.append(", ").append(view(field.value()));
  }
}

bool RequestParser::header_done() const { return state_->parser.is_header_done(); }
bool RequestParser::done() const { return state_->dropped || state_->parser.is_done(); }
const Request& RequestParser::head() const { return state_->request; }

void RequestParser::drop_body() {
  state_->dropped = true;
  discard_body();
}

bool RequestParser::expects_continue() const { return state_->expects_continue; }

int64_t RequestParser::announced_body_bytes() const {
  return static_cast<int64_t>(state_->parser.content_length().value_or(0));
}

bool RequestParser::keep_alive() const { return !state_->dropped && state_->parser.keep_alive(); }
bool RequestParser::is_http_1_0() const { return state_->parser.get().version() < 11; }
bool RequestParser::is_head() const { return state_->request.method == "HEAD"; }
int64_t RequestParser::body_bytes() const { return static_cast<int64_t>(state_->parser.get().body().size()); }

void RequestParser::discard_body() { state_->parser.get().body() = std::string(); }

Request RequestParser::take() {
  PUNA_CHECK(done(), "a request is taken before it is whole");
  state_->request.body = std::move(state_->parser.get().body());
  return std::move(state_->request);
}

}  // namespace puna::http
