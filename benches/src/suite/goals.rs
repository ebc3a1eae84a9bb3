//! The project's goals, and which of them the figures meet.
//!
//! Medians decide. A goal is met only if every row that it is about has a figure; until then it is
//! open, or missed already.

use std::fmt::Write;

use serde::Serialize;

use super::{Mode, Role, Summary};
use crate::row::{Category, ROWS, Row};

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
}

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
    /// Bytes that one of the two figures must reach, or the goal is not about the row after all.
    above: f64,
}

const fn aim(goal: &'static str, of: Of, bound: Bound, about: fn(&Row) -> bool) -> Aim {
    Aim {
        goal,
        of,
        bound,
        about,
        above: 0.0,
    }
}

fn is_speed(row: &Row) -> bool {
    row.category != Category::Memory
}

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
        above: 16.0 * 1024.0 * 1024.0,
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

const PRELOADED: [Aim; 2] = [
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
        let aims: &[Aim] = match self.report.mode {
            Mode::InProcess => &IN_PROCESS,
            Mode::Preloaded => &PRELOADED,
        };
        aims.iter().map(|aim| self.goal(aim)).collect()
    }

    fn goal(&self, aim: &Aim) -> Goal {
        let mut of = 0;
        let mut figures: Vec<Miss> = Vec::new();
        for row in ROWS.iter().filter(|row| (aim.about)(row)) {
            let Some((measured, larger)) = self.figure(row, aim.of) else {
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
    fn figure(&self, row: &Row, of: Of) -> Option<(f64, f64)> {
        let subject = self.subject(row)?.median;
        let other = match of {
            Of::Best => self.best(row)?.median,
            Of::Limit => self.of_role(row, Role::Limit).next()?.median,
            Of::Mimalloc => {
                let entrants = self.report.entrants.iter();
                let mut mimalloc = entrants.filter(|entrant| entrant.name == "mimalloc");
                self.record(row, mimalloc.next()?)?.median
            }
            Of::OneThread => {
                let one = ROWS.iter().find(|row| row.is_of(&["apart"]))?;
                self.subject(one)?.median * row.threads()?.min(self.report.cpus) as f64
            }
        };
        Some((subject / other, subject.max(other)))
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
