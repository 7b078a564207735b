#include "app/window/run_filter.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

namespace rat::app {
namespace {

using Numbers = std::vector<double>;  // several when a run has several, e.g. one chunk length a layer

struct Field {
  const char* name;
  const char* meaning;
  Numbers (*numbers)(const RunRow& run, const RunSpec* spec);  // null: a text
  std::string (*text)(const RunRow& run, const RunSpec* spec);
  bool needs_spec;
};

Numbers metric(const RunRow& run, const char* name) {
  const auto at = run.metrics.find(name);
  return at == run.metrics.end() ? Numbers{} : Numbers{at->second.last};
}

Numbers layer_values(const RunSpec* spec, const char* kind, int64_t LayerConfig::*value) {
  Numbers all;
  if (!spec) return all;
  for (const LayerConfig& layer : spec->model.layers)
    if (layer.kind == kind) all.push_back(static_cast<double>(layer.*value));
  return all;
}

Numbers one(double value) { return {value}; }

std::string joined_tags(const RunRow& run) {
  std::string all;
  for (const std::string& tag : run.tags) all += tag + " ";
  return all;
}

using Row = const RunRow&;
using Spec = const RunSpec*;
constexpr Field fields[] = {
    {"loss", "validation loss, nats", [](Row r, Spec) { return metric(r, "val_loss"); }, nullptr, false},
    {"val_loss", "the same", [](Row r, Spec) { return metric(r, "val_loss"); }, nullptr, false},
    {"train_loss", "training loss, nats", [](Row r, Spec) { return metric(r, "loss"); }, nullptr, false},
    {"accuracy", "validation accuracy, share", [](Row r, Spec) { return metric(r, "val_accuracy"); }, nullptr, false},
    {"train", "training tokens/s", [](Row r, Spec) { return metric(r, "tokens_per_s"); }, nullptr, false},
    {"prefill", "prefill tokens/s", [](Row r, Spec) { return metric(r, "prefill_tokens_per_s"); }, nullptr, false},
    {"decode", "decode tokens/s", [](Row r, Spec) { return metric(r, "decode_tokens_per_s"); }, nullptr, false},
    {"cache", "cache bytes", [](Row r, Spec) { return metric(r, "cache_bytes"); }, nullptr, false},
    {"steps", "steps done", [](Row r, Spec) { return one(static_cast<double>(r.steps_done)); }, nullptr, false},
    {"seed", "seed", [](Row r, Spec) { return one(static_cast<double>(r.seed)); }, nullptr, false},
    {"chunk", "chunk length of any rat layer", [](Row, Spec s) { return layer_values(s, "rat", &LayerConfig::chunk); },
     nullptr, true},
    {"window", "window of any swa layer", [](Row, Spec s) { return layer_values(s, "swa", &LayerConfig::window); },
     nullptr, true},
    {"width", "model width D", [](Row, Spec s) { return s ? one(static_cast<double>(s->model.d_model)) : Numbers{}; },
     nullptr, true},
    {"heads", "heads H", [](Row, Spec s) { return s ? one(static_cast<double>(s->model.heads)) : Numbers{}; }, nullptr,
     true},
    {"depth", "number of layers",
     [](Row, Spec s) { return s ? one(static_cast<double>(s->model.layers.size())) : Numbers{}; }, nullptr, true},
    {"context", "sequence length T",
     [](Row, Spec s) { return s ? one(static_cast<double>(s->train.seq_len)) : Numbers{}; }, nullptr, true},
    {"lr", "peak learning rate", [](Row, Spec s) { return s ? one(s->train.optimizer.lr) : Numbers{}; }, nullptr, true},
    {"batch", "sequences a step", [](Row, Spec s) { return s ? one(static_cast<double>(s->train.batch)) : Numbers{}; },
     nullptr, true},
    {"name", "name", nullptr, [](Row r, Spec) { return r.name; }, false},
    {"tag", "tags", nullptr, [](Row r, Spec) { return joined_tags(r); }, false},
    {"layers", "layer pattern", nullptr, [](Row r, Spec) { return r.layers; }, false},
    {"state", "queued, running, finished, stopped, crashed, failed", nullptr,
     [](Row r, Spec) { return std::string(run_state_name(r.state)); }, false},
    {"data", "data", nullptr, [](Row r, Spec) { return r.data_description; }, false},
    {"commit", "commit", nullptr, [](Row r, Spec) { return r.commit; }, false},
};

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

bool contains(const std::string& text, const std::string& lower_word) {
  return lower(text).find(lower_word) != std::string::npos;
}

struct Token {
  enum class Kind { word, quoted, op, open, close, end } kind;
  std::string text;
  std::size_t at;
};

Result<std::vector<Token>> tokenize(std::string_view text) {
  std::vector<Token> tokens;
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (std::isspace(static_cast<unsigned char>(c))) {
      ++i;
      continue;
    }
    if (c == '(' || c == ')') {
      tokens.push_back({c == '(' ? Token::Kind::open : Token::Kind::close, std::string(1, c), i++});
    } else if (c == '"') {
      const std::size_t end = text.find('"', i + 1);
      if (end == std::string_view::npos)
        return fail(ErrorCode::invalid_argument, "The quote at character {} is not closed; add a \".", i + 1);
      tokens.push_back({Token::Kind::quoted, std::string(text.substr(i + 1, end - i - 1)), i});
      i = end + 1;
    } else if (std::string_view("<>=!~").find(c) != std::string_view::npos) {
      const std::size_t length = i + 1 < text.size() && text[i + 1] == '=' ? 2 : 1;
      tokens.push_back({Token::Kind::op, std::string(text.substr(i, length)), i});
      i += length;
    } else {
      std::size_t end = i;
      while (end < text.size() && !std::isspace(static_cast<unsigned char>(text[end])) &&
             std::string_view("()<>=!~\"").find(text[end]) == std::string_view::npos)
        ++end;
      tokens.push_back({Token::Kind::word, std::string(text.substr(i, end - i)), i});
      i = end;
    }
  }
  tokens.push_back({Token::Kind::end, "", text.size()});
  return tokens;
}

// 1.5, 16, 2e-4, 61.3k, 0.5M, inf
std::optional<double> parse_number(std::string text) {
  double factor = 1;
  if (text.size() > 1 && !std::isdigit(static_cast<unsigned char>(text.back()))) {
    const char unit = text.back();
    if (unit == 'k' || unit == 'K') factor = 1e3;
    if (unit == 'M') factor = 1e6;
    if (unit == 'G') factor = 1e9;
    if (factor != 1) text.pop_back();
  }
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value * factor;
}

bool compare(double value, const std::string& op, double bound) {
  if (op == "<") return value < bound;
  if (op == "<=") return value <= bound;
  if (op == ">") return value > bound;
  if (op == ">=") return value >= bound;
  const bool equal = value == bound || (std::isnan(value) && std::isnan(bound));
  return op == "!=" ? !equal : equal;
}

using Test = std::function<bool(const RunRow&, const RunSpec*)>;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  bool needs_spec = false;

