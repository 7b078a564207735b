-- Migration 2: what was measured of a checkpoint after training (`rat eval`).
--   select * from evaluation_list where run_id = 'k3v9x2ab';             -- one row per task and number
--   select position, value from evaluation_values where run_id = 'k3v9x2ab' and task = 'loss_by_position';

create table evaluations (
  evaluation integer primary key,
  run integer not null references runs on delete cascade,
  task text not null,                    -- perplexity, loss_by_position, length, mqar, needle, copy, induction
  step integer not null,                 -- of the checkpoint
  settings text not null,                -- JSON: lengths, sequences, depths and data settings it was measured with
  data_description text not null default '',
  data_hash text not null default '',
  device text not null default '',
  dtype text not null default '',
  notes text not null default '',        -- what was left out and why, one sentence a line
  commit_id text not null default '',    -- of the program that measured
  created_at real not null default 0,    -- Unix seconds
  elapsed_s real not null default 0,
  -- Measured again, it is replaced.
  unique (run, task, step, settings, data_hash, device, dtype)
);

create table evaluation_points (
  evaluation integer not null references evaluations on delete cascade,
  point integer not null,                -- order within the evaluation
  metric text not null,                  -- loss (nats), loss_beyond, accuracy, chance, context_chance
  seq_len integer not null,              -- T of the sequences measured
  depth real,                            -- needle: 0 start .. 1 end; NULL: over all depths, or has none
  position integer,                      -- loss_by_position: 0-based; NULL: over all positions
  value real,
  kind integer not null default 0 check (kind in (0, 1, 2)),  -- as in metrics: how to read value
  standard_error real,                   -- over sequences; NULL: fewer than two, or not finite
  sequences integer not null,            -- n
  targets integer not null,              -- predictions that the value is the mean of
  primary key (evaluation, point)
) without rowid;

create view evaluation_values as
  select r.id as run_id, r.name as run_name, e.task, e.step, p.metric, p.seq_len, p.depth, p.position,
         case p.kind when 0 then p.value when 1 then 'NaN' else -0.0 end as value, p.standard_error, p.sequences, p.targets,
         e.settings, datetime(e.created_at, 'unixepoch', 'localtime') as created
  from evaluation_points p join evaluations e using (evaluation) join runs r using (run)
  order by e.evaluation, p.point;

create view evaluation_list as
  select * from evaluation_values where depth is null and position is null;
