CREATE TABLE settings (name TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE metrics (name TEXT PRIMARY KEY, unit TEXT NOT NULL, kind TEXT NOT NULL, label TEXT, help TEXT NOT NULL)
WITHOUT ROWID;

-- What windows share, each content once. `hash`: keyed, of the content; only a way to find it.
CREATE TABLE circumstances (id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, text TEXT NOT NULL);
CREATE TABLE places (
    id INTEGER PRIMARY KEY, hash INTEGER NOT NULL,
    cgroup TEXT NOT NULL, unit TEXT, runtime TEXT, container TEXT, pod TEXT
);
CREATE TABLE series (
    id INTEGER PRIMARY KEY, hash INTEGER NOT NULL,
    pid INTEGER, start_ns INTEGER NOT NULL, comm TEXT NOT NULL, place INTEGER NOT NULL REFERENCES places
);
CREATE TABLE thread_names (id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, name TEXT NOT NULL);
CREATE TABLE measures (id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, metric TEXT NOT NULL, label TEXT NOT NULL);
CREATE TABLE modules (
    id INTEGER PRIMARY KEY, hash INTEGER NOT NULL,
    path TEXT NOT NULL, build_id TEXT, kind TEXT NOT NULL
);
CREATE TABLE functions (
    id INTEGER PRIMARY KEY, hash INTEGER NOT NULL,
    name TEXT NOT NULL, file TEXT, unresolved TEXT
);
-- `lines`: function, source line, function, source line ...; innermost inlined function first.
CREATE TABLE locations (
    id INTEGER PRIMARY KEY, hash INTEGER NOT NULL,
    module INTEGER NOT NULL REFERENCES modules, address INTEGER NOT NULL, kind TEXT NOT NULL, lines TEXT NOT NULL
);
-- `locations`: leaf first, with commas between. `cut`: why it does not reach the thread's first function.
-- `leaf`: the innermost function at the leaf.
CREATE TABLE stacks (
    id INTEGER PRIMARY KEY, hash INTEGER NOT NULL,
    cut TEXT, leaf INTEGER REFERENCES functions, locations TEXT NOT NULL
);
CREATE INDEX circumstances_hash ON circumstances (hash);
CREATE INDEX places_hash ON places (hash);
CREATE INDEX series_hash ON series (hash);
CREATE INDEX thread_names_hash ON thread_names (hash);
CREATE INDEX measures_hash ON measures (hash);
CREATE INDEX modules_hash ON modules (hash);
CREATE INDEX functions_hash ON functions (hash);
CREATE INDEX locations_hash ON locations (hash);
CREATE INDEX stacks_hash ON stacks (hash);

-- Ids ascend in the order in which windows were kept, whatever the clock did, and are not used twice.
CREATE TABLE windows (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    boot TEXT NOT NULL, run INTEGER NOT NULL,
    number INTEGER NOT NULL, last_number INTEGER NOT NULL, merged INTEGER NOT NULL, resolution_s INTEGER NOT NULL,
    start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, duration_ns INTEGER NOT NULL,
    frequency_hz INTEGER NOT NULL, min_block_ns INTEGER, blocked_every INTEGER NOT NULL, stack_depth INTEGER NOT NULL,
    circumstances INTEGER NOT NULL REFERENCES circumstances,
    ticks INTEGER NOT NULL, expected_ticks INTEGER NOT NULL, idle_samples INTEGER NOT NULL, stolen_ns INTEGER NOT NULL,
    lost_samples INTEGER NOT NULL, losses TEXT NOT NULL, cost TEXT NOT NULL, notes TEXT NOT NULL
);
CREATE INDEX windows_start ON windows (start_ns);

CREATE TABLE samples (
    window INTEGER NOT NULL, series INTEGER NOT NULL, thread INTEGER NOT NULL, stack INTEGER NOT NULL,
    samples INTEGER NOT NULL, cpu_ns INTEGER NOT NULL, offcpu_ns INTEGER NOT NULL, blocks INTEGER NOT NULL,
    PRIMARY KEY (window, series, thread, stack)
) WITHOUT ROWID;
CREATE TABLE numbers (
    window INTEGER NOT NULL, series INTEGER NOT NULL, measure INTEGER NOT NULL, value INTEGER NOT NULL,
    PRIMARY KEY (window, series, measure)
) WITHOUT ROWID;
-- `buckets`: LEB128 numbers, three for each: from, less the end of the one before; to, less from; count.
CREATE TABLE histograms (
    window INTEGER NOT NULL, series INTEGER NOT NULL, measure INTEGER NOT NULL,
    count INTEGER NOT NULL, sum INTEGER NOT NULL, buckets BLOB NOT NULL,
    PRIMARY KEY (window, series, measure)
) WITHOUT ROWID;

-- For the shell of `sqlite3`.
CREATE VIEW window_times AS
SELECT id AS window, strftime('%Y-%m-%dT%H:%M:%SZ', start_ns / 1000000000, 'unixepoch') AS start,
    strftime('%Y-%m-%dT%H:%M:%SZ', end_ns / 1000000000, 'unixepoch') AS end,
    duration_ns / 1e9 AS seconds, merged, frequency_hz, lost_samples, boot, number
FROM windows;

CREATE VIEW processes AS
SELECT series.id AS series, pid, comm, cgroup, unit, runtime, container, pod
FROM series JOIN places ON places.id = series.place WHERE series.id > 0;

CREATE VIEW process_numbers AS
SELECT t.start, n.window, p.series, p.pid, p.comm, p.unit, p.container, m.metric, m.label, k.unit AS value_unit, n.value
FROM numbers n JOIN window_times t ON t.window = n.window JOIN processes p ON p.series = n.series
    JOIN measures m ON m.id = n.measure JOIN metrics k ON k.name = m.metric;

CREATE VIEW host_numbers AS
SELECT t.start, n.window, m.metric, m.label, k.unit AS value_unit, n.value
FROM numbers n JOIN window_times t ON t.window = n.window
    JOIN measures m ON m.id = n.measure JOIN metrics k ON k.name = m.metric
WHERE n.series = 0;

CREATE VIEW cpu_by_process_and_minute AS
SELECT strftime('%Y-%m-%dT%H:%MZ', w.start_ns / 1000000000, 'unixepoch') AS minute, p.pid, p.comm, p.unit, p.container,
    sum(n.value) AS cpu_ns
FROM numbers n JOIN windows w ON w.id = n.window JOIN processes p ON p.series = n.series
WHERE n.measure IN (SELECT id FROM measures WHERE metric = 'cpu')
GROUP BY minute, n.series;

CREATE VIEW samples_by_function AS
SELECT t.start, s.window, p.series, p.pid, p.comm, n.name AS thread, s.stack, coalesce(f.name, '[no stack]') AS function,
    s.samples, s.cpu_ns, s.offcpu_ns, s.blocks
FROM samples s JOIN window_times t ON t.window = s.window JOIN processes p ON p.series = s.series
    JOIN thread_names n ON n.id = s.thread JOIN stacks k ON k.id = s.stack LEFT JOIN functions f ON f.id = k.leaf;

CREATE VIEW stack_frames AS
SELECT k.id AS stack, l.key AS depth, i.key / 2 AS inlined, f.name AS function, f.file,
    json_extract('[' || o.lines || ']', '$[' || (i.key + 1) || ']') AS line, m.path AS module, o.kind
FROM stacks k, json_each('[' || k.locations || ']') l JOIN locations o ON o.id = l.value,
    json_each('[' || o.lines || ']') i JOIN functions f ON f.id = i.value JOIN modules m ON m.id = o.module
WHERE i.key % 2 = 0;
