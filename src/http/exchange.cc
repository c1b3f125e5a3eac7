#include "http/exchange.h"

#include <algorithm>

#include "base/error.h"

namespace puna::http {

std::string_view Request::header(const std::string& name) const {
  const auto at = headers.find(name);
  return at == headers.end() ? std::string_view() : std::string_view(at->second);
}

void Exchange::notify() {
  if (notified_) return;
  notified_ = true;
  if (wake_) wake_();
}

void Exchange::prepare(Headers headers, std::function<void(int)> on_status) {
  const std::lock_guard lock(mutex_);
  headers_ = std::move(headers);
  on_status_ = std::move(on_status);
}

void Exchange::take_head(Reply head) {
  head.headers.insert(head.headers.end(), headers_.begin(), headers_.end());
  if (on_status_ && !gone_) on_status_(head.status);
  progress_.begun = true;
  progress_.head = std::move(head);
}

void Exchange::reply(Reply reply) {
  std::function<void()> unneeded;  // destroyed without the lock: it may hold anything
  const std::lock_guard lock(mutex_);
  if (state_ == State::kComplete || state_ == State::kFailed) return;
  PUNA_CHECK(state_ == State::kOpen, "reply() with status {} after begin()", reply.status);
  take_head(std::move(reply));
  progress_.whole = progress_.ended = true;
  state_ = State::kComplete;
  unneeded.swap(gone_callback_);
  notify();
}

void Exchange::begin(Reply head) {
  const std::lock_guard lock(mutex_);
  if (state_ == State::kComplete || state_ == State::kFailed) return;
  PUNA_CHECK(state_ == State::kOpen, "begin() twice");
  PUNA_CHECK(head.body.empty(), "begin() with a body of {} bytes", head.body.size());
  take_head(std::move(head));
  state_ = State::kBegun;
  notify();
}

void Exchange::write(std::string_view piece) {
  const std::lock_guard lock(mutex_);
  if (state_ == State::kComplete || state_ == State::kFailed || gone_ || piece.empty()) return;
  PUNA_CHECK(state_ == State::kBegun, "write() before begin()");
  progress_.pieces += piece;
  unsent_ += piece.size();
  notify();
}

void Exchange::end() {
  std::function<void()> unneeded;
  const std::lock_guard lock(mutex_);
  if (state_ == State::kComplete || state_ == State::kFailed) return;
  PUNA_CHECK(state_ == State::kBegun, "end() before begin()");
  progress_.ended = true;
  state_ = State::kComplete;
  unneeded.swap(gone_callback_);
  notify();
}

bool Exchange::gone() const {
  const std::lock_guard lock(mutex_);
  return gone_;
}

void Exchange::on_gone(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (state_ == State::kComplete || state_ == State::kFailed) return;
    if (!gone_) {
      gone_callback_.swap(callback);
      return;
    }
  }
  callback();
}

size_t Exchange::unsent_bytes() const {
  const std::lock_guard lock(mutex_);
  return unsent_;
}

Exchange::Progress Exchange::take() {
  const std::lock_guard lock(mutex_);
  notified_ = false;
  return std::exchange(progress_, Progress());
}

void Exchange::watch(std::function<void()> wake) {
  const std::lock_guard lock(mutex_);
  wake_ = std::move(wake);
}

void Exchange::mark_sent(size_t bytes) {
  const std::lock_guard lock(mutex_);
  unsent_ -= std::min(bytes, unsent_);
}

void Exchange::leave() {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    if (gone_) return;
    gone_ = true;
    unsent_ = 0;
    progress_.pieces = std::string();
    callback.swap(gone_callback_);
  }
  if (callback) callback();
}

void Exchange::fail() {
  std::function<void()> unneeded;
  const std::lock_guard lock(mutex_);
  if (state_ == State::kComplete || state_ == State::kFailed) return;
  progress_.failed = true;
  state_ = State::kFailed;
  unneeded.swap(gone_callback_);
  notify();
}

}  // namespace puna::http
