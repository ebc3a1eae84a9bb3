//! The project's goals, and which of them the figures meet.
//!
//! Medians decide. A goal is met only if every row that it is about has a figure; until then it is
//! open, or missed already.

use std::fmt::Write;

use serde::Serialize;

use super::{Entrant, Mode, Role, Summary};
use crate::row::{Category, PEAK, ROWS, Row};

/// A goal with the figure that decides it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Goal {
    /// The goal in words, with the rows that it is about.
    pub goal: &'static str,
    /// The bound that the measured figure must reach, or must not pass.
    pub bound: f64,
    /// The figure that decides: a mean, or the figure of the worst row. `None` without figures.
    pub measured: Option<f64>,
    /// The worst row, where each row counts.
    pub at: Option<&'static str>,
    /// Whether the goal is met. `None` if some rows have no figure and none of the others misses
    /// it.
    pub met: Option<bool>,
    /// The number of rows with figures, and of all rows of the goal.
    pub rows: (usize, usize),
    /// The rows that miss it, where each row counts.
    pub misses: Vec<Miss>,
}

/// A row that misses a goal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Miss {
    /// The row's name.
    pub row: &'static str,
    /// The row's figure.
    pub measured: f64,
}

/// The figure that a row's figure is divided by.
#[derive(Clone, Copy)]
enum Of {
    Best,
    Limit,
    Mimalloc,
    /// One thread's throughput, for each CPU in use.
    OneThread,
    /// glibc's.
    Glibc,
    /// 1 MiB: the row's figure itself.
    Mib,
    /// 1: the row's figure itself, in millions of operations a second or in instructions.
    One,
    /// The smallest peak of the peers of [`LEAN`]. The row's figure is its peak, too.
    LeanestPeak,
}

/// The peers among which the one with the smallest peak is the measure.
const LEAN: [&str; 5] = ["mimalloc", "mimalloc2", "jemalloc", "snmalloc", "tcmalloc"];

/// The condition that the figures must meet.
#[derive(Clone, Copy)]
enum Bound {
    EachAtLeast(f64),
    EachAtMost(f64),
    MeanAtLeast(f64),
    MeanAtMost(f64),
}

use Bound::{EachAtLeast, EachAtMost, MeanAtLeast, MeanAtMost};

/// A row of the tables of goals.
struct Aim {
    goal: &'static str,
    of: Of,
    bound: Bound,
    /// Whether the goal is about the row.
    about: fn(&Row) -> bool,
    /// The sides of the subject that the goal is about, the worst of which decides; if empty, the
    /// side that stands for the subject ([`Summary::subject`]).
    sides: &'static [Role],
    /// Bytes that one of the two figures must reach, or the goal is not about the row after all.
    above: f64,
}

const fn aim(goal: &'static str, of: Of, bound: Bound, about: fn(&Row) -> bool) -> Aim {
    Aim {
        goal,
        of,
        bound,
        about,
        sides: &[],
        above: 0.0,
    }
}

/// A bound in MiB of what is left.
const fn left(
    goal: &'static str,
    mib: f64,
    sides: &'static [Role],
    about: fn(&Row) -> bool,
) -> Aim {
    Aim {
        sides,
        ..aim(goal, Of::Mib, EachAtMost(mib), about)
    }
}

fn is_speed(row: &Row) -> bool {
    row.category.is_speed()
}

/// Bytes of a MiB.
const MIB: f64 = 1024.0 * 1024.0;

fn is_memory(row: &Row) -> bool {
    row.category == Category::Memory
}

