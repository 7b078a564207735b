#include "experiments/tasks/task_data.h"

#include <algorithm>

#include "experiments/spec_fields.h"
#include "experiments/tasks/memory_guard.h"

namespace rat {
namespace {

constexpr int64_t least_sequences = 32;  // fewer give no standard error worth printing

// The values of a data config by spec key, for comparing it with the defaults.
Json data_values(const DataConfig& config) {
  RunSpec spec;
  spec.data = config;
  Json values = Json::object();
  for (const SpecField& field : spec_fields())
    if (field.key.starts_with("data.")) values[field.key.substr(5)] = field.get(spec);
  return values;
}

Result<std::unique_ptr<DataSource>> open_longer(const TaskContext& context, const DataConfig& config, int64_t seq_len,
                                                const DataSource& own) {
  if (config.path == "-")
    return fail(ErrorCode::invalid_argument,
                "standard input can be read only once; put the text into a file to measure other lengths");
  RAT_ASSIGN(const DataConfig at_length, config_at_length(context, config, seq_len));
  RAT_ASSIGN(auto source,
             DataSource::open(at_length, context.spec.model, seq_len, context.spec.train.seed, context.stop));
  if (source->validation_size() > own.validation_size())
    return fail(ErrorCode::invalid_argument,
                "the validation part has {} tokens, too few for a sequence of {} that was not trained on",
                own.validation_size(), seq_len);
  return source;
}

// `own` is the data at the run's own length.
Result<LengthData> open_length(const TaskContext& context, int64_t seq_len, const DataSource& own, TaskData& data) {
  RAT_TRY(check_memory(context.spec.model, seq_len, memory_limit(context)));
  std::unique_ptr<DataSource> other;
  if (seq_len != context.spec.train.seq_len) {
    RAT_ASSIGN(other, open_longer(context, data.config, seq_len, own));
  }
  const DataSource* source = other ? other.get() : &own;
  const int64_t wanted = sequences_at(context, seq_len, least_sequences);
  LengthData result{seq_len, {}, source->answers()};
  RAT_ASSIGN(result.batches,
             source->validation(score_batch(context.spec.model, seq_len, memory_limit(context)), wanted * seq_len));
  if (const int64_t n = result.sequences(); n < wanted && context.options.sequences > 0)
    data.notes.push_back(fmt::format("T = {}: the validation part holds {} sequences, not {}", seq_len, n, wanted));
  return result;
}

bool changes_path(const TaskOptions& options) {
  return std::ranges::any_of(options.data, [](const auto& change) { return change.first == "data.path"; });
}

}  // namespace

int64_t LengthData::sequences() const {
  int64_t n = 0;
  for (const TokenBatch& batch : batches) n += batch.batch;
  return n;
}

std::vector<int64_t> lengths_around(int64_t seq_len) {
  std::vector<int64_t> lengths{seq_len, 2 * seq_len, 4 * seq_len};
  if (seq_len > 1) lengths.insert(lengths.begin(), seq_len / 2);
  return lengths;
}

Result<DataConfig> task_data_config(const TaskContext& context, std::string_view kind) {
  RunSpec spec = context.spec;
  if (!kind.empty() && spec.data.kind != kind) {
    spec.data = DataConfig{};
    spec.data.kind = std::string(kind);
  }
  for (const auto& [key, value] : context.options.data) {
    if (!key.starts_with("data.") || key == "data.kind")
      return fail(ErrorCode::invalid_argument,
                  "'{}' cannot be changed when a run is measured; only data settings such as data.pairs can", key);
    RAT_TRY(set_value(spec, key, value));
  }
  if (spec.data.path == "-" && !changes_path(context.options))
    return fail(ErrorCode::invalid_argument,
                "The run read its text from standard input, which is not kept: give it again with --data FILE.");
  return spec.data;
}

Result<DataConfig> config_at_length(const TaskContext& context, const DataConfig& config, int64_t seq_len) {
  DataConfig result = config;
  if (config.kind == "copy" && config.span > 0)
    result.span = std::max<int64_t>(1, config.span * seq_len / context.spec.train.seq_len);
  RAT_TRY(validate(result, context.spec.model, seq_len));
  return result;
}

int64_t memory_limit(const TaskContext& context) {
  return context.options.memory_bytes > 0 ? context.options.memory_bytes : available_memory_bytes() / 2;
}

int64_t sequences_at(const TaskContext& context, int64_t seq_len, int64_t least) {
  if (context.options.sequences > 0) return context.options.sequences;
  if (context.options.tokens > 0) return std::max<int64_t>(1, context.options.tokens / seq_len);
  return std::max(least, context.spec.train.eval_tokens / seq_len);
}

Result<TaskData> open_task_data(const TaskContext& context, std::string_view kind,
                                const std::vector<int64_t>& fallback_lengths) {
  TaskData data;
  RAT_ASSIGN(data.config, task_data_config(context, kind));
  RAT_TRY(validate(data.config, context.spec.model, context.spec.train.seq_len));
  RAT_ASSIGN(const auto own, DataSource::open(data.config, context.spec.model, context.spec.train.seq_len,
                                              context.spec.train.seed, context.stop));
  data.description = own->description();
  data.hash = own->hash();
  data.bytes = own->byte_tokens();
  RAT_TRY(for_each_length(context, fallback_lengths, data.notes, [&](int64_t length) -> Status {
    RAT_ASSIGN(LengthData one, open_length(context, length, *own, data));
    data.lengths.push_back(std::move(one));
    return ok();
  }));
  return data;
}

Result<TokenScores> score_task(const TaskContext& context, std::span<const TokenBatch> batches,
                               ScoreProgress& progress) {
  Model& model = context.model;
  if (context.options.through == Through::pass) return score(model, batches, progress.options());
  const int64_t T = batches.front().tokens;
  const int64_t together = decode_batch(model.config(), T, memory_limit(context));
  const auto decode = [&](std::optional<kernels::CacheDtype> cache) {
    model.set_cache_dtype(cache);
    auto scores = decode_scores(model, batches, together, progress.options());
    model.set_cache_dtype({});
    return scores;
  };
  RAT_ASSIGN(TokenScores scores, decode(context.options.cache));
  const auto own = model.start_decoding();
  RAT_TRY(model.decode(*own, batches.front().inputs.front()));
  TokenScores other;
  if (scores.cache == own->cache_dtype()) {
    RAT_ASSIGN(other, score(model, batches, progress.options()));
    scores.compared_with = "the parallel pass";
  } else {
    RAT_ASSIGN(other, decode({}));
    scores.compared_with = fmt::format("decoding with a cache in {}", other.cache);
  }
  scores.other_loss = std::move(other.loss);
  return scores;
}

void add_through(const TokenScores& scores, nlohmann::ordered_json& settings) {
  if (scores.other_loss.empty()) return;
  settings["through"] = "decode";
  settings["cache"] = scores.cache;
  settings["compared_with"] = scores.compared_with;
}

EvaluationPoint point_of(const std::string& metric, int64_t seq_len, const Estimate& estimate) {
  EvaluationPoint point;
  point.metric = metric;
  point.seq_len = seq_len;
  point.value = estimate.value;
  point.standard_error = estimate.standard_error;
  point.sequences = estimate.sequences;
  point.targets = estimate.targets;
  return point;
}

void add_overall_points(const LengthData& data, const TokenScores& scores, Evaluation& evaluation) {
  const Estimate loss = mean_loss(scores, 0, data.seq_len);
  evaluation.points.push_back(point_of("loss", data.seq_len, loss));
  evaluation.points.push_back(point_of("accuracy", data.seq_len, mean_accuracy(scores, 0, data.seq_len)));
  if (!scores.other_loss.empty())
    evaluation.points.push_back(
        point_of("loss_difference", data.seq_len, mean_loss_difference(scores, 0, data.seq_len)));
  if (data.answers.count == 0) return;
  const Estimate uniform{1 / static_cast<double>(data.answers.count), 0, loss.sequences, loss.targets};
  evaluation.points.push_back(point_of("chance", data.seq_len, uniform));
  evaluation.points.push_back(point_of("context_chance", data.seq_len, context_chance(data.batches, data.answers)));
}

nlohmann::ordered_json settings_of(const TaskData& data) {
  Json lengths = Json::array(), sequences = Json::array();
  for (const LengthData& one : data.lengths) lengths.push_back(one.seq_len), sequences.push_back(one.sequences());
  Json changed = Json::object();
  const Json values = data_values(data.config), fallback = data_values(DataConfig{});
  for (const auto& [name, value] : values.items())
    if (name == "kind" || value != fallback[name]) changed[name] = value;
  return {
      {"lengths", lengths}, {"sequences", sequences}, {"tokens_are", data.bytes ? "bytes" : "ids"}, {"data", changed}};
}

Result<Evaluation> measure_lengths(const TaskContext& context, std::string_view kind,
                                   const std::vector<int64_t>& fallback_lengths, const MorePoints& more) {
  RAT_ASSIGN(const TaskData data, open_task_data(context, kind, fallback_lengths));
  int64_t total = 0;
  for (const LengthData& one : data.lengths) total += one.sequences() * one.seq_len;
  ScoreProgress progress(context, total);
  Evaluation evaluation;
  Json settings = settings_of(data);
  evaluation.data_description = data.description;
  evaluation.data_hash = data.hash;
  evaluation.notes = data.notes;
  for (const LengthData& one : data.lengths) {
    RAT_ASSIGN(const TokenScores scores, score_task(context, one.batches, progress));
    add_overall_points(one, scores, evaluation);
    add_through(scores, settings);
    if (more) more(one, scores, evaluation);
  }
  evaluation.settings = settings.dump();
  return evaluation;
}

TaskSetting lengths_setting(std::string_view fallback) {
  return {"--lengths", fallback, "1 or more tokens each", "length of the sequences, in tokens"};
}

TaskSetting sequences_setting(std::string_view fallback) {
  return {"--sequences", fallback, "1 or more", "n, at each length"};
}

}  // namespace rat
