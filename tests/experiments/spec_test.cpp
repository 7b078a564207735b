// Run specs: what is accepted, what is refused and with which words, and that nothing is lost on the way through JSON.
#include <gtest/gtest.h>

#include <set>

#include "experiments/data/data_kinds.h"
#include "experiments/run_spec.h"

namespace rat {
namespace {

std::string error_of(const std::string& json) {
  const auto spec = parse_spec(json);
  return spec ? "(accepted)" : spec.error().message;
}

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is missing in: " << text;
}

TEST(RunSpec, MissingKeysTakeTheDefaults) {
  const auto spec = parse_spec("{}");
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec->train.steps, 1000);
  EXPECT_EQ(spec->model.layers.size(), 4u);
  EXPECT_EQ(spec->data.kind, "text");
}

TEST(RunSpec, CanonicalJsonRoundTripsEveryKey) {
  RunSpec spec;
  const std::vector<std::pair<std::string, std::string>> changes{{"name", "a \"quoted\" näme"},
                                                                 {"model.vocab", "512"},
                                                                 {"model.d_model", "96"},
                                                                 {"model.heads", "6"},
                                                                 {"model.groups", "3"},
                                                                 {"model.kv_heads", "2"},
                                                                 {"model.ffn_mult", "2"},
                                                                 {"model.pos", "none"},
                                                                 {"model.rope_base", "5000.5"},
                                                                 {"model.layers", "rat:8,swa:64*2,attention/nope,ratplus"},
                                                                 {"data.kind", "tokens"},
                                                                 {"data.path", "/tmp/ä b"},
                                                                 {"data.tokenizer", "/tmp/pieces.model"},
                                                                 {"data.validation_fraction", "0.25"},
                                                                 {"data.pairs", "6"},
                                                                 {"data.queries", "7"},
                                                                 {"data.span", "9"},
                                                                 {"train.steps", "77"},
                                                                 {"train.batch", "12"},
                                                                 {"train.accumulate", "3"},
                                                                 {"train.seq_len", "128"},
                                                                 {"train.lr", "1e-3"},
                                                                 {"train.betas", "0.8,0.99"},
                                                                 {"train.eps", "1e-7"},
                                                                 {"train.weight_decay", "0.05"},
                                                                 {"train.clip", "0.5"},
                                                                 {"train.warmup", "7"},
                                                                 {"train.schedule", "constant"},
                                                                 {"train.dilations", "1,64"},
                                                                 {"train.dtype", "bf16"},
                                                                 {"train.seed", "9223372036854775807"},
                                                                 {"train.eval_every", "11"},
                                                                 {"train.eval_tokens", "999"},
                                                                 {"train.checkpoint_every", "13"},
                                                                 {"train.probe_every", "17"},
                                                                 {"device", "cuda"}};
  ASSERT_EQ(changes.size(), spec_keys().size()) << "a key has no case here";
  for (const auto& [key, value] : changes) {
    const std::string before = to_json(spec);
    const Status status = set_value(spec, key, value);
    ASSERT_TRUE(status) << key << ": " << status.error().message;
    EXPECT_NE(to_json(spec), before) << key << " had no effect";
  }
  const auto again = parse_spec(to_json(spec));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(to_json(*again), to_json(spec));
  EXPECT_EQ(again->model, spec.model);
  EXPECT_EQ(again->data, spec.data);
  EXPECT_EQ(again->train.optimizer, spec.train.optimizer);
  EXPECT_EQ(again->train.seed, 9223372036854775807u);
  EXPECT_EQ(to_json(*parse_spec(to_json(spec, 2))), to_json(spec));
}

