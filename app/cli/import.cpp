// rat import: weights made elsewhere become a run of the store.
#include <algorithm>
#include <filesystem>
#include <memory>

#include "app/cli/commands.h"
#include "app/cli/output.h"
#include "app/cli/training.h"
#include "core/io/checkpoint.h"
#include "core/io/file_hash.h"
#include "core/io/weight_import.h"
#include "experiments/data/tokenizers.h"
#include "experiments/run_spec.h"
#include "experiments/store/store.h"

namespace rat::cli {
namespace {

namespace fs = std::filesystem;

struct ImportOptions {
  std::string file, name, tokenizer, data, positions;
  ImportChoices choices;
  bool dry_run = false, allow_extra = false;
};

constexpr const char* examples =
    "FILE is a safetensors file or a PyTorch checkpoint (.pt, .pth), told apart by content. Nothing in it is run.\n"
    "Sizes come from tensor shapes; kinds of layers, chunk lengths and heads from the config that the published\n"
    "training code and `rat export` leave in their files, else from the options. All tensors must fit, or none is\n"
    "loaded. 16-bit and 64-bit values become f32.\n"
    "\n"
    "Examples:\n"
    "  rat import 70000.pth --dry-run                     what is in it, tensor by tensor\n"
    "  rat import 70000.pth --tokenizer llama.model --name rat-xl\n"
    "  rat import weights.safetensors --layers rat:16,swa:1024 --heads 16\n"
    "  rat generate rat-xl --prompt \"Once upon\"";

RunSpec spec_of(const ImportOptions& options, const ImportPlan& plan) {
  RunSpec spec;
  spec.name = options.name.empty() ? fs::path(options.file).stem().string() : options.name;
  spec.model = plan.model;
  const bool text = !options.tokenizer.empty() || plan.model.vocab == 256;
  spec.data.kind = text ? "text" : "tokens";  // a vocabulary of 256 is bytes; any other needs its tokenizer
  spec.data.path = options.data;
  spec.data.tokenizer = options.tokenizer;
  make_data_path_absolute(spec);
  return spec;
}

Json to_json(const MappingRow& row) {
  Json json{{"name", row.name}, {"state", mapping_state_name(row.state)}};
  if (!row.name_in_file.empty())
    json.update({{"name_in_file", row.name_in_file}, {"shape", row.shape}, {"dtype", dtype_name(row.dtype)}});
  if (row.state != MappingRow::State::extra) json["wanted"] = row.wanted;
  return json;
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

void print_rows(const ImportPlan& plan, bool all) {
  Table table({{"tensor"}, {"state"}, {"shape in the file"}, {"shape in the model"}, {"stored as"}});
  for (const MappingRow& row : plan.rows) {
    if (!all && row.state == MappingRow::State::used) continue;
    const bool there = row.state != MappingRow::State::missing;
    table.add({row.name, std::string(mapping_state_name(row.state)), there ? shape_text(row.shape) : "-",
               row.state == MappingRow::State::extra ? "-" : shape_text(row.wanted),
               there ? std::string(dtype_name(row.dtype)) : "-"});
  }
  if (!table.empty()) fmt::print("{}", table.text());
}

std::string summary(const ImportPlan& plan) {
  using State = MappingRow::State;
  return fmt::format("{} tensors used, {} missing, {} of another shape, {} extra", plan.count(State::used),
                     plan.count(State::missing), plan.count(State::mis_shaped), plan.count(State::extra));
}

// The run as it is stored: state finished, step 0, fresh optimizer state.
Result<std::string> store_run(const RunSpec& spec, const Model& model, const ImportOptions& options,
                              const std::string& sha256, StoreWriter& store) {
  NewRun run;
  run.data_description =
      fmt::format("weights imported from {} (SHA-256 {})", fs::absolute(options.file).string(), sha256);
  if (!options.data.empty()) {
    RAT_ASSIGN(const auto data, DataSource::open(spec.data, spec.model, spec.train.seq_len, spec.train.seed));
    run.data_description += "; " + data->description();
    run.data_hash = data->hash();
  }
  run.name = spec.name;
  run.spec_json = rat::to_json(spec);
  run.spec_hash = spec_hash(spec);
  run.layers = format_layers(spec.model.layers);
  run.device = spec.device;
  run.dtype = spec.train.dtype;
  run.seed = spec.train.seed;
  RAT_ASSIGN(const std::string id, store.create_run(run));
  const auto save = [&]() -> Status {
    AdamW optimizer(model.parameters(), spec.train.optimizer);
    const CheckpointMeta meta{
        0, id, run.spec_json, {{"source_file", fs::absolute(options.file).string()}, {"source_sha256", sha256}}};
    RAT_ASSIGN(const fs::path weights, save_checkpoint(store.run_folder(id), model, optimizer, meta));
    RAT_TRY(store.record_checkpoint(id, 0, weights));
    RAT_TRY(store.set_tags(id, {"imported"}));
    return store.end_run(id, RunState::finished);
  };
  if (const Status saved = save(); !saved) {
    (void)store.purge_run(id);
    return saved.error();
  }
  RAT_TRY(store.flush());
  return id;
}

Result<ImportPlan> make_plan(const ImportOptions& options, const WeightFile& file) {
  ImportChoices choices = options.choices;
  if (const auto stated = file.settings().find("spec"); stated != file.settings().end()) {
    RAT_ASSIGN(const RunSpec spec, parse_spec(stated->second));
    choices.stated = spec.model;
  }
  if (!options.positions.empty()) choices.positions = options.positions == "none" ? Positions::none : Positions::rope;
  return plan_import(file, choices);
}

Json report(const ImportOptions& options, const WeightFile& file, const ImportPlan& plan, const std::string& sha256) {
  Json rows = Json::array();
  for (const MappingRow& row : plan.rows) rows.push_back(to_json(row));
  return {{"file", options.file},
          {"format", file.format()},
          {"sha256", sha256},
          {"layers", format_layers(plan.model.layers)},
          {"vocab", plan.model.vocab},
          {"d_model", plan.model.d_model},
          {"heads", plan.model.heads},
          {"groups", plan.model.groups},
          {"findings", plan.findings},
          {"fits", plan.fits(options.allow_extra)},
          {"tensors", rows}};
}

Result<int> import(const ImportOptions& options, const Context& context) {
  RAT_ASSIGN(const WeightFile file, WeightFile::open(options.file));
  RAT_ASSIGN(const std::string sha256, sha256_of_file(options.file));
  const auto planned = make_plan(options, file);
  if (!planned) {
    for (const std::string& note : file.notes()) print_note(note);
    return planned.error();
  }
  const ImportPlan& plan = *planned;
  Json document = report(options, file, plan, sha256);
  for (const std::string& finding : plan.findings) print_note(finding);
  const bool fits = plan.fits(options.allow_extra);
  if (!context.json) print_rows(plan, options.dry_run || !fits);
  if (!fits || options.dry_run) {
    if (context.json) print_json(document);
    print_note(summary(plan));
    if (!fits) print_error("The tensors do not fit the model, so nothing was loaded: see the list above.");
    return fits ? exit_done : exit_failed;
  }
  const RunSpec spec = spec_of(options, plan);
  RAT_TRY(validate(spec));
  RAT_TRY(tokenizer_of(spec.data, spec.model));
  RAT_ASSIGN(const auto model, Model::create(spec.model, spec.train.seed));
  RAT_TRY(load_import(file, plan, *model));
  RAT_ASSIGN(const auto store, StoreWriter::open(context.database_path()));
  RAT_ASSIGN(const std::string id, store_run(spec, *model, options, sha256, *store));
  document["run"] = id;
  print_note(fmt::format("{}; {} parameters, {}, {} heads, now run {} '{}'", summary(plan),
                         format_count(static_cast<double>(model->parameter_count())), format_layers(spec.model.layers),
                         spec.model.heads, id, spec.name));
  if (spec.data.kind == "tokens" && options.tokenizer.empty())
    print_note("note: without --tokenizer its tokens are numbers, so it can be evaluated but not prompted with text");
  if (context.json)
    print_json(document);
  else
    fmt::print("{}\n", id);
  return exit_done;
}

}  // namespace

void add_import(CLI::App& command, Context& context) {
  const auto options = std::make_shared<ImportOptions>();
  command.add_option("FILE", options->file, "safetensors or PyTorch checkpoint")->required()->type_name("");
  command
      .add_option("--layers", options->choices.layers, "The layers, e.g. rat:16,swa:1024; repeated as often as needed")
      ->type_name("PATTERN");
  command.add_option("--heads", options->choices.heads, "Attention heads")->check(at_least(1))->type_name("H");
  command.add_option("--groups", options->choices.groups, "Shared query/key groups (default: from the shapes)")
      ->check(at_least(1))
      ->type_name("G");
  command.add_option("--pos", options->positions, "Positions of the attention (default: rope)")
      ->check(CLI::IsMember({"rope", "none"}));
  command.add_option("--tokenizer", options->tokenizer, "SentencePiece model of its tokens")->type_name("M.model");
  command.add_option("--data", options->data, "Data to evaluate and to train on: text, or a token file")
      ->type_name("PATH");
  command.add_option("--name", options->name, "What to call the run (default: the file's name)")->type_name("NAME");
  command.add_flag("--allow-extra", options->allow_extra, "Leave tensors alone that the model does not have");
  command.add_flag("--dry-run", options->dry_run, "Only print which tensor becomes what");
  command.footer(examples);
  finish_command(command, context, [options, &context] {
    if (!options->tokenizer.empty()) options->tokenizer = fs::absolute(options->tokenizer).lexically_normal().string();
    return import(*options, context);
  });
}

}  // namespace rat::cli
