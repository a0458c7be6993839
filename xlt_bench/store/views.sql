-- The views for the app and your own SQL. They name a submission by its id.

-- Every score of every submission. `current`: no newer run supersedes it. `ranked` is false for a
-- unit beyond the ranked set of the version, which is in no mean.
CREATE VIEW scores AS
SELECT s.id AS submission, s.name, s.model, s.base_model, s.adapter, r.task, r.version, u.unit,
    t.language, l.name AS language_name, l.script, l.family, l.resource, t.setting, u.aligned,
    t.ranked, u.metric, u.value, u.low, u.high, u.n, s.item_limit, r.complete,
    r.superseded_by IS NULL AS current, s.rank_class
FROM unit_scores u
JOIN submissions s USING (number)
JOIN runs r USING (number, task)
JOIN units t ON t.task = u.task AND t.version = r.version AND t.unit = u.unit
JOIN languages l ON l.code = t.language;

-- Means by split. `place` ranks the verified, `place_all` all current, complete submissions of one task
-- version by the metric that ranks the task; submissions that a paired test cannot tell apart share a
-- place, of which there are `tied` and `tied_all`. The split `aligned` has no places: its languages
-- differ from adapter to adapter. `outcome` compares with the default baseline: better, worse, or not
-- shown (p >= 0.05); NULL without one.
CREATE VIEW split_means AS
WITH placed AS (
    SELECT p.*, count(*) OVER (PARTITION BY p.task, r.version, p.split, p.among, p.place) AS tied
    FROM places p
    JOIN runs r USING (number, task)
), compared AS (
    SELECT g.number, g.task, g.split, g.metric,
        CASE WHEN g.p >= 0.05 THEN 'not shown'
            WHEN (g.gain > 0) = k.higher_is_better THEN 'better'
            ELSE 'worse' END AS outcome
    FROM mean_gains g
    JOIN task_baselines d USING (number, task, baseline)
    JOIN metrics k USING (task, metric)
    WHERE d.is_default
)
SELECT s.id AS submission, s.name, s.model, s.base_model, s.adapter, r.task, r.version, m.split,
    m.metric, m.value, m.low, m.high, v.place, v.tied, p.place AS place_all, p.tied AS tied_all,
    c.outcome, m.units, m.missing, s.item_limit, r.complete, r.superseded_by IS NULL AS current,
    s.rank_class
FROM mean_scores m
JOIN submissions s USING (number)
JOIN runs r USING (number, task)
JOIN metrics k USING (task, metric)
LEFT JOIN placed p ON k.is_primary AND p.number = m.number AND p.task = m.task
    AND p.split = m.split AND p.among = 'all'
LEFT JOIN placed v ON k.is_primary AND v.number = m.number AND v.task = m.task
    AND v.split = m.split AND v.among = 'verified'
LEFT JOIN compared c ON c.number = m.number AND c.task = m.task AND c.split = m.split
    AND c.metric = m.metric;

-- The difference between any two submissions on one base model, task version and set of items, by
-- unit. Filter by submission and baseline, or by is_default.
CREATE VIEW gains AS
SELECT s.id AS submission, b.id AS baseline, s.name, s.model, s.adapter, b.name AS baseline_name,
    u.task, r.version, u.unit, t.language, l.name AS language_name, l.script, l.family, l.resource,
    t.setting, t.ranked, u.aligned, u.metric, u.value - v.value AS gain, u.value,
    v.value AS baseline_value, u.n, coalesce(d.is_declared, false) AS is_declared,
    coalesce(d.is_default, false) AS is_default, d.kind AS baseline_kind,
    r.superseded_by IS NULL AND q.superseded_by IS NULL AS current
FROM submissions s
JOIN submissions b ON b.base_model = s.base_model AND b.number <> s.number
    AND b.item_limit IS NOT DISTINCT FROM s.item_limit
JOIN unit_scores u ON u.number = s.number
JOIN unit_scores v ON v.number = b.number AND v.task = u.task AND v.unit = u.unit
    AND v.metric = u.metric AND v.n = u.n AND v.items = u.items
JOIN runs r ON r.number = s.number AND r.task = u.task
JOIN runs q ON q.number = b.number AND q.task = u.task AND q.version = r.version
JOIN units t ON t.task = u.task AND t.version = r.version AND t.unit = u.unit
JOIN languages l ON l.code = t.language
LEFT JOIN task_baselines d ON d.number = s.number AND d.task = u.task AND d.baseline = b.number
    AND list_contains(d.units, u.unit);

