// The rows of `rat bench --json`, out and in.
#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/bench/bench.h"

namespace rat {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const BenchRow& row) {
  Json json{{"what", row.what},
            {"of", row.whole_model ? "model" : "layer"},
            {"layers", row.layers},
            {"kind", row.kind},
            {"chunk", row.chunk},
            {"window", row.window},
            {"seq_len", row.seq_len},
            {"batch", row.batch},
            {"d_model", row.d_model},
            {"heads", row.heads},
            {"groups", row.groups},
            {"kv_heads", row.kv_heads},
            {"dtype", row.dtype},
            {"device", row.device},
            {"repetitions", row.repetitions},
            {"median_ms", row.median_ms},
            {"q1_ms", row.q1_ms},
            {"q3_ms", row.q3_ms},
            {"tokens_per_s", row.tokens_per_s}};
  if (!row.cache.empty()) json["cache"] = row.cache;
  json["peak_bytes"] = row.peak_bytes ? Json(*row.peak_bytes) : Json(nullptr);
  Json ops = Json::object();
  for (std::size_t op = 0; op < row.op_ms.ms.size(); ++op)
    if (row.op_ms.ms[op] > 0) ops[std::string(op_names[op])] = row.op_ms.ms[op];
  if (!ops.empty()) json["op_ms"] = std::move(ops);
  return json;
}

// What a value must be, said when it is not.
Status read(const Json& row, const char* key, std::string& value) {
  const auto found = row.find(key);
  if (found == row.end() || !found->is_string()) return fail(ErrorCode::corrupt_data, "no text '{}'", key);
  value = found->get<std::string>();
  return ok();
}

Status read(const Json& row, const char* key, int64_t least, int64_t& value) {
  const auto found = row.find(key);
  if (found == row.end() || !found->is_number_integer() || found->get<int64_t>() < least)
    return fail(ErrorCode::corrupt_data, "no whole number '{}' of at least {}", key, least);
  value = found->get<int64_t>();
  return ok();
}

Status read(const Json& row, const char* key, double& value) {
  const auto found = row.find(key);
  if (found == row.end() || !found->is_number() || !(found->get<double>() > 0))
    return fail(ErrorCode::corrupt_data, "no number '{}' above 0", key);
  value = found->get<double>();
  return ok();
}

Result<BenchRow> parse_row(const Json& json) {
  if (!json.is_object()) return fail(ErrorCode::corrupt_data, "no named values");
  BenchRow row;
  std::string of;
  RAT_TRY(read(json, "what", row.what));
  RAT_TRY(read(json, "of", of));
  row.whole_model = of == "model";
  RAT_TRY(read(json, "layers", row.layers));
  RAT_TRY(read(json, "kind", row.kind));
  RAT_TRY(read(json, "dtype", row.dtype));
  RAT_TRY(read(json, "device", row.device));
  if (json.contains("cache")) RAT_TRY(read(json, "cache", row.cache));
  for (const auto& [key, least, target] : {std::tuple{"chunk", 0, &row.chunk},
                                           {"window", 0, &row.window},
                                           {"seq_len", 1, &row.seq_len},
                                           {"batch", 1, &row.batch},
                                           {"d_model", 1, &row.d_model},
                                           {"heads", 1, &row.heads},
                                           {"groups", 0, &row.groups},
                                           {"kv_heads", 0, &row.kv_heads},
                                           {"repetitions", 1, &row.repetitions}})
    RAT_TRY(read(json, key, least, *target));
  for (const auto& [key, target] : {std::pair{"median_ms", &row.median_ms},
                                    {"q1_ms", &row.q1_ms},
                                    {"q3_ms", &row.q3_ms},
                                    {"tokens_per_s", &row.tokens_per_s}})
    RAT_TRY(read(json, key, *target));
  if (!(row.q1_ms <= row.median_ms && row.median_ms <= row.q3_ms))
    return fail(ErrorCode::corrupt_data, "a median outside its quartiles");
  if (json.contains("peak_bytes") && !json["peak_bytes"].is_null()) {
    row.peak_bytes.emplace();
    RAT_TRY(read(json, "peak_bytes", 0, *row.peak_bytes));
  }
  return row;
}

}  // namespace

std::string to_json(const std::vector<BenchRow>& rows) {
  Json out = Json::array();
  for (const BenchRow& row : rows) out.push_back(to_json(row));
  return out.dump(2);
}

Result<std::vector<BenchRow>> parse_bench_rows(std::string_view text, std::string_view source) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_array())
    return fail(ErrorCode::corrupt_data, "{} is not what `rat bench --json` prints: {}.", source,
                json.is_discarded() ? "it is not JSON" : "it is not a list of rows");
  std::vector<BenchRow> rows;
  for (const Json& one : json) {
    Result<BenchRow> row = parse_row(one);
    if (!row)
      return fail(ErrorCode::corrupt_data, "{} is not what `rat bench --json` of this version prints: row {} has {}.",
                  source, rows.size() + 1, row.error().message);
    rows.push_back(*std::move(row));
  }
  return rows;
}

}  // namespace rat
