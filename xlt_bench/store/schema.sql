-- The leaderboard's tables. They are derived: deleting the file and rebuilding it loses nothing. Your own
-- SQL should read the views in views.sql instead. The tables refer to a submission by a number, which may
-- change with each build.

-- The schema of this file. A version of xlt-bench with another schema rebuilds it.
CREATE TABLE build (
    schema_version INTEGER NOT NULL,
    code VARCHAR NOT NULL               -- digest of the code: rows are taken over to builds by the same
);

-- The files of the submissions, by which the next build tells those that changed.
CREATE TABLE sources (
    number INTEGER PRIMARY KEY,
    id VARCHAR NOT NULL UNIQUE,
    fingerprint VARCHAR NOT NULL
);

-- The submissions.
CREATE TABLE submissions (
    number INTEGER PRIMARY KEY,
    id VARCHAR NOT NULL UNIQUE,
    name VARCHAR NOT NULL,              -- free text by the submitter, like the next three
    contact VARCHAR,
    url VARCHAR,
    notes VARCHAR,
    base_model VARCHAR NOT NULL,        -- hash of the base model's weights, or of its hub name and commit
    system VARCHAR NOT NULL,            -- hash of base model, adapter, template and number format
    model VARCHAR NOT NULL,
    model_revision VARCHAR,
    model_sha256 VARCHAR,
    adapter VARCHAR,                    -- NULL: the bare model
    adapter_sha256 VARCHAR,
    alignment_languages VARCHAR[] NOT NULL,
    recipe VARCHAR,                     -- the recipe named on the adapter's card; NULL: not named
    trained_on_flores BOOLEAN,          -- true: inflated on FLORES dev; NULL: the card does not say
    dtype VARCHAR NOT NULL,
    template VARCHAR NOT NULL,
    template_sha256 VARCHAR NOT NULL,
    harness VARCHAR NOT NULL,           -- xlt-bench or lm-eval
    created TIMESTAMPTZ NOT NULL,
    command VARCHAR NOT NULL,
    item_limit INTEGER,                 -- NULL: whole test sets
    n_layers INTEGER,
    declared_baseline VARCHAR,          -- the id that the submitter gave
    method VARCHAR NOT NULL,            -- a row of `methods`
    seed BIGINT,                        -- of the training; NULL: a bare model, or not known
    bare INTEGER,                       -- the bare model whose retrieval is held against the scores
    superseded_by INTEGER,              -- a run of the same system, accepted later, that covers this run
    rank_class VARCHAR NOT NULL,        -- verified: a maintainer ran the model again; else self-reported
    verified_by VARCHAR,
    verified_on DATE,
    verified_basis VARCHAR              -- weights: those of the record; recipe: trained again
);

-- record.json without its results.
CREATE TABLE records (
    number INTEGER NOT NULL,
    record VARCHAR NOT NULL
);

-- What the columns of `submissions` rest on.
CREATE TABLE evidence (
    field VARCHAR PRIMARY KEY,
    kind VARCHAR NOT NULL               -- derived: from the other files; run: declared until the row is
                                        -- verified, then from running it; maintainer: written by the
                                        -- maintainers; declared: nobody can check it
);

-- The methods: a recipe with its changed keys on a base model, evaluated with one template and number
-- format. Its systems differ in their seed alone. A system whose training is not known is a method of
-- its own.
CREATE TABLE methods (
    method VARCHAR PRIMARY KEY,
    base_model VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    dtype VARCHAR NOT NULL,
    template_sha256 VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,              -- bare; sft: the task alone; aligned: the task and another
                                        -- objective; alignment: without the task; merged; steered:
                                        -- by vectors, with or without an adapter; unknown
    recipe VARCHAR,
    changes VARCHAR[] NOT NULL,         -- how it differs from a recipe that ships, as for `--set`
    task VARCHAR,                       -- the task that was trained
    task_units VARCHAR[] NOT NULL,
    layers INTEGER[] NOT NULL,          -- the blocks that were aligned, or the steered one
    alignment_languages VARCHAR[] NOT NULL,
    settings VARCHAR NOT NULL           -- JSON: all settings that are not the defaults
);

-- What the gains of a submission in a task are counted from: at most one default baseline, and the one
-- that the submitter declared.
CREATE TABLE task_baselines (
    number INTEGER NOT NULL,
    task VARCHAR NOT NULL,
    baseline INTEGER NOT NULL,
    kind VARCHAR NOT NULL,              -- sft: the same training of the task alone; bare; declared
    is_default BOOLEAN NOT NULL,
    is_declared BOOLEAN NOT NULL,
    differs VARCHAR[] NOT NULL,         -- what else differs between the two
    units VARCHAR[] NOT NULL            -- what both answered on the same items
);

