#include "experiments/verify/golden_case.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/mixer_list.h"

namespace rat {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

}  // namespace

const nlohmann::json* Settings::find(const std::string& key) {
  read_.insert(key);
  const auto found = object_.find(key);
  return found == object_.end() ? nullptr : &*found;
}

Result<int64_t> Settings::integer(const std::string& key) {
  const nlohmann::json* value = find(key);
  if (!value) return fail(ErrorCode::corrupt_data, "{} lack '{}'", where_, key);
  if (!value->is_number_integer() || *value < 0 || *value > std::numeric_limits<int32_t>::max())
    return fail(ErrorCode::corrupt_data, "{} have {} = {}, which is not a count", where_, key, value->dump());
  return value->get<int64_t>();
}

Result<int64_t> Settings::positive(const std::string& key) {
  RAT_ASSIGN(const int64_t value, integer(key));
  if (value < 1) return fail(ErrorCode::corrupt_data, "{} have {} = 0, which must be 1 or more", where_, key);
  return value;
}

Result<double> Settings::number(const std::string& key) {
  const nlohmann::json* value = find(key);
  if (!value) return fail(ErrorCode::corrupt_data, "{} lack '{}'", where_, key);
  if (!value->is_number())
    return fail(ErrorCode::corrupt_data, "{} have {} = {}, which is not a number", where_, key, value->dump());
  return value->get<double>();
}

Result<std::string> Settings::text(const std::string& key) {
  const nlohmann::json* value = find(key);
  if (!value) return fail(ErrorCode::corrupt_data, "{} lack '{}'", where_, key);
  if (!value->is_string())
    return fail(ErrorCode::corrupt_data, "{} have {} = {}, which is not a text", where_, key, value->dump());
  return value->get<std::string>();
}

Status Settings::must_be_true(const std::string& key) {
  const nlohmann::json* value = find(key);
  if (!value || *value == true) return ok();
  return fail(ErrorCode::unsupported, "{} have {} = {}; only true is supported", where_, key, value->dump());
}

Status Settings::all_read() const {
  for (const auto& [key, value] : object_.items())
    if (!read_.contains(key))
      return fail(ErrorCode::unsupported, "{} have the unknown setting '{}' = {}", where_, key, value.dump());
  return ok();
}

Result<Positions> read_positions(Settings& settings) {
  RAT_ASSIGN(const std::string name, settings.text("pos"));
  if (name != "rope" && name != "none")
    return fail(ErrorCode::unsupported, "{} have the unknown pos '{}'", settings.where(), name);
  return name == "rope" ? Positions::rope : Positions::none;
}

Status SharedSettings::read(Settings& settings) {
  for (const auto& [key, shared] : {std::pair{"groups", &groups}, std::pair{"kv_heads", &kv_heads}}) {
    if (!settings.has(key)) continue;
    RAT_ASSIGN(const int64_t value, settings.positive(key));
    if (*shared && **shared != value)
      return fail(ErrorCode::unsupported, "{} have {} = {} beside {} elsewhere; this build has one value per model",
                  settings.where(), key, value, **shared);
    *shared = value;
  }
  return ok();
}

void SharedSettings::apply(ModelConfig& config) const {
  config.groups = groups.value_or(2);  // the format's defaults
  config.kv_heads = kv_heads.value_or(0);
}

Status read_layer(Settings& settings, ModelConfig& config) {
  RAT_ASSIGN(const std::string kind, settings.text("kind"));
  RAT_ASSIGN(LayerConfig layer, default_layer(kind));
  const MixerType& type = **find_mixer_type(kind);
  if (type.uses_chunk) {
    RAT_ASSIGN(layer.chunk, settings.integer("chunk"));
  }
  // RAT+ without a dilation (or with null) is dense; its window and initial tokens are 0 unless given.
  if (type.uses_dilation) {
    const nlohmann::json* dilation = settings.find("dilation");
    if (dilation && !dilation->is_null()) {
      RAT_ASSIGN(layer.dilation, settings.positive("dilation"));
    }
  }
  if (type.uses_window && (!type.uses_dilation || settings.has("window"))) {
    RAT_ASSIGN(layer.window, settings.integer("window"));
  }
  if (type.uses_initial && settings.has("initial")) {
    RAT_ASSIGN(layer.initial, settings.integer("initial"));
  }
  if (settings.has("pos")) {
    RAT_ASSIGN(const Positions positions, read_positions(settings));
    if (type.uses_positions) layer.pos = positions;  // the others have none either way
  }
  config.layers.push_back(std::move(layer));
  return ok();
}

