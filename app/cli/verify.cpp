// rat verify: every computation against golden tensors.
#include "experiments/verify/verify.h"

#include <unistd.h>

#include <memory>

#include "app/cli/commands.h"
#include "app/cli/device_option.h"
#include "app/cli/output.h"
#include "kernels/base/dtype.h"

namespace rat::cli {
namespace {

struct VerifyArguments {
  std::vector<std::string> files;
  VerifyOptions options;
};

constexpr const char* examples =
    "Each case runs forward and backward, prefill against token-by-token decoding and, where the file has it,\n"
    "training steps. Errors are relative (training losses: absolute, in nats). Exit code 1 when a case is over its\n"
    "bound, or asks for something this program does not know.\n"
    "\n"
    "Examples:\n"
    "  rat verify tests/golden/mixers.safetensors tests/golden/models.safetensors\n"
    "  rat verify more.safetensors --json";

std::string cell(const std::optional<double>& error) { return error ? format_error(*error) : "-"; }

Result<int> run_verify(VerifyArguments arguments, const Context& context) {
  const bool live = is_terminal(STDERR_FILENO);
  int64_t done = 0;
  arguments.options.progress = [&](const CaseResult& result) {
    ++done;
    if (live) fmt::print(stderr, "\r\033[K{} cases, {}", done, result.name);
  };
  const std::vector<std::filesystem::path> files(arguments.files.begin(), arguments.files.end());
  const Result<VerifyReport> report = verify(files, arguments.options);
  if (live && done > 0) fmt::print(stderr, "\r\033[K");
  if (!report) return report.error();
  if (context.json) {
    print_json(Json::parse(to_json(*report)));
  } else {
    using enum Table::Align;
    Table table({{"case"},
                 {"kind"},
                 {"result"},
                 {"output", right},
                 {"gradient", right},
                 {"decode", right},
                 {"training", right},
                 {"why"}});
    for (const CaseResult& one : report->cases)
      table.add({one.name, one.kind, one.pass ? "pass" : "FAIL", cell(one.output_err), cell(one.grad_err),
                 cell(one.decode_err), cell(one.train_err), one.reason});
    fmt::print("{}{} passed, {} failed ({}, {})\n", table.text(), report->passed, report->failed, report->device,
               report->dtype);
  }
  if (report->cases.empty()) print_error("the files hold no cases, so nothing was verified");
  return report->failed == 0 && !report->cases.empty() ? exit_done : exit_failed;
}

}  // namespace

void add_verify(CLI::App& command, Context& context) {
  const auto arguments = std::make_shared<VerifyArguments>();
  command.add_option("FILES", arguments->files, "Golden files (safetensors)")->required()->type_name("");
  add_device_option(command, arguments->options.device);
  command.add_option("--dtype", arguments->options.dtype, "In which precision")
      ->check(CLI::IsMember(kernels::dtype_names()))
      ->capture_default_str()
      ->type_name("");
  command.footer(examples);
  finish_command(command, context, [arguments, &context] { return run_verify(*arguments, context); });
}

}  // namespace rat::cli