-- What is in the folder of submissions and not in `submissions`.
CREATE TABLE left_out (
    name VARCHAR NOT NULL,
    state VARCHAR NOT NULL,             -- refused: not valid; held: its system has other answers already
    detail VARCHAR NOT NULL             -- the reason
);

-- The tasks that a submission was evaluated on. Only complete runs are ranked.
CREATE TABLE runs (
    number INTEGER NOT NULL,
    task VARCHAR NOT NULL,              -- a row of `tasks`
    version INTEGER NOT NULL,           -- of the task: scores of different versions are never mixed
    complete BOOLEAN NOT NULL,
    lacks VARCHAR[] NOT NULL,           -- units and layers that were not evaluated; a limit
    superseded_by INTEGER               -- a newer run of the same system and task version
);

-- The score of one unit (a language, or a direction of translation) with its 95 % interval.
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
    items VARCHAR NOT NULL              -- digest of the items: only scores on equal items are compared
);

-- An unweighted mean over exactly `units`. The units in `missing` were not evaluated.
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

-- Retrieval accuracy at one layer, over all ordered pairs of ranked languages; of all languages in a
-- submission with fewer than two ranked ones, here and below.
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

-- Retrieval accuracy of a language at one layer: the mean over the ordered pairs that it forms with
-- ranked languages.
CREATE TABLE language_layers (
    number INTEGER NOT NULL,
    layer SMALLINT NOT NULL,
    language VARCHAR NOT NULL,
    accuracy DOUBLE NOT NULL
);

-- How alike the states of a language and of English are at a layer, as the record states it: of
-- `mexa_weighted`, `mexa_last` (per cent of the first 100 sentences), `cka` and `cosine_margin`.
CREATE TABLE alignments (
    number INTEGER NOT NULL,
    layer SMALLINT NOT NULL,
    language VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    value DOUBLE NOT NULL
);

-- Paired bootstrap against each row of `task_baselines`, by unit. `resolvable` is the smallest true gain
-- that these items show as significant in 80 of 100 cases; NULL if no item differs. Holm's correction is
-- over the units of one task and metric.
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
    resolvable DOUBLE,
    p_holm DOUBLE NOT NULL,
    n INTEGER NOT NULL
);

-- The same for means over the units that both submissions have.
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
    resolvable DOUBLE,
    units VARCHAR[] NOT NULL
);

-- Measures of transfer against each row of `task_baselines`, by unit: `relative_transfer` and
-- `consistency` of the submission and of its baseline, with their difference; the parts of the gain
-- (`content`, `format`, `neither`), whose `baseline_value` is 0. Of the primary metric.
CREATE TABLE unit_measures (
    number INTEGER NOT NULL,
    baseline INTEGER NOT NULL,
    task VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    unit VARCHAR NOT NULL,
    aligned BOOLEAN NOT NULL,
    value DOUBLE NOT NULL,
    baseline_value DOUBLE NOT NULL,
    difference DOUBLE NOT NULL,
    low DOUBLE NOT NULL,
    high DOUBLE NOT NULL,
    p DOUBLE NOT NULL,
    p_holm DOUBLE NOT NULL,
    n INTEGER NOT NULL                  -- items; of consistency, those that both have right in English
);

-- The same for means over the units that both submissions have.
CREATE TABLE mean_measures (
    number INTEGER NOT NULL,
    baseline INTEGER NOT NULL,
    task VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    value DOUBLE NOT NULL,
    baseline_value DOUBLE NOT NULL,
    difference DOUBLE NOT NULL,
    low DOUBLE NOT NULL,
    high DOUBLE NOT NULL,
    p DOUBLE NOT NULL,
    units VARCHAR[] NOT NULL
);

-- (system - SFT) / (oracle - SFT) in per cent, for submissions with an SFT baseline and an oracle: the
-- same training in all ranked units. `low` and `high` are NULL if no gap is shown.
CREATE TABLE gaps (
    number INTEGER NOT NULL,
    baseline INTEGER NOT NULL,
    oracle INTEGER NOT NULL,
    task VARCHAR NOT NULL,
    unit VARCHAR,                       -- NULL: the mean of a split
    split VARCHAR,                      -- NULL: a unit
    value DOUBLE NOT NULL,
    low DOUBLE,
    high DOUBLE
);

