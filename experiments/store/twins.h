// Databases in one folder share its checkpoints, by the ids of runs.
#pragma once

#include <filesystem>
#include <string>

namespace rat::store {

// Whether another database beside this one has a run of this id. One that cannot be read may have it.
bool has_twin(const std::filesystem::path& database, const std::string& id);

}  // namespace rat::store
