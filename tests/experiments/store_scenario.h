// A small life of a run database, done under every fault in turn: open, create a run, log, tag, end, close.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/store/store.h"

namespace rat {

// What the store has said is done; plain bytes, because the process may be killed at any moment.
struct Promised {
  char run_id[32];
  int64_t points;
  bool tagged, ended;
};

inline constexpr int64_t scenario_points = 60;
inline constexpr const char* scenario_tag = "kept";

// Every step that fails is tried once more, as a person would; the sentences of the failures go to `problems`.
// `promise` is called after each acknowledged step. Fails when a second try fails.
Status run_scenario(const std::filesystem::path& db, const std::function<void(const Promised&)>& promise,
                    std::vector<std::string>& problems);

// The real migrations and two more, for tests: new table and column with old data in them, then a changed view.
std::vector<std::string_view> scenario_migrations();

}  // namespace rat