TEST(RunSpec, LayersAsListPatternOrBoth) {
  const auto list =
      parse_spec(R"({"model": {"layers": [{"kind": "rat", "chunk": 8}, {"kind": "swa", "window": 32}, "rnn*2"]}})");
  ASSERT_TRUE(list) << list.error().message;
  const auto pattern = parse_spec(R"({"model": {"layers": "rat:8,swa:32,(rnn)*2"}})");
  ASSERT_TRUE(pattern) << pattern.error().message;
  EXPECT_EQ(list->model.layers, pattern->model.layers);
  EXPECT_EQ(spec_hash(*list), spec_hash(*pattern));
  RunSpec typed;
  ASSERT_TRUE(set_value(typed, "model.layers", R"([{"kind":"rat","chunk":8},{"kind":"swa","window":32},"rnn*2"])"));
  EXPECT_EQ(typed.model.layers, list->model.layers);
}

TEST(RunSpec, LayerSettingsRoundTripAndMustMeanSomething) {
  const auto list = parse_spec(
      R"({"model": {"layers": [{"kind": "ratplus", "dilation": 8, "window": 4, "initial": 2}, {"kind": "ratplus"},
          {"kind": "swa", "window": 0, "pos": "none"}, {"kind": "rattention", "window": 512}, {"kind": "linear"}]}})");
  ASSERT_TRUE(list) << list.error().message;
  EXPECT_EQ(format_layers(list->model.layers), "ratplus:8/w4/s2,ratplus,swa:0/nope,rattention:512,linear");
  const auto again = parse_spec(to_json(*list));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->model, list->model);
  const auto layer_error = [](const std::string& layer) {
    return error_of(R"({"model": {"layers": [)" + layer + "]}}");
  };
  expect_contains(layer_error(R"({"kind": "swa", "dilation": 2})"), "model.layers[0].dilation means nothing");
  expect_contains(layer_error(R"({"kind": "attention", "window": 2})"), "means nothing to a layer of kind 'attention'");
  expect_contains(layer_error(R"({"kind": "rnn", "pos": "none"})"), "model.layers[0].pos means nothing");
  expect_contains(layer_error(R"({"kind": "rat", "pos": "alibi"})"), "\"rope\" or \"none\"");
  expect_contains(layer_error(R"({"kind": "ratplus", "dilation": 0})"), "must be at least 1");
  expect_contains(layer_error(R"({"kind": "ratpuls"})"), "did you mean 'ratplus'");
}

// A form shows each problem at its place, so all of them are found, each with its key.
TEST(RunSpec, ProblemsNameTheirKeys) {
  RunSpec spec;
  EXPECT_TRUE(problems(spec).empty());
  spec.model.heads = 3;
  spec.data.kind = "needle";
  spec.data.pairs = 100;
  spec.train.accumulate = 3;
  std::vector<std::string> keys;
  for (const SpecProblem& problem : problems(spec)) keys.push_back(problem.key);
  EXPECT_EQ(keys, (std::vector<std::string>{"model", "data", "train.accumulate"}));
  EXPECT_EQ(validate(spec).error().message, problems(spec).front().message);
  spec.data.queries = 0;  // out of its range: said alone, before anything that may rely on it
  ASSERT_EQ(problems(spec).size(), 1u);
  EXPECT_EQ(problems(spec).front().key, "data.queries");
}

// The list of kinds is what pickers and forms are made of: complete, and with defaults that can be trained on at once.
TEST(DataKinds, AreDescribedAndTrainable) {
  std::vector<std::string> keys;
  for (const DataKind& kind : data_kinds()) {
    SCOPED_TRACE(std::string(kind.name));
    EXPECT_FALSE(kind.title.empty() || kind.description.empty());
    EXPECT_TRUE(kind.description.ends_with('.'));
    RunSpec spec;
    spec.data.kind = kind.name;
    spec.model.vocab = kind.vocab;
    if (kind.files == DataFiles::tokens) {
      expect_contains(validate(spec).error().message, "data.path");
      spec.data.path = "/tmp/ids.bin";
    }
    const Status sound = validate(spec);
    EXPECT_TRUE(sound) << sound.error().message;
    for (const DataNumber& number : kind.numbers) {
      EXPECT_FALSE(number.title.empty() || number.meaning.empty()) << number.key;
      const int64_t before = spec.data.*number.value;
      EXPECT_TRUE(before >= number.low && before <= number.high) << number.key;
      for (const int64_t beyond : {number.low - 1, number.high + 1})
        EXPECT_FALSE(set_value(spec, number.key, std::to_string(beyond))) << number.key;
      ASSERT_TRUE(set_value(spec, number.key, std::to_string(number.high)));
      EXPECT_EQ(spec.data.*number.value, number.high) << number.key << " is not the key of its member";
      spec.data.*number.value = before;
      keys.emplace_back(number.key);
    }
  }
  const std::vector<DataNumber> all = data_numbers();
  EXPECT_EQ(std::set<std::string>(keys.begin(), keys.end()).size(), all.size()) << "each number once";
}

