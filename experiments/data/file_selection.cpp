// Which files of a folder are text for a run.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <system_error>

#include "experiments/data/byte_stream.h"

namespace rat {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 7> source_folders{"app",         "core",  "kernels", "views",
                                                         "experiments", "tests", "docs"};
constexpr std::array<std::string_view, 9> source_extensions{".h",  ".cpp", ".cu",    ".cuh", ".py",
                                                            ".md", ".txt", ".cmake", ".json"};

bool is_skipped_name(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.starts_with('.') || name == "__pycache__";
}

bool is_build_folder(const fs::path& path) { return path.filename().string().starts_with("build"); }

bool is_source(const fs::path& path) {
  return std::ranges::find(source_extensions, path.extension().string()) != source_extensions.end();
}

// The convention of grep and git: a NUL byte near the start means "not text".
Result<bool> looks_binary(const fs::path& path) {
  RAT_ASSIGN(const RegularFile file, RegularFile::open(path));
  std::array<char, 8192> head{};
  const std::size_t n = std::min<uint64_t>(head.size(), file.size());
  RAT_TRY(file.read_at(0, {head.data(), n}));
  return std::memchr(head.data(), 0, n) != nullptr;
}

void consider_file(const fs::path& path, FileSelection& selection) {
  const Result<bool> binary = looks_binary(path);
  if (!binary)
    ++selection.unreadable;
  else if (*binary)
    ++selection.binary;
  else
    selection.files.push_back(path);
}

// Links are not followed: they can leave the folder or form a loop.
Status walk(const fs::path& folder, bool sources_only, FileSelection& selection) {
  std::error_code error;
  fs::recursive_directory_iterator it(folder, error), end;
  if (error) return fail(ErrorCode::io_failure, "The folder {} cannot be read: {}", folder.string(), error.message());
  while (it != end) {
    const fs::path path = it->path();
    const fs::file_status status = it->symlink_status(error);
    if (is_skipped_name(path) || (fs::is_directory(status) && is_build_folder(path))) {
      ++selection.hidden;
      it.disable_recursion_pending();
    } else if (fs::is_regular_file(status)) {
      if (!sources_only || is_source(path)) consider_file(path, selection);
    } else if (!fs::is_directory(status)) {
      ++selection.hidden;
    } else if (::access(path.c_str(), R_OK | X_OK) != 0) {
      ++selection.unreadable;
      it.disable_recursion_pending();
    }
    it.increment(error);
    if (error)
      return fail(ErrorCode::io_failure, "Walking the folder {} failed at {}: {}", folder.string(), path.string(),
                  error.message());
  }
  return ok();
}

}  // namespace

Result<FileSelection> select_files(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found)
    return fail(ErrorCode::not_found, "There is no file or folder {}; check the data path", path.string());
  FileSelection selection;
  if (!fs::is_directory(status)) {
    RAT_TRY(RegularFile::open(path));  // refuses devices and what cannot be read, with the reason
    selection.files.push_back(path);
    return selection;
  }
  RAT_TRY(walk(path, false, selection));
  std::ranges::sort(selection.files);
  if (selection.files.empty())
    return fail(ErrorCode::invalid_argument,
                "The folder {} holds no readable text file ({} binary, {} unreadable, {} hidden or links); "
                "choose another folder",
                path.string(), selection.binary, selection.unreadable, selection.hidden);
  return selection;
}

Result<FileSelection> select_source_tree(const fs::path& root) {
  FileSelection selection;
  std::error_code error;
  for (const std::string_view folder : source_folders)
    if (fs::is_directory(root / folder, error)) RAT_TRY(walk(root / folder, true, selection));
  if (fs::is_regular_file(root / "README.md", error)) consider_file(root / "README.md", selection);
  std::ranges::sort(selection.files);
  if (selection.files.empty())
    return fail(ErrorCode::not_found,
                "The program's own source tree, the default data, is not at {}; give a file or folder of text "
                "with --data",
                root.string());
  return selection;
}

}  // namespace rat