const IN_PROCESS: [Aim; 8] = [
    aim(
        "random mixes, and bursts up to 1 KiB: 1.3 times the best peer",
        Of::Best,
        EachAtLeast(1.3),
        Row::is_small,
    ),
    aim(
        "producer and consumer (pairs, ring): 2 times the best peer",
        Of::Best,
        EachAtLeast(2.0),
        |row| row.is_of(&["pairs", "ring"]),
    ),
    aim(
        "Larson: 1.1 times the best peer",
        Of::Best,
        EachAtLeast(1.1),
        |row| row.is_of(&["larson"]),
    ),
    aim(
        "every row of speed: not below the best peer",
        Of::Best,
        EachAtLeast(1.0),
        is_speed,
    ),
    aim(
        "hit path: 0.75 of the null allocator",
        Of::Limit,
        EachAtLeast(0.75),
        |row| row.category == Category::HitPath,
    ),
    aim(
        "peak memory on small pages: geometric mean at most 1.1 of mimalloc's",
        Of::Mimalloc,
        MeanAtMost(1.1),
        is_memory,
    ),
    Aim {
        above: 16.0 * MIB,
        ..aim(
            "peak memory of rows above 16 MiB: at most 1.3 of mimalloc's",
            Of::Mimalloc,
            EachAtMost(1.3),
            is_memory,
        )
    },
    aim(
        "threads apart: within 15 % of one thread's throughput for each CPU",
        Of::OneThread,
        EachAtLeast(0.85),
        |row| row.is_of(&["apart"]) && row.threads() != Some(1),
    ),
];

const PRELOADED: [Aim; 3] = [
    aim(
        "all rows of speed: geometric mean 1.15 of mimalloc's",
        Of::Mimalloc,
        MeanAtLeast(1.15),
        is_speed,
    ),
    aim(
        "every row of speed: not below 0.95 of the best peer",
        Of::Best,
        EachAtLeast(0.95),
        is_speed,
    ),
    aim(
        "new and delete: 1.1 times the best peer",
        Of::Best,
        EachAtLeast(1.1),
        |row| row.is_of(&["new-delete"]),
    ),
];

/// The goals of a run that is counted.
const COUNTED: [Aim; 2] = [
    aim(
        "instructions of every row of one thread: geometric mean at most 0.9 of the best peer's",
        Of::Best,
        MeanAtMost(0.9),
        is_speed,
    ),
    aim(
        "pair of 400,000 bytes: 120 instructions at most, 60 an operation, with the harness's",
        Of::One,
        EachAtMost(60.0),
        |row| row.name == "large/400000",
    ),
];

/// The goals about large blocks and a heap that grows, in process and preloaded alike.
const LARGE: [Aim; 4] = [
    aim(
        "bursts and mixes of large blocks: not below the best peer",
        Of::Best,
        EachAtLeast(1.0),
        |row| row.name.starts_with("large/burst") || row.name.starts_with("large/mix"),
    ),
    aim(
        "pair of 3 MiB in a sparse heap: 1 µs at most, 2 million operations a second at least",
        Of::One,
        EachAtLeast(2.0),
        |row| row.is_of(&["sparse"]),
    ),
    Aim {
        sides: &[Role::Subject, Role::SmallPages, Role::Transparent],
        ..aim(
            "growth with the warmer, each page mode without a pool: p99.999 at most glibc's",
            Of::Glibc,
            EachAtMost(1.0),
            |row| row.name == "growth/512m-ahead",
        )
    },
    Aim {
        sides: &[Role::Hugetlb],
        ..aim(
            "growth with the warmer, hugetlb pages: p99.999 at most glibc's",
            Of::Glibc,
            EachAtMost(1.0),
            |row| row.name == "growth/512m-ahead",
        )
    },
];

const SMALL: &[Role] = &[Role::SmallPages];
const THP: &[Role] = &[Role::Transparent];
const BACKGROUND: &[Role] = &[Role::SmallBackground];
const BOTH_BACKGROUND: &[Role] = &[Role::SmallBackground, Role::TransparentBackground];