-- What the gains of a submission in a task are counted from. The default baseline is the SFT system (the
-- same training of the task alone, with the same seed), else the bare model; a declared one is second.
CREATE VIEW baselines AS
SELECT s.id AS submission, d.task, r.version, b.id AS baseline, b.name AS baseline_name, d.kind,
    d.is_default, d.is_declared, d.differs, d.units
FROM task_baselines d
JOIN submissions s USING (number)
JOIN submissions b ON b.number = d.baseline
JOIN runs r ON r.number = d.number AND r.task = d.task;

-- The submissions that another can be compared with: those on one base model and version of the task
-- that answered some units on the same items, and that are not superseded.
CREATE VIEW comparable AS
SELECT submission, task, version, baseline AS other, baseline_name AS other_name,
    bool_or(is_default) AS is_default, bool_or(is_declared) AS is_declared,
    any_value(baseline_kind) AS kind, count(DISTINCT unit) AS units
FROM gains
WHERE current
GROUP BY ALL;

-- The systems of each method, by task.
CREATE VIEW method_systems AS
SELECT m.method, m.kind, m.model, m.recipe, s.id AS submission, s.name, s.seed, r.task, r.version,
    s.item_limit, r.complete, r.superseded_by IS NULL AS current
FROM methods m
JOIN submissions s USING (method)
JOIN runs r USING (number);

-- The gains of methods over those of their baselines, by unit. `verdict` says what a significant gain
-- shows: that the methods differ, or only that two systems do, as there is but one seed.
CREATE VIEW method_gains AS
SELECT g.* EXCLUDE (systems, baselines, kind), g.kind AS baseline_kind, t.language,
    l.name AS language_name, l.script, l.family, l.resource, t.setting, t.ranked,
    len(g.systems) AS seeds, g.p_holm < 0.05 AS significant,
    CASE WHEN g.covers_seeds THEN 'methods' ELSE 'systems' END AS verdict,
    [s.ids[n + 1] FOR n IN g.systems] AS submissions,
    [s.ids[n + 1] FOR n IN g.baselines] AS baseline_submissions
FROM method_unit_gains g
JOIN units t ON t.task = g.task AND t.version = g.version AND t.unit = g.unit
JOIN languages l ON l.code = t.language
CROSS JOIN (SELECT list(id ORDER BY number) AS ids FROM submissions) s;

-- The same for means by split.
CREATE VIEW method_gain_means AS
SELECT g.* EXCLUDE (systems, baselines, kind), g.kind AS baseline_kind, len(g.systems) AS seeds,
    g.p < 0.05 AS significant,
    CASE WHEN g.covers_seeds THEN 'methods' ELSE 'systems' END AS verdict,
    [s.ids[n + 1] FOR n IN g.systems] AS submissions,
    [s.ids[n + 1] FOR n IN g.baselines] AS baseline_submissions
FROM method_mean_gains g
CROSS JOIN (SELECT list(id ORDER BY number) AS ids FROM submissions) s;

-- The means of methods over their complete systems, one of each seed, by the metric that ranks the task.
-- `place` is among the methods of the same base model, from their verified systems alone, of which there
-- are `seeds_verified`; `place_all` is from all. Methods that cannot be told apart share a place.
-- `verdict` says whether the test that gave a place is of two methods (seeds and items) or, as one of them
-- has but one seed, of two systems (items alone); NULL for the best.
CREATE VIEW method_means AS
WITH placed AS (
    SELECT p.*, m.base_model, m.model, m.kind, m.recipe,
        CASE WHEN p.covers_seeds THEN 'methods' WHEN p.p IS NOT NULL THEN 'systems' END AS verdict,
        count(*) OVER (
            PARTITION BY m.base_model, p.task, p.version, p.split, p.among, p.place
        ) AS tied
    FROM method_places p
    JOIN methods m USING (method)
)
SELECT a.method, a.base_model, a.model, a.kind, a.recipe, a.task, a.version, a.split, k.metric,
    a.value, len(a.systems) AS seeds, coalesce(len(v.systems), 0) AS seeds_verified, v.place, v.tied,
    v.verdict, a.place AS place_all, a.tied AS tied_all, a.verdict AS verdict_all,
    [s.ids[n + 1] FOR n IN a.systems] AS submissions