TEST(RunSpec, DilationsNeedARatplusLayer) {
  RunSpec spec;
  ASSERT_TRUE(set_value(spec, "train.dilations", "1,64"));
  EXPECT_EQ(spec.train.dilations, (std::vector<int64_t>{1, 64}));
  const Status refused = validate(spec);
  ASSERT_FALSE(refused);
  expect_contains(refused.error().message, "no layer of rat:16*4 is ratplus");
  ASSERT_TRUE(set_value(spec, "model.layers", "ratplus*4"));
  const Status fine = validate(spec);
  EXPECT_TRUE(fine) << (fine ? "" : fine.error().message);
  EXPECT_EQ(parse_spec(to_json(spec))->train.dilations, spec.train.dilations);
  EXPECT_FALSE(set_value(spec, "train.dilations", "0"));
  EXPECT_FALSE(set_value(spec, "train.dilations", "1,x"));
  ASSERT_TRUE(set_value(spec, "train.dilations", "[]"));
  EXPECT_TRUE(spec.train.dilations.empty());
}

TEST(RunSpec, UnknownKeysSuggestTheNearest) {
  expect_contains(error_of(R"({"train": {"step": 5}})"), "'train.step' is not a key");
  expect_contains(error_of(R"({"train": {"step": 5}})"), "did you mean 'train.steps'?");
  expect_contains(error_of(R"({"lr": 5})"), "did you mean 'train.lr'?");
  expect_contains(error_of(R"({"modle": {"heads": 4}})"), "'modle' is not a key");
  expect_contains(error_of(R"({"model": {"layers": [{"kind": "rat", "chnk": 4}]}})"), "model.layers[0].chnk");
  expect_contains(error_of(R"({"model": {"layers": [{"kind": "rat", "chnk": 4}]}})"), "did you mean 'chunk'?");
  RunSpec spec;
  const Status status = set_value(spec, "train.lrr", "1");
  ASSERT_FALSE(status);
  expect_contains(status.error().message, "did you mean 'train.lr'?");
  expect_contains(status.error().message, "model.layers");  // the list of valid keys
}

TEST(RunSpec, WrongTypesAndRangesNameTheKey) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"({"train": {"steps": "many"}})", "train.steps must be a whole number"},
      {R"({"train": {"steps": 1.5}})", "train.steps must be a whole number"},
      {R"({"train": {"steps": 0}})", "train.steps is 0; it must be at least 1"},
      {R"({"train": {"steps": 18446744073709551615}})", "train.steps is 18446744073709551615"},
      {R"({"train": {"lr": 0}})", "train.lr is 0; it must be more than 0"},
      {R"({"train": {"lr": null}})", "train.lr must be a number"},
      {R"({"train": {"betas": [0.9]}})", "train.betas must be a list of two numbers"},
      {R"({"train": {"betas": [0.9, 1.0]}})", "train.betas[1] is 1"},
      {R"({"train": {"schedule": "cosin"}})", "did you mean 'cosine'?"},
      {R"({"train": {"seed": -1}})", "train.seed is -1"},
      {R"({"train": 5})", "train must be an object"},
      {R"({"train": {"batch": 8, "accumulate": 3}})", "train.accumulate is 3; it must divide train.batch, which is 8"},
      {R"({"data": {"validation_fraction": 1}})", "data.validation_fraction is 1"},
      {R"({"data": {"kind": "txt"}})", "did you mean 'text'?"},
      {R"({"device": "gpu"})", "device is 'gpu'"},
      {R"({"model": {"pos": 3}})", "model.pos must be a text"},
      {R"({"model": {"layers": []}})", "model.layers is empty"},
      {R"({"model": {"layers": 3}})", "model.layers must be a list"},
      {R"({"model": {"layers": [{"chunk": 3}]}})", "model.layers[0] needs a \"kind\""},
      {R"({"model": {"layers": [{"kind": "attention", "chunk": 3}]}})", "model.layers[0].chunk means nothing"},
      {R"({"model": {"layers": [{"kind": "rat", "chunk": 0}]}})", "model.layers[0].chunk is 0"},
      {R"({"model": {"layers": "rta:16"}})", "model.layers: "},
      {R"([1, 2])", "must be a JSON object"},
      {R"({"train": {"steps": 5)", "not valid JSON"},
      {"", "not valid JSON"},
  };
  for (const auto& [json, part] : cases) expect_contains(error_of(json), part);
}

