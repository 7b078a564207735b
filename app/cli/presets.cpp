// rat presets: the named layer stacks.
#include "core/presets.h"

#include "app/cli/commands.h"
#include "app/cli/output.h"

namespace rat::cli {
namespace {

constexpr const char* examples =
    "A name stands for one period of its layers wherever a pattern does; *N repeats it.\n"
    "\n"
    "Examples:\n"
    "  rat presets\n"
    "  rat train --set \"model.layers=rat-swa*2\" --name hybrid\n"
    "  rat bench model --layers \"rattention-attention*3\"";

Result<int> list_presets(const Context& context) {
  Table table({{"name"}, {"layers"}, {"what"}});
  Json rows = Json::array();
  for (const LayerPreset& preset : layer_presets()) {
    table.add({std::string(preset.name), std::string(preset.pattern), std::string(preset.description)});
    rows.push_back({{"name", preset.name}, {"layers", preset.pattern}, {"description", preset.description}});
  }
  if (context.json)
    print_json(rows);
  else
    fmt::print("{}", table.text());
  return exit_done;
}

}  // namespace

void add_presets(CLI::App& command, Context& context) {
  command.footer(examples);
  finish_command(command, context, [&context] { return list_presets(context); });
}

}  // namespace rat::cli