FROM placed a
JOIN metrics k ON k.task = a.task AND k.is_primary
LEFT JOIN placed v ON v.method = a.method AND v.task = a.task AND v.version = a.version
    AND v.split = a.split AND v.among = 'verified'
CROSS JOIN (SELECT list(id ORDER BY number) AS ids FROM submissions) s
WHERE a.among = 'all';

-- The rows of `task_baselines` with both ids and the version: what the next views are about.
CREATE VIEW compared AS
SELECT d.number, d.task, d.baseline, s.id AS submission, b.id AS baseline_id, r.version,
    d.kind AS baseline_kind, d.is_default, d.is_declared
FROM task_baselines d
JOIN submissions s USING (number)
JOIN submissions b ON b.number = d.baseline
JOIN runs r USING (number, task);

-- Paired bootstrap against the default and the declared baseline, by unit: the gain with its interval, p,
-- and p after Holm's correction.
CREATE VIEW significance AS
SELECT c.submission, c.baseline_id AS baseline, g.task, c.version, g.metric, g.unit, t.language,
    t.setting, t.ranked, g.aligned, g.gain, g.low, g.high, g.resolvable, g.p, g.p_holm,
    g.p_holm < 0.05 AS significant, g.n, c.baseline_kind, c.is_default, c.is_declared
FROM unit_gains g
JOIN compared c USING (number, task, baseline)
JOIN units t ON t.task = g.task AND t.version = c.version AND t.unit = g.unit;

-- The same for means over the units that both submissions have.
CREATE VIEW gain_means AS
SELECT c.submission, c.baseline_id AS baseline, g.task, c.version, g.metric, g.split, g.gain, g.low,
    g.high, g.resolvable, g.p, g.p < 0.05 AS significant, g.units, c.baseline_kind, c.is_default,
    c.is_declared
FROM mean_gains g
JOIN compared c USING (number, task, baseline);

-- Measures of transfer beside the gain, against the default and the declared baseline, by unit:
-- relative transfer, consistency with English, and the parts of the gain.
CREATE VIEW transfer_measures AS
SELECT c.submission, c.baseline_id AS baseline, g.task, c.version, g.measure, g.unit, t.language,
    l.name AS language_name, t.setting, t.ranked, g.aligned, g.value, g.baseline_value,
    g.difference, g.low, g.high, g.p, g.p_holm, g.p_holm < 0.05 AS significant, g.n,
    c.baseline_kind, c.is_default, c.is_declared
FROM unit_measures g
JOIN compared c USING (number, task, baseline)
JOIN units t ON t.task = g.task AND t.version = c.version AND t.unit = g.unit
JOIN languages l ON l.code = t.language;

-- The same for means over the units that both submissions have.
CREATE VIEW transfer_measure_means AS
SELECT c.submission, c.baseline_id AS baseline, g.task, c.version, g.measure, g.split, g.value,
    g.baseline_value, g.difference, g.low, g.high, g.p, g.p < 0.05 AS significant, g.units,
    c.baseline_kind, c.is_default, c.is_declared
FROM mean_measures g
JOIN compared c USING (number, task, baseline);

-- The share of the gap between SFT and oracle that a submission closes, by unit and by split.
CREATE VIEW gaps_closed AS
SELECT c.submission, c.baseline_id AS baseline, o.id AS oracle, g.task, c.version, g.unit, g.split,
    g.value, g.low, g.high
FROM gaps g
JOIN compared c USING (number, task, baseline)
JOIN submissions o ON o.number = g.oracle;

-- The scores of text tasks in their ranked units, by the primary metric: what the next views are about.
CREATE VIEW primary_scores AS
SELECT u.number, s.id AS submission, u.task, r.version, u.metric, u.unit, t.language, t.setting,
    u.aligned, u.value, u.n
FROM unit_scores u
JOIN submissions s USING (number)
JOIN metrics k USING (task, metric)
JOIN tasks a USING (task)
JOIN runs r USING (number, task)
JOIN units t ON t.task = u.task AND t.version = r.version AND t.unit = u.unit
WHERE k.is_primary AND t.ranked AND a.answers = 'text';

