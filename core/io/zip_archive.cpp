#include "core/io/zip_archive.h"

#include <zip.h>

#include <algorithm>

#include "core/io/regular_file.h"

namespace rat {
namespace {

constexpr std::size_t max_entry_name = 4096;

// Names go into messages and terminals.
std::string printable(std::string_view name) {
  std::string text;
  for (const char c : name.substr(0, 80)) text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return name.size() > 80 ? text + "..." : text;
}

std::string libzip_text(int code) {
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  std::string text = zip_error_strerror(&error);
  zip_error_fini(&error);
  return text;
}

bool leaves_its_folder(std::string_view name) {
  if (name.empty() || name.front() == '/' || name.find('\\') != std::string_view::npos ||
      name.find(':') != std::string_view::npos)
    return true;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part == ".." || part == ".") return true;
    begin = end + 1;
  }
  return false;
}

Status check_entry(const std::string& file, const zip_stat_t& stat) {
  constexpr zip_uint64_t needed =
      ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
  if ((stat.valid & needed) != needed)
    return fail(ErrorCode::corrupt_data, "{} has a zip directory that lacks names or sizes", file);
  const std::string_view name = stat.name;
  if (name.size() > max_entry_name || leaves_its_folder(name) ||
      std::ranges::any_of(name, [](char c) { return static_cast<unsigned char>(c) < 0x20; }))
    return fail(ErrorCode::corrupt_data,
                "{} has an entry named '{}', which points outside the archive or is not a plain name", file,
                printable(name));
  if (stat.encryption_method != ZIP_EM_NONE)
    return fail(ErrorCode::unsupported, "{}: entry '{}' is encrypted", file, printable(name));
  if (stat.comp_method != ZIP_CM_STORE && stat.comp_method != ZIP_CM_DEFLATE)
    return fail(ErrorCode::unsupported, "{}: entry '{}' is packed by method {}; stored and deflated ones are read",
                file, printable(name), stat.comp_method);
  if (stat.comp_method == ZIP_CM_STORE && stat.size != stat.comp_size)
    return fail(ErrorCode::corrupt_data, "{}: entry '{}' is stored in {} bytes but announces {}", file, printable(name),
                stat.comp_size, stat.size);
  return ok();
}

}  // namespace

struct ZipArchive::Impl {
  struct Close {
    void operator()(zip_t* archive) const { zip_discard(archive); }
  };
  std::string name;
  std::unique_ptr<zip_t, Close> archive;
  std::map<std::string, uint64_t> sizes;
  std::map<std::string, uint64_t> index;

  Status read_directory(uint64_t file_size) {
    const zip_int64_t count = zip_get_num_entries(archive.get(), ZIP_FL_UNCHANGED);
    if (count < 0 || static_cast<uint64_t>(count) > max_zip_entries)
      return fail(ErrorCode::corrupt_data, "{} has {} zip entries; at most {} are read", name, count, max_zip_entries);
    uint64_t unpacked = 0;
    for (zip_uint64_t i = 0; i < static_cast<zip_uint64_t>(count); ++i) {
      zip_stat_t stat;
      if (zip_stat_index(archive.get(), i, ZIP_FL_ENC_RAW, &stat) != 0)
        return fail(ErrorCode::corrupt_data, "{}: zip entry {} cannot be read ({})", name, i,
                    zip_strerror(archive.get()));
      RAT_TRY(check_entry(name, stat));
      if (__builtin_add_overflow(unpacked, stat.size, &unpacked) ||
          unpacked / max_zip_expansion > file_size + (uint64_t{1} << 14))
        return fail(ErrorCode::corrupt_data,
                    "{} unpacks to more than {} times its {} bytes; it is not a checkpoint but a zip bomb", name,
                    max_zip_expansion, file_size);
      if (!sizes.emplace(stat.name, stat.size).second)
        return fail(ErrorCode::corrupt_data, "{} has two entries named '{}'", name, printable(stat.name));
      index.emplace(stat.name, i);
    }
    return ok();
  }
};

ZipArchive::ZipArchive() : impl_(std::make_unique<Impl>()) {}
ZipArchive::ZipArchive(ZipArchive&&) noexcept = default;
ZipArchive& ZipArchive::operator=(ZipArchive&&) noexcept = default;
ZipArchive::~ZipArchive() = default;

Result<ZipArchive> ZipArchive::open(const std::filesystem::path& path) {
  RAT_ASSIGN(const RegularFile file, RegularFile::open(path));  // refuses pipes, devices and folders
  ZipArchive opened;
  opened.impl_->name = file.name();
  int error = 0;
  opened.impl_->archive.reset(zip_open(path.c_str(), ZIP_RDONLY | ZIP_CHECKCONS, &error));
  if (!opened.impl_->archive)
    return fail(ErrorCode::corrupt_data, "{} is not a whole zip file ({}); copy it again", file.name(),
                libzip_text(error));
  RAT_TRY(opened.impl_->read_directory(file.size()));
  return opened;
}

const std::string& ZipArchive::name() const { return impl_->name; }
const std::map<std::string, uint64_t>& ZipArchive::entries() const { return impl_->sizes; }
bool ZipArchive::contains(const std::string& entry) const { return impl_->sizes.contains(entry); }

Result<std::vector<char>> ZipArchive::read(const std::string& entry, uint64_t limit) const {
  const auto found = impl_->sizes.find(entry);
  if (found == impl_->sizes.end())
    return fail(ErrorCode::not_found, "{} has no entry '{}'", impl_->name, printable(entry));
  const uint64_t size = found->second;
  if (size > limit)
    return fail(ErrorCode::corrupt_data, "{}: entry '{}' has {} bytes; at most {} are read", impl_->name,
                printable(entry), size, limit);
  zip_file_t* file = zip_fopen_index(impl_->archive.get(), impl_->index.at(entry), 0);
  if (!file)
    return fail(ErrorCode::corrupt_data, "{}: entry '{}' cannot be opened ({})", impl_->name, printable(entry),
                zip_strerror(impl_->archive.get()));
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> closer(file, zip_fclose);
  std::vector<char> bytes(size);
  uint64_t done = 0;
  while (done < size) {
    const zip_int64_t got = zip_fread(file, bytes.data() + done, size - done);
    if (got <= 0) break;
    done += static_cast<uint64_t>(got);
  }
  char extra = 0;
  const zip_int64_t rest = done == size ? zip_fread(file, &extra, 1) : -1;  // at the end the checksum is verified
  if (rest != 0)
    return fail(ErrorCode::corrupt_data, "{}: entry '{}' is damaged ({} of {} bytes, {})", impl_->name,
                printable(entry), done, size, rest > 0 ? "more than announced" : zip_file_strerror(file));
  return bytes;
}

}  // namespace rat
