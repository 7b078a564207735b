// Errors as values: what a user, a file or a device can cause is a Result; a broken promise inside our own
// code is a RAT_CHECK, which stays on in release builds.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>
#include <variant>

namespace rat {

enum class ErrorCode {
  invalid_argument,  // a value the user gave: config, flag, request
  shape_mismatch,
  unsupported,       // a legal request that this build, device or backend cannot do
  not_found,
  io_failure,        // open, read, write, sync, rename, full disk
  corrupt_data,      // a file that is not what it claims to be
  device_failure,
  cancelled,         // the user stopped it; nothing is wrong
};

// The message is one sentence: what failed, with the values that caused it, then what to do about it.
struct Error {
  ErrorCode code;
  std::string message;
};

template <class... Args>
[[nodiscard]] Error fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return Error{code, fmt::format(format, std::forward<Args>(args)...)};
}

[[noreturn]] void check_failed(const char* condition, const char* file, int line, const std::string& message);

// A value or an Error, never both. Stands in for std::expected, which is C++23.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  explicit operator bool() const { return state_.index() == 0; }
  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  T operator*() && { return std::get<0>(std::move(state_)); }  // by value: a range-for over it must not dangle
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }
  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

using Status = Result<std::monostate>;
inline Status ok() { return std::monostate{}; }

}  // namespace rat

#define RAT_CONCAT_(a, b) a##b
#define RAT_CONCAT(a, b) RAT_CONCAT_(a, b)

// Returns the error to the caller, or continues. `expression` is a Status or any Result whose value is not needed.
#define RAT_TRY(expression)                                        \
  do {                                                             \
    if (auto rat_status_ = (expression); !rat_status_) return rat_status_.error(); \
  } while (false)

// RAT_ASSIGN(const auto config, parse(text)): declares the value or returns the error.
#define RAT_ASSIGN(declaration, expression)                                   \
  auto RAT_CONCAT(rat_result_, __LINE__) = (expression);                      \
  if (!RAT_CONCAT(rat_result_, __LINE__)) return RAT_CONCAT(rat_result_, __LINE__).error(); \
  declaration = *std::move(RAT_CONCAT(rat_result_, __LINE__))

#define RAT_CHECK(condition, message) \
  ((condition) ? void(0) : ::rat::check_failed(#condition, __FILE__, __LINE__, (message)))
