// rat runs merge, check, backup: the database as a file.
#include <memory>

#include "app/cli/output.h"
#include "app/cli/runs.h"
#include "experiments/store/store.h"

namespace rat::cli {
namespace {

Result<int> merge(const std::string& other, const Context& context) {
  if (!std::filesystem::exists(other))
    return fail(ErrorCode::not_found, "{} does not exist: name the database whose runs are to be copied.", other);
  RAT_ASSIGN(const auto store, StoreWriter::open(context.database_path()));
  RAT_ASSIGN(const int64_t copied, store->merge(other));
  if (context.json)
    print_json({{"merged", copied}, {"from", other}, {"database", store->path().string()}});
  else
    fmt::print("merged {} runs from {} into {}\n", copied, other, store->path().string());
  return exit_done;
}

Result<int> check(const Context& context) {
  const std::filesystem::path path = context.database_path();
  RAT_ASSIGN(const StoreReader store, StoreReader::open(path));
  const Status status = store.check();
  if (context.json)
    print_json({{"database", path.string()},
                {"ok", static_cast<bool>(status)},
                {"problem", status ? "" : status.error().message}});
  else if (status)
    fmt::print("ok: {} is sound and every checkpoint it names is there\n", path.string());
  if (!status) print_error(status.error().message);
  return status ? exit_done : exit_failed;
}

Result<int> backup(const std::string& to, const Context& context) {
  RAT_ASSIGN(const StoreReader store, StoreReader::open(context.database_path()));
  RAT_TRY(store.backup(to));
  std::error_code error;
  const auto bytes = std::filesystem::file_size(to, error);
  if (context.json)
    print_json({{"backup", to}, {"bytes", bytes}});
  else
    fmt::print("wrote {} ({})\n", to, format_bytes(static_cast<double>(bytes)));
  return exit_done;
}

}  // namespace

void add_runs_merge(CLI::App& runs, Context& context) {
  const auto other = std::make_shared<std::string>();
  CLI::App& command = *runs.add_subcommand("merge", "Copy the runs of another database into this one");
  command.add_option("OTHER", *other, "The other database; it is only read")->required()->type_name("");
  command.footer("Runs that are already here are left as they are.\n\nExample:\n  rat runs merge ~/from-the-server.db");
  finish_command(command, context, [other, &context] { return merge(*other, context); });
}

void add_runs_check(CLI::App& runs, Context& context) {
  CLI::App& command = *runs.add_subcommand("check", "Integrity of the database and of its checkpoints");
  command.footer("Exit code 1 when something is wrong.\n\nExample:\n  rat runs check");
  finish_command(command, context, [&context] { return check(context); });
}

void add_runs_backup(CLI::App& runs, Context& context) {
  const auto to = std::make_shared<std::string>();
  CLI::App& command = *runs.add_subcommand("backup", "A consistent copy of the database, also while training");
  command.add_option("FILE", *to, "Where to")->required()->type_name("");
  command.footer(
      "Checkpoints lie beside the database and are not part of the copy.\n\nExample:\n  rat runs backup "
      "~/runs-copy.db");
  finish_command(command, context, [to, &context] { return backup(*to, context); });
}

}  // namespace rat::cli
