// Copying runs from another run database.
#pragma once

#include "experiments/store/writer_thread.h"

namespace rat::store {

// Copies the runs of `other` that `target` does not have, with metrics, tags and checkpoint files; runs that are still
// queued or running there are left out. Returns how many were copied.
Result<int64_t> merge_database(const StoreWriter& target, WriterThread& thread, const std::filesystem::path& other);

}  // namespace rat::store
