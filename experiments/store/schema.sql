-- The run database (SQLite, WAL). `sqlite3 -readonly runs.db` is enough to use it:
--   select * from run_list;                                             -- one row per run, newest first
--   select step, value from metric_points where run_id = 'k3v9x2ab' and metric = 'val_loss';
-- application_id is 0x52415457 ("RATW"); user_version counts migrations, and this file is migration 1. A released
-- migration is never edited: a change is a new numbered file.
--
-- Numbers: every metric point is kept, never sampled. `kind` says how to read `value`, because SQLite cannot hold two
-- doubles: 0 value as it stands (infinities too), 1 NaN (value is NULL), 2 negative zero (value is 0).
-- Times: REAL, Unix seconds, 0 for "not yet". Paths: relative to the folder of this file, so it can be moved.

create table runs (
  run integer primary key,               -- row number, used by the other tables
  id text not null unique,               -- what people and programs use
  name text not null,
  -- As last written. A run whose process died still says 'running' or 'queued' here until the next writer opens the
  -- file; programs compare pid, pid_start, boot_id and host with the machine to tell (see derive_state).
  state text not null check (state in ('queued', 'running', 'finished', 'stopped', 'crashed', 'failed')),
  error text not null default '',        -- why it failed, one sentence
  spec text not null,                    -- canonical JSON, everything that defines the run
  spec_hash text not null,               -- equal for runs that differ only in name and seed
  sweep_id text not null default '',
  layers text not null default '',       -- pattern, e.g. rat:16*4
  seed integer not null default 0,
  device text not null default '',
  dtype text not null default '',
  data_description text not null default '',
  data_hash text not null default '',
  -- What computed it
  commit_id text not null default '',
  dirty integer not null default 0,      -- 1: the source tree had uncommitted changes when it was built
  build text not null default '',        -- build type, compiler, sanitizers, library versions
  host text not null default '',
  cpu text not null default '',
  gpu text not null default '',
  -- The process that owns a queued or running run
  pid integer not null default 0,
  pid_start integer not null default 0,  -- field 22 of /proc/<pid>/stat: tells a reused pid apart
  boot_id text not null default '',
  -- Progress
  steps_done integer not null default 0,
  steps_total integer not null default 0,
  created_at real not null default 0,
  started_at real not null default 0,
  ended_at real not null default 0,
  heartbeat_at real not null default 0,
  deleted_at real not null default 0,    -- not 0: hidden, can be brought back
  color integer not null default 0       -- 0..7, index into the theme's series colours, bound for good
);
create index runs_by_spec on runs (spec_hash, seed);
create index runs_by_state on runs (state);

create table tags (
  run integer not null references runs on delete cascade,
  tag text not null,
  primary key (run, tag)
) without rowid;

create table metric_names (
  name_id integer primary key,
  name text not null unique,             -- loss, val_loss, op_ms/gemm, ...
  larger_is_better integer not null      -- what "best" means: 1 for accuracies and rates
);

create table metrics (
  run integer not null references runs on delete cascade,
  name_id integer not null references metric_names,
  step integer not null,
  value real,
  kind integer not null default 0 check (kind in (0, 1, 2)),
  wall real not null,                    -- seconds since the run started
  primary key (run, name_id, step)
) without rowid;

-- Kept equal to `metrics` by the writer, in the same transaction, so that a table of thousands of runs is one scan.
create table metric_summary (
  run integer not null references runs on delete cascade,
  name_id integer not null references metric_names,
  count integer not null,
  last_step integer not null,
  last real,
  last_kind integer not null default 0,
  best real,                             -- of the finite values; NULL: none
  primary key (run, name_id)
) without rowid;

create table checkpoints (
  run integer not null references runs on delete cascade,
  step integer not null,
  path text not null,                    -- the weights file; its optimizer file lies beside it
  created_at real not null,
  primary key (run, step)
) without rowid;

create view run_list as
  select r.id, r.name, r.state, r.layers, r.steps_done, r.steps_total, r.seed, r.device, r.dtype,
         (select s.last from metric_summary s join metric_names n using (name_id) where s.run = r.run and n.name = 'loss') as loss,
         (select s.best from metric_summary s join metric_names n using (name_id) where s.run = r.run and n.name = 'val_loss') as best_val_loss,
         (select group_concat(t.tag, ', ') from tags t where t.run = r.run) as tags,
         datetime(r.created_at, 'unixepoch', 'localtime') as created, r.error, r.commit_id, r.dirty, r.host
  from runs r where r.deleted_at = 0 order by r.run desc;

create view metric_points as
  select r.id as run_id, r.name as run_name, n.name as metric, m.step,
         case m.kind when 0 then m.value when 1 then 'NaN' else -0.0 end as value, m.wall as wall_s
  from metrics m join runs r using (run) join metric_names n using (name_id);

create view metric_summaries as
  select r.id as run_id, r.name as run_name, n.name as metric, s.count, s.last_step,
         case s.last_kind when 1 then 'NaN' else s.last end as last, s.best
  from metric_summary s join runs r using (run) join metric_names n using (name_id);

create view checkpoint_files as
  select r.id as run_id, r.name as run_name, c.step, c.path, datetime(c.created_at, 'unixepoch', 'localtime') as created
  from checkpoints c join runs r using (run);