std::vector<int64_t> CaseTensors::shape(const std::string& what) const {
  const auto found = file_.tensors().find(prefix_ + what);
  return found == file_.tensors().end() ? std::vector<int64_t>{} : found->second.shape;
}

Result<std::string> CaseTensors::expect(const std::string& what, const std::vector<int64_t>& shape) {
  const std::string name = prefix_ + what;
  const auto found = file_.tensors().find(name);
  if (found == file_.tensors().end()) return fail(ErrorCode::not_found, "the tensor '{}' is missing", what);
  if (found->second.shape != shape)
    return fail(ErrorCode::shape_mismatch, "the tensor '{}' is {} instead of {}", what, shape_text(found->second.shape),
                shape_text(shape));
  read_.insert(name);
  return name;
}

Result<std::vector<float>> CaseTensors::floats(const std::string& what, const std::vector<int64_t>& shape) {
  RAT_ASSIGN(const std::string name, expect(what, shape));
  return file_.read_floats(name);
}

Result<std::vector<int32_t>> CaseTensors::ints(const std::string& what, const std::vector<int64_t>& shape) {
  RAT_ASSIGN(const std::string name, expect(what, shape));
  return file_.read_ints(name);
}

Status CaseTensors::load_parameters(std::span<Parameter> parameters) {
  std::vector<std::string> problems;
  std::set<std::string> known;
  for (const Parameter& parameter : parameters) {
    known.insert(prefix_ + "param/" + parameter.name);
    if (const auto found = expect("param/" + parameter.name, parameter.shape); !found)
      problems.push_back(found.error().message);
  }
  for (const auto& [name, tensor] : file_.tensors())
    if (name.starts_with(prefix_ + "param/") && !known.contains(name))
      problems.push_back(fmt::format("the tensor '{}' {} is no weight of this model", name.substr(prefix_.size()),
                                     shape_text(tensor.shape)));
  if (!problems.empty()) return fail(ErrorCode::shape_mismatch, "{}", fmt::join(problems, "; "));
  for (Parameter& parameter : parameters) {
    RAT_ASSIGN(const std::vector<float> values, floats("param/" + parameter.name, parameter.shape));
    std::ranges::copy(values, parameter.value.begin());
  }
  return ok();
}

Status CaseTensors::all_read() const {
  for (auto entry = file_.tensors().lower_bound(prefix_);
       entry != file_.tensors().end() && entry->first.starts_with(prefix_); ++entry)
    if (!read_.contains(entry->first) && !entry->first.starts_with(prefix_ + "probe/"))
      return fail(ErrorCode::unsupported, "the tensor '{}' is not part of the format",
                  entry->first.substr(prefix_.size()));
  return ok();
}

double relative_error(std::span<const float> a, std::span<const float> b) {
  RAT_CHECK(a.size() == b.size(), "errors are of equal shapes");
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double gap = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += gap * gap;
    size += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  if (difference == 0) return 0;  // also when both are zero
  if (size == 0) return std::isnan(difference) ? difference : std::numeric_limits<double>::infinity();
  return std::sqrt(difference) / std::sqrt(size);
}

void WorstError::add(double error, const std::string& what) {
  if (std::isnan(value_)) return;
  if (!(error <= value_)) {
    value_ = error;
    what_ = what;
  }
}

Status compare_gradients(CaseTensors& tensors, std::span<const Parameter> parameters, WorstError& worst) {
  for (const Parameter& parameter : parameters) {
    RAT_ASSIGN(const std::vector<float> expected, tensors.floats("grad/" + parameter.name, parameter.shape));
    worst.add(relative_error(parameter.grad, expected), "grad/" + parameter.name);
  }
  return ok();
}

bool within(const WorstError& worst, double bound, std::string_view group, std::string& reason) {
  if (worst.value() <= bound) return true;
  if (!reason.empty()) reason += "; ";
  reason += fmt::format("{} error {:.3g} of {} is over {:.0e}", group, worst.value(), worst.what(), bound);
  return false;
}

}  // namespace rat
