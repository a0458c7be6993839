-- The leaderboard's tables. They are derived: deleting the file and building again loses nothing.
-- Read the views of views.sql; the tables below are what they are made of.
-- Facts name a submission by a small number, which may differ from one build to the next.

-- Which schema this file has: another version of the program builds it again.
CREATE TABLE build (
    schema_version INTEGER NOT NULL
);

-- One submission.
CREATE TABLE submissions (
    number INTEGER PRIMARY KEY,
    id VARCHAR NOT NULL UNIQUE,
    name VARCHAR NOT NULL,              -- free text of the submitter, as are the next three
    contact VARCHAR,
    url VARCHAR,
    notes VARCHAR,
    base_model VARCHAR NOT NULL,        -- hash of the base model's weights, or of hub name and commit
    system VARCHAR NOT NULL,            -- hash of base model, adapter, template and number format
    model VARCHAR NOT NULL,
    model_revision VARCHAR,
    model_sha256 VARCHAR,
    adapter VARCHAR,                    -- NULL: the bare model
    adapter_sha256 VARCHAR,
    alignment_languages VARCHAR[] NOT NULL,
    recipe VARCHAR,                     -- what its adapter's card names; NULL: it names none
    trained_on_flores BOOLEAN,          -- its retrieval is inflated; NULL: its card does not say
    dtype VARCHAR NOT NULL,
    template VARCHAR NOT NULL,
    template_sha256 VARCHAR NOT NULL,
    harness VARCHAR NOT NULL,           -- xlt-bench or lm-eval
    created TIMESTAMPTZ NOT NULL,
    command VARCHAR NOT NULL,
    item_limit INTEGER,                 -- NULL: whole test sets
    n_layers INTEGER,
    declared_baseline VARCHAR,          -- the id that the submitter named
    bare INTEGER,                       -- the bare model on the same items, template and format
    baseline INTEGER,                   -- the default: the declared one, else the bare one
    superseded_by INTEGER,              -- a newer run of the same system that covers this one
    record VARCHAR NOT NULL             -- record.json without its results
);

-- What a submission was evaluated on. Only complete ones are ranked.
CREATE TABLE runs (
    number INTEGER NOT NULL,
    task VARCHAR NOT NULL,              -- massive, wmt23, uner, retrieval
    version INTEGER NOT NULL,           -- of prompts, items and scores; versions are never mixed
    complete BOOLEAN NOT NULL,
    lacks VARCHAR[] NOT NULL            -- units and layers not evaluated, a limit
);

-- A score of one unit (a language, or a direction of wmt23) with its 95 % interval.
CREATE TABLE unit_scores (
    number INTEGER NOT NULL,
    task VARCHAR NOT NULL,
    unit VARCHAR NOT NULL,
    aligned BOOLEAN NOT NULL,           -- the adapter was aligned on the unit's language
    metric VARCHAR NOT NULL,
    value DOUBLE NOT NULL,
    low DOUBLE NOT NULL,
    high DOUBLE NOT NULL,
    n INTEGER NOT NULL,                 -- items
    items VARCHAR NOT NULL              -- digest of what was asked: scores on anything else are not compared
);

-- An unweighted mean over exactly `units`; those in `missing` were not evaluated.
CREATE TABLE mean_scores (
    number INTEGER NOT NULL,
    task VARCHAR NOT NULL,
    split VARCHAR NOT NULL,             -- all, supervised, transfer, aligned
    metric VARCHAR NOT NULL,
    value DOUBLE NOT NULL,
    low DOUBLE NOT NULL,
    high DOUBLE NOT NULL,
    units VARCHAR[] NOT NULL,
    missing VARCHAR[] NOT NULL
);

-- Retrieval accuracy at one layer, over all ordered pairs.
CREATE TABLE layer_scores (
    number INTEGER NOT NULL,
    layer SMALLINT NOT NULL,
    value DOUBLE NOT NULL,
    low DOUBLE NOT NULL,
    high DOUBLE NOT NULL
);

-- Retrieval accuracy of one ordered pair at one layer.
CREATE TABLE pair_scores (
    number INTEGER NOT NULL,
    layer SMALLINT NOT NULL,
    source VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    accuracy DOUBLE NOT NULL
);

-- Retrieval accuracy of a language at one layer: the mean over the ordered pairs that it is in.
CREATE TABLE language_layers (
    number INTEGER NOT NULL,
    layer SMALLINT NOT NULL,
    language VARCHAR NOT NULL,
    accuracy DOUBLE NOT NULL
);

-- Paired bootstrap against the default baseline, by unit; Holm over the units of a task and metric.
CREATE TABLE unit_gains (
    number INTEGER NOT NULL,
    baseline INTEGER NOT NULL,
    task VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    unit VARCHAR NOT NULL,
    aligned BOOLEAN NOT NULL,
    gain DOUBLE NOT NULL,
    low DOUBLE NOT NULL,
    high DOUBLE NOT NULL,
    p DOUBLE NOT NULL,
    p_holm DOUBLE NOT NULL,
    n INTEGER NOT NULL
);

-- The same for the mean over the units that both have.
CREATE TABLE mean_gains (
    number INTEGER NOT NULL,
    baseline INTEGER NOT NULL,
    task VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    gain DOUBLE NOT NULL,
    low DOUBLE NOT NULL,
    high DOUBLE NOT NULL,
    p DOUBLE NOT NULL,
    units VARCHAR[] NOT NULL
);

-- The tasks, in the order that they are shown in.
CREATE TABLE tasks (
    task VARCHAR PRIMARY KEY,
    title VARCHAR NOT NULL,
    place INTEGER NOT NULL,
    answers VARCHAR NOT NULL,           -- text, or neighbours (retrieval)
    ranked_by VARCHAR NOT NULL,         -- the split whose mean gives places
    current_version INTEGER NOT NULL
);

-- The table of languages, and of the units of each task version with their settings.
CREATE TABLE languages (
    code VARCHAR PRIMARY KEY,
    name VARCHAR NOT NULL,
    flores VARCHAR NOT NULL,
    script VARCHAR NOT NULL,
    family VARCHAR NOT NULL,            -- the top-level one: Indo-European, ...
    resource VARCHAR                    -- NULL: not known
);
CREATE TABLE units (
    task VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    unit VARCHAR NOT NULL,
    language VARCHAR NOT NULL,          -- of a direction the side that is not English
    setting VARCHAR,                    -- NULL: the task has none, or the unit is not ranked
    ranked BOOLEAN NOT NULL             -- false: beyond the ranked set of the version, in no mean
);

-- The metrics, the one that ranks a task, and which way is better.
CREATE TABLE metrics (
    task VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    is_primary BOOLEAN NOT NULL,
    higher_is_better BOOLEAN NOT NULL
);

-- Figures printed in the paper (arXiv 2502.14830): published, not re-computed.
CREATE TABLE published (
    paper_table INTEGER NOT NULL,
    task VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    row VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    unit VARCHAR,                       -- NULL: a mean over the split
    metric VARCHAR NOT NULL,
    value DOUBLE NOT NULL,
    usable BOOLEAN NOT NULL,            -- false: the paper contradicts itself; see the note
    note VARCHAR
);
