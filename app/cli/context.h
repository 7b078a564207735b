// What every command shares: the common options, and how a command says what to do once its options are parsed.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <string>

#include "kernels/base/status.h"

namespace rat::cli {

// Exit codes of the program.
inline constexpr int exit_done = 0;
inline constexpr int exit_failed = 1;
inline constexpr int exit_usage = 2;

struct Context {
  std::string program;               // argv[0]: where to look for the sibling window program
  std::string database;              // --db; empty: the default place
  bool json = false;                 // --json: stdout carries one JSON document and nothing else
  std::function<Result<int>()> run;  // set by the command that was asked for; an exit code or what went wrong

  std::filesystem::path database_path() const;
};

// Adds `--db FILE` and `--json`, and makes `action` what the program does when `command` was asked for.
void finish_command(CLI::App& command, Context& context, std::function<Result<int>()> action, bool has_json = true);

// Only the sentence, as a usage error: exit code 2 with a pointer to `--help`.
int wrong_usage(const Context& context, const std::string& sentence);

// Checks of option values, with a sentence that says the limits.
CLI::Validator not_empty();  // as "$UNSET" is
CLI::Validator at_least(int64_t low);
CLI::Validator between(double low, double high);

// "did you mean 'train'?" candidates: the nearest of `known` when it is near enough, else empty.
std::string nearest(const std::string& word, const std::vector<std::string>& known);

}  // namespace rat::cli