TEST(RunSpec, DuplicateKeysAreRefused) {
  expect_contains(error_of(R"({"train": {"steps": 5, "steps": 6}})"), "train.steps is given twice");
  expect_contains(error_of(R"({"name": "a", "name": "b"})"), "name is given twice");
  expect_contains(error_of(R"({"model": {"layers": [{"kind": "rat", "kind": "rnn"}]}})"),
                  "model.layers.kind is given twice");
}

TEST(RunSpec, HostileJsonIsRefusedNotObeyed) {
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "[";
  expect_contains(error_of(deep), "not valid JSON");
  expect_contains(error_of("{\"name\": \"" + std::string("\xff\xfe") + "\"}"), "not valid JSON");
  EXPECT_NE(error_of("{\"" + std::string(1000000, 'x') + "\": 1}"), "(accepted)");
}

TEST(RunSpec, AFailedSetLeavesTheSpecAlone) {
  RunSpec spec;
  const std::string before = to_json(spec);
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{{"train.steps", "ten"},
                                                                                   {"train.steps", ""},
                                                                                   {"train.lr", "nan"},
                                                                                   {"train.betas", "0.9"},
                                                                                   {"model.layers", "rat:"},
                                                                                   {"model.layers", "[{\"kind\":"},
                                                                                   {"data.kind", "x"},
                                                                                   {"train.batch", "1e99"}}) {
    EXPECT_FALSE(set_value(spec, key, value)) << key << "=" << value;
    EXPECT_EQ(to_json(spec), before) << key;
  }
}

TEST(RunSpec, WholeNumbersMayBeWrittenWithAnExponent) {
  RunSpec spec;
  ASSERT_TRUE(set_value(spec, "train.steps", "2e4"));
  EXPECT_EQ(spec.train.steps, 20000);
}

TEST(RunSpec, HashIgnoresNameAndSeedOnly) {
  RunSpec spec, other;
  other.name = "another";
  other.train.seed = 99;
  EXPECT_EQ(spec_hash(spec), spec_hash(other));
  other.train.optimizer.lr *= 2;
  EXPECT_NE(spec_hash(spec), spec_hash(other));
}

TEST(RunSpec, DiffShowsOnlyWhatDiffers) {
  RunSpec a, b;
  ASSERT_TRUE(set_value(b, "model.layers", "rnn*4"));
  ASSERT_TRUE(set_value(b, "train.lr", "0.5"));
  const auto rows = diff_specs({to_json(a), to_json(b), to_json(a)});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].key, "model.layers");
  EXPECT_EQ(rows[0].values, (std::vector<std::string>{"rat:16*4", "rnn*4", "rat:16*4"}));
  EXPECT_EQ(rows[1].key, "train.lr");
  EXPECT_TRUE(diff_specs({to_json(a), to_json(a)}).empty());
  EXPECT_FALSE(diff_specs({to_json(a), "not json"}).empty());
}

}  // namespace
}  // namespace rat
