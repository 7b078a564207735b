// rat export: a run's weights as a file for other programs.
#include <algorithm>
#include <filesystem>
#include <memory>

#include "app/cli/commands.h"
#include "app/cli/output.h"
#include "app/cli/run_lookup.h"
#include "core/io/file_hash.h"
#include "core/io/torch_file.h"

namespace rat::cli {
namespace {

struct ExportOptions {
  std::string run, out;
};

constexpr const char* examples =
    "Tensor names are those of the published training code (embedding.wte.weight,\n"
    "backbone.layers.0.seq_layer.in_proj.weight, ...), values are f32. The ending chooses the form:\n"
    "  .safetensors   with the run's spec in the metadata, which `rat import` reads back\n"
    "  .pt            torch.load(FILE, weights_only=True) gives the state dict\n"
    "  .pth           the same inside {\"task\": ...}, as the published training code saves and loads it\n"
    "\n"
    "Examples:\n"
    "  rat export first --out first.safetensors\n"
    "  rat export first --out first.pth";

Status write(const std::filesystem::path& path, const LoadedRun& loaded) {
  std::vector<TensorToWrite> tensors;
  for (const Parameter& parameter : std::as_const(*loaded.model).parameters())
    tensors.push_back({parameter.name, parameter.shape, parameter.value, {}});
  if (path.extension() == ".pt") return write_torch_file(path, tensors);
  if (path.extension() == ".pth") return write_torch_file(path, tensors, "task");
  return write_safetensors(path, tensors,
                           {{"format", "pt"},  // what the safetensors library of Python asks for
                            {"spec", to_json(loaded.spec)},
                            {"step", std::to_string(loaded.step)},
                            {"run_id", loaded.run.id}});
}

// The published configs tie the two, and load_state_dict then lets the head replace the embedding without a word.
bool embedding_is_head(const Model& model) {
  const auto value = [&](std::string_view name) {
    return std::ranges::find(model.parameters(), name, &Parameter::name)->value;
  };
  return std::ranges::equal(value("embedding.wte.weight"), value("head.lm_head.weight"));
}

Result<int> run_export(const ExportOptions& options, const Context& context) {
  const std::filesystem::path path(options.out);
  const std::string ending = path.extension().string();
  if (ending != ".safetensors" && ending != ".pt" && ending != ".pth")
    return wrong_usage(context, fmt::format("--out {} must end in .safetensors, .pt or .pth.", options.out));
  RAT_ASSIGN(const LoadedRun loaded, load_run(context.database_path(), options.run));
  RAT_TRY(write(path, loaded));
  RAT_ASSIGN(const std::string sha256, sha256_of_file(path));
  const auto tensors = std::as_const(*loaded.model).parameters().size();
  const bool tied = embedding_is_head(*loaded.model);
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  if (context.json)
    print_json({{"run", loaded.run.id},
                {"step", loaded.step},
                {"file", options.out},
                {"tensors", tensors},
                {"parameters", loaded.model->parameter_count()},
                {"dtype", "f32"},
                {"embedding_is_head", tied},
                {"bytes", bytes},
                {"sha256", sha256}});
  else
    fmt::print("wrote {} ({} tensors, {}, f32, step {})\n", options.out, tensors,
               format_bytes(static_cast<double>(bytes)), loaded.step);
  if (!tied)
    print_note(
        "note: embedding and head differ, so the published training code must be run with task.tie_embedding=false; "
        "its own configs tie them, and would load this file without an error and compute something else");
  return exit_done;
}

}  // namespace

void add_export(CLI::App& command, Context& context) {
  const auto options = std::make_shared<ExportOptions>();
  command.add_option("RUN", options->run, "Id (or the start of it) or name")->required()->type_name("");
  command.add_option("--out", options->out, "File to write: .safetensors, .pt or .pth")->required()->type_name("FILE");
  command.footer(examples);
  finish_command(command, context, [options, &context] { return run_export(*options, context); });
}

}  // namespace rat::cli
