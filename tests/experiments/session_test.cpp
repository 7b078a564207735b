// The worker threads as a window uses them: commands answered within 100 ms, truthful status, errors as sentences.
#include "tests/experiments/session_fixture.h"

namespace rat {
namespace {

TEST_F(Session, WorksThroughItsQueueAndSurvivesRefusedRuns) {
  session_->enqueue(tiny_spec(text_, "rat:8*2", 12), "sweep");
  session_->enqueue(tiny_spec(folder_ / "absent.txt", "rnn", 12));
  RunSpec cuda = tiny_spec(text_, "rnn", 12);
  cuda.device = "cuda";
  session_->enqueue(cuda);
  session_->enqueue(tiny_spec(text_, "rnn", 12));
  ASSERT_TRUE(wait_for([&] {
    return is(SessionActivity::idle) && status()->queue.empty() && runs().size() == 4 &&
           runs()[0].state == RunState::finished;
  }));
  const auto all = runs();  // newest first
  EXPECT_EQ(all[3].state, RunState::finished);
  EXPECT_EQ(all[3].sweep_id, "sweep");
  EXPECT_EQ(all[2].state, RunState::failed);
  EXPECT_NE(all[2].error.find("absent.txt"), std::string::npos);
  if (all[1].state != RunState::finished) {  // a machine with a GPU has nothing to refuse
    EXPECT_EQ(all[1].state, RunState::failed);
    EXPECT_NE(all[1].error.find("cpu"), std::string::npos) << all[1].error;
  }
  EXPECT_NE(status()->message.find("finished"), std::string::npos) << status()->message;
}

// A run is in the queue on screen when the call returns, though the session is in the middle of a step.
TEST_F(Session, AnEnqueuedRunIsSeenAtOnce) {
  session_->enqueue(slow_spec());
  EXPECT_EQ(status()->queue.size(), 1u);
  ASSERT_TRUE(wait_for([&] { return status()->step >= 1; }));
  RunSpec next = tiny_spec(text_, "rnn", 12);
  next.name = "the next one";
  for (int i = 0; i < 3; ++i) {
    const auto start = Clock::now();
    session_->enqueue(next);
    ASSERT_EQ(status()->queue.size(), static_cast<std::size_t>(i) + 1);
    EXPECT_EQ(status()->queue.back().name, "the next one");
    EXPECT_LT(ms_since(start), reaction_limit_ms / 10);
  }
  ASSERT_TRUE(wait_for([&] { return !status()->queue.back().run_id.empty(); }));
  EXPECT_EQ(status()->queue.size(), 3u) << "neither twice nor lost when the session takes it";
  session_->stop_all();
  ASSERT_TRUE(wait_for([&] { return is(SessionActivity::idle) && status()->queue.empty(); }));
}

TEST_F(Session, EvaluationsAreShownWhenTheyHappen) {
  RunSpec spec = endless();
  spec.train.eval_every = 3;
  spec.train.eval_tokens = 4096;
  session_->enqueue(spec);
  int64_t evaluated_at = 0;
  ASSERT_TRUE(wait_for([&] {
    const auto now = status();
    if (now->activity == SessionActivity::evaluating) evaluated_at = now->step;
    return evaluated_at > 0;
  }));
  EXPECT_LT(evaluated_at, 1000) << "not the last one of the run";
  ASSERT_TRUE(wait_for([&] { return is(SessionActivity::training); })) << "and then it trains on";
  session_->stop();
  ASSERT_TRUE(wait_for([&] { return is(SessionActivity::idle); }));
}

TEST_F(Session, PauseStepStopAnswerWithinTheLimit) {
  for (const RunSpec& spec : {endless(), slow_spec()}) {
    session_->enqueue(spec);
    ASSERT_TRUE(wait_for([&] { return status()->step >= 1; }));
    auto start = Clock::now();
    session_->pause();
    ASSERT_TRUE(wait_for([&] { return is(SessionActivity::paused); }));
    EXPECT_LT(ms_since(start), reaction_limit_ms);
    RecordProperty("pause_ms", std::to_string(ms_since(start)));
    std::printf("pause %.1f ms, ", ms_since(start));
    const int64_t paused_at = status()->step;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(status()->step, paused_at);

    session_->step();
    ASSERT_TRUE(wait_for([&] { return status()->step == paused_at + 1 && is(SessionActivity::paused); }));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(status()->step, paused_at + 1) << "one step, not more";

    session_->unpause();
    ASSERT_TRUE(wait_for([&] { return status()->step > paused_at + 1; }));
    start = Clock::now();
    session_->stop();
    ASSERT_TRUE(wait_for([&] { return is(SessionActivity::idle); }));
    std::printf("stop %.1f ms\n", ms_since(start));
    EXPECT_LT(ms_since(start), reaction_limit_ms);
    const RunRow run = runs().front();
    EXPECT_EQ(run.state, RunState::stopped);
    EXPECT_FALSE(run.checkpoint.empty());
    EXPECT_EQ(run.metrics.at("loss").last_step, run.steps_done);
  }
}

TEST_F(Session, StatusIsPublishedTenTimesASecond) {
  session_->enqueue(endless());
  ASSERT_TRUE(wait_for([&] { return status()->step > 20; }));
  const TrainingStatus* last = nullptr;
  int changes = 0;
  const auto start = Clock::now();
  while (ms_since(start) < 1000) {
    const auto now = status();
    changes += now.get() != last;
    last = now.get();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_GE(changes, 10);
  EXPECT_GT(status()->tokens_per_s_median, 0);
  EXPECT_GE(status()->step_ms_q3, status()->step_ms_q1);
  EXPECT_GT(status()->remaining_s, 0);
  EXPECT_GT(status()->op_ms_per_step[Op::gemm], 0);
  EXPECT_GT(status()->peak_bytes, 0);
}

TEST_F(Session, AResumedRunGoesOn) {
  session_->enqueue(tiny_spec(text_, "rat:8*2", 400));
  ASSERT_TRUE(wait_for([&] { return status()->step >= 5; }));
  session_->stop();
  ASSERT_TRUE(wait_for([&] { return is(SessionActivity::idle); }));
  const RunRow stopped = runs().front();
  ASSERT_EQ(stopped.state, RunState::stopped);
  session_->resume_run(stopped);
  ASSERT_TRUE(wait_for([&] { return runs().front().state == RunState::finished; }));
  EXPECT_EQ(runs().size(), 1u);
  EXPECT_EQ(runs().front().steps_done, 400);
  EXPECT_EQ(runs().front().metrics.at("loss").count, 400);
}

TEST_F(Session, QueuedRunsCanBeRemovedAndAllStopped) {
  session_->enqueue(endless());
  ASSERT_TRUE(wait_for([&] { return status()->step >= 1; }));
  session_->enqueue(tiny_spec(text_, "rnn", 5));
  session_->enqueue(tiny_spec(text_, "rnn*2", 5));
  // Announced at once, stored (and then removable) when the session has time for it.
  ASSERT_TRUE(wait_for([&] { return status()->queue.size() == 2 && !status()->queue[0].run_id.empty(); }));
  session_->remove_queued(status()->queue[0].run_id);
  ASSERT_TRUE(wait_for([&] { return status()->queue.size() == 1; }));
  EXPECT_EQ(status()->queue[0].layers, "rnn*2");
  session_->stop_all();
  ASSERT_TRUE(wait_for([&] { return is(SessionActivity::idle) && status()->queue.empty(); }));
  for (const RunRow& run : runs()) EXPECT_EQ(run.state, RunState::stopped) << run.name;
}

TEST_F(Session, ClosingStopsAtACheckpoint) {
  session_->enqueue(slow_spec());
  session_->enqueue(endless());
  ASSERT_TRUE(wait_for([&] { return status()->step >= 1; }));
  const auto start = Clock::now();
  session_.reset();
  EXPECT_LT(ms_since(start), 3 * reaction_limit_ms);
  const auto all = runs();
  EXPECT_EQ(all[0].state, RunState::stopped);
  EXPECT_EQ(all[1].state, RunState::stopped);
  EXPECT_FALSE(all[1].checkpoint.empty());
}

TEST_F(Session, ProbesShowTheLiveRunAndKeepToTheirBudget) {
  session_->set_probes({{{Probe::gate, -1}, {Probe::attention, 0}}}, 16, 0.02);
  session_->enqueue(endless());
  ASSERT_TRUE(wait_for([&] { return session_->trace()->serial > 0; }));
  const auto first = session_->trace();
  EXPECT_EQ(first->token_count(), 16);
  EXPECT_EQ(first->source, "validation text");
  EXPECT_NE(first->find(Probe::gate, 1), nullptr);
  EXPECT_EQ(first->find(Probe::residual, 0), nullptr);
  ASSERT_TRUE(wait_for([&] { return session_->trace()->serial > first->serial; }));
  EXPECT_GT(session_->trace()->step, first->step);
  ASSERT_TRUE(wait_for([&] { return status()->elapsed_s > 2; }));
  // 300 ms may be spent ahead on a new request, and one trace may cost more than the one it was planned from.
  EXPECT_LT(status()->probe_share * status()->elapsed_s, 0.02 * status()->elapsed_s + 0.35);

  session_->pause();
  ASSERT_TRUE(wait_for([&] { return is(SessionActivity::paused); }));
  const uint64_t serial = session_->trace()->serial;
  session_->set_probes({{{Probe::residual, 0}}}, 8, 0.02);
  ASSERT_TRUE(wait_for([&] { return session_->trace()->serial > serial; })) << "a paused run answers too";
  EXPECT_NE(session_->trace()->find(Probe::residual, 0), nullptr);
}

TEST_F(Session, WithoutProbesNothingIsSpent) {
  session_->enqueue(tiny_spec(text_, "rat:8*2", 50));
  ASSERT_TRUE(wait_for([&] { return !runs().empty() && runs().front().state == RunState::finished; }));
  EXPECT_EQ(session_->trace()->serial, 0u);
  EXPECT_FALSE(runs().front().metrics.contains("probe_ms"));
}

}  // namespace
}  // namespace rat
