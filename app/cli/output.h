// Where text goes and how numbers look: results to stdout, everything else to stderr.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace rat::cli {

using Json = nlohmann::ordered_json;

// One document, indented, to stdout. Bytes that are not UTF-8 become U+FFFD, NaN and infinities null.
void print_json(const Json& document);
void print_error(std::string_view sentence);  // "rat: ..." to stderr
void print_note(std::string_view sentence);   // to stderr
bool is_terminal(int file_descriptor);

// Columns of text, aligned; numbers to the right.
class Table {
 public:
  enum class Align { left, right };
  struct Column {
    std::string title;
    Align align = Align::left;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void add(std::vector<std::string> row);
  bool empty() const { return rows_.empty(); }
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

std::string format_count(double value);       // 950, 12.3k, 4.56M
std::string format_bytes(double bytes);       // 512 B, 1.5 KiB, 2.0 GiB
std::string format_duration(double seconds);  // 4.2 s, 3 min 20 s, 2 h 05 min
std::string format_time(double unix_s);       // 2026-11-22 02:24; "-" for 0
std::string format_error(double value);       // 1.2e-07; "-" when it was not measured
std::string format_value(double value);       // 4 significant digits

}  // namespace rat::cli