-- The gains of a method over the method of its systems' default baselines: the means over seeds. Of
-- superseded runs and of several runs with one seed, only one counts. With `covers_seeds`, interval and
-- p are of seeds and items together, and say whether the methods differ. Otherwise there is one system:
-- they are of its items alone, and say whether two systems differ.
CREATE TABLE method_unit_gains (
    method VARCHAR NOT NULL,
    baseline_method VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,              -- of the baseline: sft, bare
    task VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    item_limit INTEGER,
    metric VARCHAR NOT NULL,
    systems INTEGER[] NOT NULL,         -- submissions, one of each seed
    baselines INTEGER[] NOT NULL,
    covers_seeds BOOLEAN NOT NULL,
    unit VARCHAR NOT NULL,
    aligned BOOLEAN NOT NULL,
    value DOUBLE NOT NULL,
    baseline_value DOUBLE NOT NULL,
    gain DOUBLE NOT NULL,
    low DOUBLE NOT NULL,
    high DOUBLE NOT NULL,
    p DOUBLE NOT NULL,
    resolvable DOUBLE,
    p_holm DOUBLE NOT NULL,
    spread DOUBLE,                      -- standard deviation over seeds; NULL: not known
    n INTEGER NOT NULL
);

-- The same for means over the units that all systems have.
CREATE TABLE method_mean_gains (
    method VARCHAR NOT NULL,
    baseline_method VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    item_limit INTEGER,
    metric VARCHAR NOT NULL,
    systems INTEGER[] NOT NULL,
    baselines INTEGER[] NOT NULL,
    covers_seeds BOOLEAN NOT NULL,
    split VARCHAR NOT NULL,
    value DOUBLE NOT NULL,
    baseline_value DOUBLE NOT NULL,
    gain DOUBLE NOT NULL,
    low DOUBLE NOT NULL,
    high DOUBLE NOT NULL,
    p DOUBLE NOT NULL,
    resolvable DOUBLE,
    spread DOUBLE,
    units VARCHAR[] NOT NULL
);

-- The places of complete, current submissions among those of their version of a task, by the mean of the
-- metric that ranks it. Submissions share a place if a paired test cannot tell them from the first of
-- them (p >= 0.05).
CREATE TABLE places (
    number INTEGER NOT NULL,
    task VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    among VARCHAR NOT NULL,             -- verified: the verified submissions alone; all
    place INTEGER NOT NULL,
    tested_against INTEGER,             -- the first of the place before, or of its own; NULL: the best
    p DOUBLE                            -- of that test
);

-- The places of methods among those of their base model.
CREATE TABLE method_places (
    method VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    split VARCHAR NOT NULL,
    among VARCHAR NOT NULL,             -- verified: from the verified submissions alone; all
    value DOUBLE NOT NULL,              -- mean over `systems`
    place INTEGER NOT NULL,
    systems INTEGER[] NOT NULL,         -- complete submissions, one of each seed
    tested_against INTEGER[],           -- those of the method it is tested against; NULL: the best
    covers_seeds BOOLEAN NOT NULL,      -- the test is of seeds and items; false: of items alone
    p DOUBLE
);

-- The tasks. The app shows them in the order of `place`.
CREATE TABLE tasks (
    task VARCHAR PRIMARY KEY,
    title VARCHAR NOT NULL,
    place INTEGER NOT NULL,
    answers VARCHAR NOT NULL,           -- text, or neighbours (retrieval)
    item_metric VARCHAR,                -- scores single answers; NULL: answers are not text
    ranked_by VARCHAR NOT NULL,         -- the split whose mean gives places
    on_flores_dev BOOLEAN NOT NULL,     -- adapters trained on FLORES dev have seen its sentences
    current_version INTEGER NOT NULL
);

-- The languages of the benchmark.
CREATE TABLE languages (
    code VARCHAR PRIMARY KEY,
    name VARCHAR NOT NULL,
    flores VARCHAR NOT NULL,
    script VARCHAR NOT NULL,
    family VARCHAR NOT NULL,            -- the top-level family: Indo-European, ...
    resource VARCHAR                    -- NULL: not known
);

-- The units of each task version: its ranked set, and units beyond it that a submission has.
CREATE TABLE units (
    task VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    unit VARCHAR NOT NULL,
    language VARCHAR NOT NULL,          -- of a direction: the side that is not English
    setting VARCHAR,                    -- NULL: the task has none, or the unit is not ranked
    ranked BOOLEAN NOT NULL             -- false: beyond the ranked set of the version, in no mean
);

-- The metrics of each task.
CREATE TABLE metrics (
    task VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    is_primary BOOLEAN NOT NULL,        -- the metric that ranks the task
    higher_is_better BOOLEAN NOT NULL
);

-- Figures that the paper (arXiv 2502.14830) prints. They are not computed here.
CREATE TABLE published (
    paper_table INTEGER NOT NULL,
    task VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    row VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    unit VARCHAR,                       -- NULL: the mean of the split
    metric VARCHAR NOT NULL,
    value DOUBLE NOT NULL,
    usable BOOLEAN NOT NULL,            -- false: the paper contradicts itself, see `note`
    note VARCHAR
);
