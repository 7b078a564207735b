#include "tests/experiments/store_scenario.h"

#include <cstdio>

#include "experiments/store/migrations.h"
#include "tests/experiments/store_fixture.h"

namespace rat {
namespace {

Status twice(std::vector<std::string>& problems, const std::function<Status()>& step) {
  Status done = step();
  if (done) return done;
  problems.push_back(done.error().message);
  return step();
}

}  // namespace

Status run_scenario(const std::filesystem::path& db, const std::function<void(const Promised&)>& promise,
                    std::vector<std::string>& problems) {
  std::unique_ptr<StoreWriter> writer;
  RAT_TRY(twice(problems, [&]() -> Status {
    RAT_ASSIGN(writer, StoreWriter::open(db));
    return ok();
  }));
  Promised promised{};
  std::string id;
  RAT_TRY(twice(problems, [&]() -> Status {
    RAT_ASSIGN(id, writer->create_run(new_run("scenario")));
    return ok();
  }));
  std::snprintf(promised.run_id, sizeof promised.run_id, "%s", id.c_str());
  promise(promised);
  for (int64_t step = 0; step < scenario_points; ++step) {
    writer->log(id, "loss", step, 0.5 * static_cast<double>(step), 0.1);
    if (step % 20 != 19) continue;
    RAT_TRY(twice(problems, [&] { return writer->flush(); }));
    promised.points = step + 1;
    promise(promised);
  }
  RAT_TRY(twice(problems, [&] { return writer->set_tags(id, {scenario_tag}); }));
  promised.tagged = true;
  promise(promised);
  RAT_TRY(twice(problems, [&] { return writer->end_run(id, RunState::finished); }));
  promised.ended = true;
  promise(promised);
  return ok();
}

std::vector<std::string_view> scenario_migrations() {
  std::vector<std::string_view> steps(store::migrations().begin(), store::migrations().end());
  steps.push_back(
      "alter table runs add column note text not null default '';"
      "create table notes (run integer primary key, text text not null);"
      "insert into notes select run, 'about ' || name from runs;"
      "update runs set note = 'moved'");
  steps.push_back(
      "drop view run_list; create view run_list as select id, name, note from runs order by run desc;"
      "create index notes_by_text on notes (text)");
  return steps;
}

}  // namespace rat