-- The score of each ranked unit in per cent of the mean over the supervised units that the submission
-- has, beside that of the bare model on the same number of items; of the primary metric.
CREATE VIEW relative_transfer AS
WITH scored AS (
    SELECT *, avg(value) FILTER (setting = 'supervised') OVER (PARTITION BY number, task) AS source
    FROM primary_scores
), related AS (
    SELECT * EXCLUDE (source), 100 * value / nullif(source, 0) AS relative FROM scored
), bare AS (
    SELECT b.base_model, y.task, y.version, y.unit, y.n, arg_max(y.relative, -y.number) AS relative
    FROM related y
    JOIN submissions b USING (number)
    WHERE b.adapter IS NULL
    GROUP BY ALL
)
SELECT s.id AS submission, y.task, y.version, y.unit, y.language, y.setting, y.aligned, y.value,
    y.relative, c.relative AS bare_relative, y.n
FROM related y
JOIN submissions s USING (number)
LEFT JOIN bare c USING (base_model, task, version, unit, n);

-- Retrieval accuracy by layer, over all ordered pairs of ranked languages; of all languages in a
-- submission with fewer than two ranked ones, here and below.
CREATE VIEW layer_curves AS
SELECT s.id AS submission, s.name, s.model, s.base_model, s.adapter, r.task, r.version, y.layer,
    s.n_layers, y.value, y.low, y.high, s.item_limit, r.complete, r.superseded_by IS NULL AS current,
    s.rank_class
FROM layer_scores y
JOIN submissions s USING (number)
JOIN runs r ON r.number = y.number
JOIN tasks k ON k.task = r.task AND k.answers = 'neighbours';

-- Retrieval accuracy by layer and ordered pair.
CREATE VIEW pair_accuracies AS
SELECT s.id AS submission, p.layer, p.source, p.target, p.accuracy
FROM pair_scores p
JOIN submissions s USING (number);

-- Retrieval accuracy by layer and language: the mean over the ordered pairs that the language forms
-- with ranked languages.
CREATE VIEW language_curves AS
SELECT s.id AS submission, y.layer, y.language, l.name AS language_name, l.script, l.family,
    l.resource, y.accuracy
FROM language_layers y
JOIN submissions s USING (number)
JOIN languages l ON l.code = y.language;

-- A point for each ranked unit of a submission: its score, and the retrieval accuracy of its language.
-- `retrieval_of` says which accuracy: the submission's own over even layers, its own at the middle
-- layer, or that of the bare model at the middle layer, as in the paper's Figure 1b.
CREATE VIEW transfer_points AS
WITH runs_of_retrieval AS (
    SELECT r.number, r.task, r.version
    FROM runs r
    JOIN tasks k USING (task)
    WHERE k.answers = 'neighbours'
), retrieval AS (
    SELECT number, unit AS language, 'own, even layers' AS retrieval_of, value AS accuracy, task,
        version
    FROM unit_scores
    JOIN runs_of_retrieval USING (number, task)
    UNION ALL
    SELECT y.number, y.language, 'own, middle layer', y.accuracy, r.task, r.version
    FROM language_layers y
    JOIN submissions s ON s.number = y.number AND y.layer = s.n_layers // 2
    JOIN runs_of_retrieval r ON r.number = y.number
    UNION ALL
    SELECT s.number, y.language, 'bare model, middle layer', y.accuracy, r.task, r.version
    FROM submissions s
    JOIN submissions b ON b.number = s.bare
    JOIN language_layers y ON y.number = b.number AND y.layer = b.n_layers // 2
    JOIN runs_of_retrieval r ON r.number = b.number
)
SELECT u.submission, u.task, u.version, u.metric, u.unit, u.language, u.setting, u.aligned,
    f.retrieval_of, f.task AS retrieval_task, f.version AS retrieval_version,
    f.accuracy AS retrieval, u.value AS score
FROM primary_scores u
JOIN retrieval f USING (number, language);