/// The goals about memory, in process and preloaded alike.
const AT_REST: [Aim; 11] = [
    Aim {
        sides: SMALL,
        ..aim(
            "100 resting threads with 64 blocks, small pages: 1.5 times glibc's memory at most",
            Of::Glibc,
            EachAtMost(1.5),
            |row| row.name == "rss/100-resting",
        )
    },
    left(
        "100 resting threads with 64 blocks, transparent hugepages: 24 MiB at most",
        24.0,
        THP,
        |row| row.name == "rss/100-resting",
    ),
    left(
        "100 threads after bursts in every class, background thread: 150 MiB at most",
        150.0,
        BACKGROUND,
        |row| row.name == "rss/100-bursts",
    ),
    left(
        "100 threads after bursts in every class, without it: 400 MiB at most",
        400.0,
        SMALL,
        |row| row.name == "rss/100-bursts",
    ),
    left(
        "pool threads in turn, small pages: 250 MiB at most",
        250.0,
        SMALL,
        |row| row.name == "rss/pool",
    ),
    left(
        "pool threads in turn after a purge, small pages: 60 MiB at most",
        60.0,
        SMALL,
        |row| row.name == "rss/pool-trim",
    ),
    left(
        "1 GiB freed by another thread, small pages: 60 MiB at most",
        60.0,
        SMALL,
        |row| row.name == "rss/handed-1g",
    ),
    left(
        "1 MiB live of 1 GiB after a purge, transparent hugepages: 60 MiB at most",
        60.0,
        THP,
        |row| row.name == "rss/sparse-trim",
    ),
    left(
        "all freed, background thread, small pages and transparent hugepages: 16 MiB at most",
        16.0,
        BOTH_BACKGROUND,
        |row| ["rss/freed-200m", "rss/freed-90k"].contains(&row.name),
    ),
    left(
        "every class in 8 threads, transparent hugepages: 32 MiB at most",
        32.0,
        THP,
        |row| row.name == "rss/all-classes",
    ),
    aim(
        "peak of every row about memory, small pages: geometric mean at most 1.05 of the leanest",
        Of::LeanestPeak,
        MeanAtMost(1.05),
        |row| row.category.is_memory(),
    ),
];

impl Bound {
    fn value(self) -> f64 {
        match self {
            EachAtLeast(bound) | EachAtMost(bound) | MeanAtLeast(bound) | MeanAtMost(bound) => {
                bound
            }
        }
    }

    fn is_met(self, figure: f64) -> bool {
        match self {
            EachAtLeast(bound) | MeanAtLeast(bound) => figure >= bound,
            EachAtMost(bound) | MeanAtMost(bound) => figure <= bound,
        }
    }

    fn is_of_mean(self) -> bool {
        matches!(self, MeanAtLeast(_) | MeanAtMost(_))
    }
}