  Result<Test> parse() {
    RAT_ASSIGN(Test test, either());
    if (peek().kind != Token::Kind::end)
      return fail(ErrorCode::invalid_argument, "Unexpected \"{}\" at character {}; remove it or add an \"and\".",
                  peek().text, peek().at + 1);
    return test;
  }

 private:
  const Token& peek() const { return tokens_[next_]; }
  Token take() { return tokens_[next_ + 1 < tokens_.size() ? next_++ : next_]; }
  bool is_word(const char* word) const { return peek().kind == Token::Kind::word && lower(peek().text) == word; }

  Result<Test> either() {
    RAT_ASSIGN(Test left, both());
    while (is_word("or")) {
      take();
      RAT_ASSIGN(Test right, both());
      left = [left, right](Row r, Spec s) { return left(r, s) || right(r, s); };
    }
    return left;
  }

  // `and` may be left out between two conditions.
  Result<Test> both() {
    RAT_ASSIGN(Test left, condition());
    while (peek().kind != Token::Kind::end && peek().kind != Token::Kind::close && !is_word("or")) {
      if (is_word("and")) take();
      RAT_ASSIGN(Test right, condition());
      left = [left, right](Row r, Spec s) { return left(r, s) && right(r, s); };
    }
    return left;
  }

  Result<Test> condition() {
    const Token token = take();
    if (token.kind == Token::Kind::open) {
      RAT_ASSIGN(Test inside, either());
      if (take().kind != Token::Kind::close)
        return fail(ErrorCode::invalid_argument, "The parenthesis at character {} is not closed; add a ).",
                    token.at + 1);
      return inside;
    }
    if (token.kind == Token::Kind::word && lower(token.text) == "not") {
      RAT_ASSIGN(Test test, condition());
      return Test([test](Row r, Spec s) { return !test(r, s); });
    }
    if (token.kind != Token::Kind::word && token.kind != Token::Kind::quoted)
      return fail(ErrorCode::invalid_argument, "A word or a field is missing at character {}, as in loss < 1.5.",
                  token.at + 1);
    if (peek().kind == Token::Kind::op) return comparison(token);
    return word(token.text);
  }

