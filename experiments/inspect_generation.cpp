// The generation half of InspectSession: prompts, tokens and the traces that follow them.
#include <algorithm>

#include "experiments/inspect_impl.h"

namespace rat {
namespace {

constexpr auto publish_interval = std::chrono::milliseconds(16);
constexpr auto follow_interval = std::chrono::milliseconds(100);

// What a device throws: its memory is full, or it has failed.
template <class Work>
auto without_throwing(const std::string& device, const Work& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::exception& error) {
    return fail(ErrorCode::device_failure, "The {} device could not generate this ({}); try fewer tokens or samples{}.",
                device, error.what(), device == "cpu" ? "" : ", or the cpu device");
  }
}

}  // namespace

// A new prompt, or more tokens for the one there is. Returns whether there was a prompt.
bool InspectSession::Impl::take_prompt() {
  std::optional<InspectPrompt> prompt;
  int64_t more = 0;
  {
    const std::lock_guard lock(mutex);
    if (!wishes.stop_generation) generation_stop.reset();
    prompt = std::exchange(wishes.prompt, std::nullopt);
    more = std::exchange(wishes.more, 0);
  }
  if (prompt) {
    prompt->count += more;
    start_generation(*prompt);
  } else if (more > 0 && generation) {
    remaining += more;
  } else if (more > 0) {
    publish_generation("There is nothing to continue; start from a prompt.", true);
  }
  return prompt.has_value();
}

void InspectSession::Impl::start_generation(const InspectPrompt& prompt) {
  remaining = 0;
  shown_sample = 0;
  generation.reset();
  if (!model) return publish_generation("No run is open; choose one first.", true);
  const std::string before = device;
  auto started = without_throwing(prompt.config.device, [&]() -> Result<std::unique_ptr<Generation>> {
    RAT_ASSIGN(std::vector<int32_t> tokens, typed_tokens(prompt.text));
    RAT_TRY(move_to(prompt.config.device));
    return Generation::start(*model, std::move(tokens), prompt.config, &generation_stop);
  });
  if (!started) {
    const bool cancelled = started.error().code == ErrorCode::cancelled;
    if (!cancelled) (void)move_to(before);  // what is looked at should not stay where it cannot be computed
    return publish_generation(cancelled ? "Stopped while reading the prompt." : started.error().message, !cancelled);
  }
  generation = *std::move(started);
  remaining = prompt.count;
  publish_generation();
  follow_with_trace(remaining == 0);
}

// Another sample to look at. Returns whether one was asked for.
bool InspectSession::Impl::take_sample() {
  const std::lock_guard lock(mutex);
  const std::optional<int64_t> sample = std::exchange(wishes.sample, std::nullopt);
  if (!sample || !generation) return false;
  shown_sample = std::clamp<int64_t>(*sample, 0, generation->samples() - 1);
  wishes.trace = wishes.trace || wishes.follow;
  return true;
}

void InspectSession::Impl::generate_one() {
  const Status next = without_throwing(device, [&] { return generation->next(*model); });
  if (!next) {
    remaining = 0;
    return publish_generation(next.error().message, true);
  }
  --remaining;
  if (remaining == 0 || InspectClock::now() - generation_published >= publish_interval) publish_generation();
  follow_with_trace(remaining == 0);
}

// Traces grow with the text, so while tokens stream they get at most about a third of the time; the last is always
// traced.
void InspectSession::Impl::follow_with_trace(bool last) {
  if (!follow || request.items.empty()) return;
  const auto rest = std::max<InspectClock::duration>(
      follow_interval, std::chrono::microseconds(static_cast<int64_t>(2000 * follow_cost_ms)));
  if (!last && InspectClock::now() - followed_at < rest) return;
  {
    const std::lock_guard lock(mutex);
    if (wishes.quit || wishes.source || wishes.stop_generation || wishes.prompt) return;  // another trace follows
    trace_stop.reset();
  }
  const Stopwatch watch;
  update_trace();
  follow_cost_ms = watch.ms();
  followed_at = InspectClock::now();
}

void InspectSession::Impl::publish_generation(const std::string& message, bool is_error) {
  auto next = std::make_shared<GenerationStatus>();
  next->run_id = run_id;
  next->step = step;
  next->tokenizer = tokenizer;
  if (generation) generation->fill(*next, shown_sample);
  next->running = remaining > 0;
  next->message = message;
  next->message_is_error = is_error;
  generation_status.publish(std::move(next));
  generation_published = InspectClock::now();
}

}  // namespace rat