-- The correlation of score and retrieval accuracy, over the transfer units and over all units, and the
-- fitted line. The interval of Pearson's r is Fisher's. Spearman's rho is Pearson's r of the ranks;
-- equal values share their mean rank. NULL where the points are too few or do not vary.
CREATE VIEW transfer_correlation AS
WITH chosen AS (
    SELECT *, 'all' AS split FROM transfer_points
    UNION ALL
    SELECT *, 'transfer' AS split FROM transfer_points WHERE setting = 'transfer'
), ranked AS (
    SELECT *,
        rank() OVER (PARTITION BY submission, task, retrieval_of, split ORDER BY retrieval)
        + (count(*) OVER (PARTITION BY submission, task, retrieval_of, split, retrieval) - 1) / 2.0
        AS retrieval_rank,
        rank() OVER (PARTITION BY submission, task, retrieval_of, split ORDER BY score)
        + (count(*) OVER (PARTITION BY submission, task, retrieval_of, split, score) - 1) / 2.0
        AS score_rank
    FROM chosen
), correlated AS (
    SELECT submission, task, version, metric, retrieval_of, split, count(*) AS n,
        min(retrieval) < max(retrieval) AND min(score) < max(score) AND count(*) > 2 AS varied,
        corr(retrieval, score) AS r, corr(retrieval_rank, score_rank) AS rho,
        regr_slope(score, retrieval) AS slope_, regr_intercept(score, retrieval) AS intercept_
    FROM ranked
    GROUP BY ALL
)
SELECT submission, task, version, metric, retrieval_of, split, n,
    CASE WHEN varied THEN r END AS pearson,
    CASE WHEN varied AND n > 3 AND abs(r) < 1 THEN tanh(atanh(r) - 1.959964 / sqrt(n - 3)) END
    AS pearson_low,
    CASE WHEN varied AND n > 3 AND abs(r) < 1 THEN tanh(atanh(r) + 1.959964 / sqrt(n - 3)) END
    AS pearson_high,
    CASE WHEN varied THEN rho END AS spearman,
    CASE WHEN varied THEN slope_ END AS slope,
    CASE WHEN varied THEN intercept_ END AS intercept
FROM correlated;

-- How alike a language's states and English are, by layer: retrieval accuracy of the language, and what
-- the record states (MEXA, CKA, the margin of cosines).
CREATE VIEW alignment_measures AS
SELECT s.id AS submission, y.layer, s.n_layers, y.language, y.measure, y.value
FROM (
    SELECT number, layer, language, 'retrieval' AS measure, accuracy AS value FROM language_layers
    UNION ALL BY NAME
    SELECT number, layer, language, measure, value FROM alignments
) y
JOIN submissions s USING (number);

-- MEXA of a language as its authors report it: the mean and the highest value over the layers that a
-- submission has, for states pooled by position (`weighted`) and of the last token (`last`). Of equal
-- values, `best_layer` is the first. Only submissions with the same layers can be compared.
CREATE VIEW mexa_scores AS
SELECT y.submission, y.language, l.name AS language_name, l.script, l.family, l.resource,
    replace(y.measure, 'mexa_', '') AS pooling, avg(y.value) AS mean, max(y.value) AS max,
    first(y.layer ORDER BY y.value DESC, y.layer) AS best_layer,
    list(y.layer ORDER BY y.layer) AS layers
FROM alignment_measures y
JOIN languages l ON l.code = y.language
WHERE y.measure IN ('mexa_weighted', 'mexa_last')
GROUP BY ALL;

-- Which measure at which layer predicts transfer: Spearman's rho, over the transfer languages of a
-- submission, of the measure and the score (the primary metric), with `states_of` its own states or
-- those of its bare model. Equal values share their mean rank; NULL if fewer than four languages or no
-- variance. Languages are few, and of many measures and layers the best one looks better than it is.
CREATE VIEW transfer_predictors AS
WITH states AS (
    SELECT number, id, 'own' AS states_of FROM submissions
    UNION ALL
    SELECT s.number, b.id, 'bare model' FROM submissions s JOIN submissions b ON b.number = s.bare
), points AS (
    SELECT u.submission, u.task, u.version, o.states_of, y.measure, y.layer, y.value,
        u.value AS score, u.unit
    FROM primary_scores u
    JOIN states o USING (number)
    JOIN alignment_measures y ON y.submission = o.id AND y.language = u.language
    WHERE u.setting = 'transfer'
), ranked AS (
    SELECT *,
        rank() OVER (PARTITION BY submission, task, version, states_of, measure, layer ORDER BY value)
        + (count(*) OVER (PARTITION BY submission, task, version, states_of, measure, layer, value)
            - 1) / 2.0 AS value_rank,
        rank() OVER (PARTITION BY submission, task, version, states_of, measure, layer ORDER BY score)
        + (count(*) OVER (PARTITION BY submission, task, version, states_of, measure, layer, score)
            - 1) / 2.0 AS score_rank
    FROM points
)
SELECT submission, task, version, states_of, measure, layer, count(*) AS n,
    CASE WHEN count(*) > 3 AND min(value) < max(value) AND min(score) < max(score)
        THEN corr(value_rank, score_rank) END AS spearman
FROM ranked
GROUP BY ALL;