  static Test word(const std::string& text) {
    return [word = lower(text)](Row r, Spec) {
      return contains(r.name, word) || contains(joined_tags(r), word) || contains(r.layers, word) ||
             contains(std::string(run_state_name(r.state)), word) || contains(r.id, word);
    };
  }

  Result<Test> comparison(const Token& name) {
    const Field* field = nullptr;
    for (const Field& one : fields)
      if (lower(name.text) == one.name) field = &one;
    if (!field) {
      std::string known;
      for (const Field& one : fields) known += std::string(known.empty() ? "" : ", ") + one.name;
      return fail(ErrorCode::invalid_argument, "There is no field \"{}\"; the fields are {}.", name.text, known);
    }
    needs_spec |= field->needs_spec;
    const std::string op = take().text;
    const Token value = take();
    if (value.kind != Token::Kind::word && value.kind != Token::Kind::quoted)
      return fail(ErrorCode::invalid_argument, "A value is missing after \"{} {}\".", name.text, op);
    if (field->text) return text_test(*field, op, lower(value.text));
    const std::optional<double> number = parse_number(value.text);
    if (!number || op == "~")
      return fail(ErrorCode::invalid_argument, "\"{}\" needs a number after <, <=, =, !=, >= or >, not \"{}\".",
                  name.text, value.text);
    return Test([field, op, bound = *number](Row r, Spec s) {
      const Numbers values = field->numbers(r, s);
      return std::any_of(values.begin(), values.end(), [&](double v) { return compare(v, op, bound); });
    });
  }

  static Result<Test> text_test(const Field& field, const std::string& op, const std::string& value) {
    if (op != "=" && op != "==" && op != "!=" && op != "~")
      return fail(ErrorCode::invalid_argument, "\"{}\" is a text: use =, != or ~ (contains), not {}.", field.name, op);
    return Test([&field, op, value](Row r, Spec s) {
      const std::string text = lower(field.text(r, s));
      if (op == "~") return text.find(value) != std::string::npos;
      const bool equal = text == value || (std::string_view(field.name) == "tag" &&
                                           (" " + text).find(" " + value + " ") != std::string::npos);
      return op == "!=" ? !equal : equal;
    });
  }

  std::vector<Token> tokens_;
  std::size_t next_ = 0;
};

}  // namespace

Result<RunFilter> parse_run_filter(std::string_view text) {
  RAT_ASSIGN(std::vector<Token> tokens, tokenize(text));
  if (tokens.size() == 1) return RunFilter{[](const RunRow&, const RunSpec*) { return true; }, false};
  Parser parser(std::move(tokens));
  RAT_ASSIGN(Test test, parser.parse());
  return RunFilter{std::move(test), parser.needs_spec};
}

const std::vector<FilterField>& filter_fields() {
  static const std::vector<FilterField> all = [] {
    std::vector<FilterField> list;
    for (const Field& field : fields) list.push_back({field.name, field.meaning});
    return list;
  }();
  return all;
}

}  // namespace rat::app