impl Summary<'_> {
    /// The goals of the report's mode.
    pub fn goals(&self) -> Vec<Goal> {
        let (aims, both): (&[Aim], &[&[Aim]]) = match self.report.mode {
            Mode::InProcess => (&IN_PROCESS, &[&LARGE, &AT_REST]),
            Mode::Preloaded => (&PRELOADED, &[&LARGE, &AT_REST]),
            Mode::Counted => (&COUNTED, &[]),
        };
        let aims = aims.iter().chain(both.iter().copied().flatten());
        aims.map(|aim| self.goal(aim)).collect()
    }

    fn goal(&self, aim: &Aim) -> Goal {
        let mut of = 0;
        let mut figures: Vec<Miss> = Vec::new();
        let rows = ROWS.iter().filter(|row| self.report.mode.has(row));
        for row in rows.filter(|row| (aim.about)(row)) {
            let Some((measured, larger)) = self.figure(row, aim) else {
                of += 1;
                continue;
            };
            if larger >= aim.above {
                of += 1;
                figures.push(Miss {
                    row: row.name,
                    measured,
                });
            }
        }
        let rows = (figures.len(), of);
        let bound = aim.bound;
        figures.sort_by(|a, b| match bound {
            EachAtLeast(_) | MeanAtLeast(_) => a.measured.total_cmp(&b.measured),
            EachAtMost(_) | MeanAtMost(_) => b.measured.total_cmp(&a.measured),
        });
        let (measured, at) = if bound.is_of_mean() {
            (mean(figures.iter().map(|figure| figure.measured)), None)
        } else {
            let worst = figures.first();
            (
                worst.map(|worst| worst.measured),
                worst.map(|worst| worst.row),
            )
        };
        let misses = measured.is_some_and(|measured| !bound.is_met(measured));
        // A mean of some rows says nothing about that of all.
        let met = match (rows.0 == of, misses) {
            (true, _) => measured.map(|_| !misses),
            (false, true) if !bound.is_of_mean() => Some(false),
            (false, _) => None,
        };
        figures.retain(|figure| !bound.is_of_mean() && !bound.is_met(figure.measured));
        Goal {
            goal: aim.goal,
            bound: bound.value(),
            measured,
            at,
            met,
            rows,
            misses: figures,
        }
    }

    /// The subject's figure on the row as a multiple of another, and the larger one of the two.
    fn figure(&self, row: &Row, aim: &Aim) -> Option<(f64, f64)> {
        let subject = self.worst_side(row, aim)?;
        let other = match aim.of {
            Of::Best => self.best(row)?.median,
            Of::Limit => self.of_role(row, Role::Limit).next()?.median,
            Of::Mimalloc => self.of_name(row, "mimalloc", self.compared(row))?,
            Of::Glibc => self.of_name(row, "system", self.compared(row))?,
            Of::Mib => MIB,
            Of::One => 1.0,
            Of::LeanestPeak => {
                let peaks = LEAN.iter().filter_map(|name| self.of_name(row, name, PEAK));
                peaks.min_by(f64::total_cmp)?
            }
            Of::OneThread => {
                let one = ROWS.iter().find(|row| row.is_of(&["apart"]))?;
                self.subject(one)?.median * row.threads()?.min(self.report.cpus) as f64
            }
        };
        Some((subject / other, subject.max(other)))
    }

    /// The figure of the subject, or the worst of the sides that the goal is about.
    fn worst_side(&self, row: &Row, aim: &Aim) -> Option<f64> {
        match (aim.of, aim.sides) {
            (Of::LeanestPeak, _) => self.of_name(row, &self.subject(row)?.allocator, PEAK),
            (_, []) => Some(self.subject(row)?.median),
            (_, sides) => {
                let median = |role: &Role| Some(self.of_role(row, *role).next()?.median);
                let medians: Option<Vec<f64>> = sides.iter().map(median).collect();
                medians?.into_iter().max_by(f64::total_cmp)
            }
        }
    }

    /// The median of an allocator's metric.
    fn of_name(&self, row: &Row, name: &str, metric: &str) -> Option<f64> {
        let mut entrants = self.report.entrants.iter();
        let entrant = entrants.find(|entrant: &&Entrant| entrant.name == name)?;
        Some(self.metric(row, entrant, metric)?.median)
    }

    /// The goals as lines of a table, the heading first.
    pub fn goal_lines(&self) -> Vec<Vec<String>> {
        let heading = ["goal", "measured", "met", "rows that miss it"];
        let mut lines = vec![heading.map(str::to_owned).to_vec()];
        for goal in self.goals() {
            let mut measured = goal
                .measured
                .map_or("-".into(), |figure| format!("{figure:.2}"));
            // Writing into a String cannot fail, here and below.
            let _ = goal.at.map(|row| write!(measured, " at {row}"));
            let (some, all) = goal.rows;
            if some < all {
                let _ = write!(measured, " ({some} of {all} rows)");
            }
            let met = match goal.met {
                Some(true) => "yes",
                Some(false) => "no",
                None => "open",
            };
            let misses = goal.misses.iter();
            let misses: Vec<_> = misses
                .map(|miss| format!("{} {:.2}", miss.row, miss.measured))
                .collect();
            lines.push(vec![
                goal.goal.into(),
                measured,
                met.into(),
                misses.join(", "),
            ]);
        }
        lines
    }
}

/// The geometric mean; `None` of nothing.
pub(super) fn mean(ratios: impl Iterator<Item = f64>) -> Option<f64> {
    let logs: Vec<f64> = ratios.map(f64::ln).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}
