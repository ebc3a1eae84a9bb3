//! `theap compare --html`: one page with everything in it, that loads nothing, and is well-formed XML.

pub mod charts;
mod rows;

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use anyhow::{Context, Result};
use procfs::{CpuInfo, Current};
use theap_bench::{Column, Latency, QUANTILES, Record, clock_resolution};

use crate::doctor;
use crate::findings::Findings;
use charts::{Bars, Line, duration};
pub use rows::write as write_rows;

const STYLE: &str = include_str!("page.css");

/// The page in the making, with what it is about.
struct Page<'a> {
    findings: &'a Findings,
    /// In the order of their colours.
    sides: Vec<Column>,
    text: String,
}

/// Writes the page.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write(findings: &Findings, path: &Path) -> Result<()> {
    let mut sides: Vec<Column> = Vec::new();
    for record in &findings.records {
        let side = Column::of(record);
        if !sides.contains(&side) {
            sides.push(side);
        }
    }
    let mut page = Page {
        findings,
        sides,
        text: String::new(),
    };
    page.fill()?;
    fs::write(path, page.text).with_context(|| format!("cannot write {}", path.display()))
}

impl Page<'_> {
    fn fill(&mut self) -> Result<()> {
        self.add(format_args!(
            "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width\"/><title>theap compare</title>\n\
             <style>{STYLE}</style></head><body>\n<h1>theap against System on this host</h1>\n"
        ));
        self.paragraph(
            "Each run had a process of its own; sides took turns in every round. Figures are of one host at one \
             time: ratios between sides of this page tell more than the figures themselves.",
        );
        self.key();
        self.latencies()?;
        self.faults()?;
        self.memory()?;
        self.figures();
        self.host()?;
        self.add(format_args!("</body></html>\n"));
        Ok(())
    }

    fn add(&mut self, text: std::fmt::Arguments) {
        self.text.write_fmt(text).expect("a String takes all");
    }

    fn paragraph(&mut self, text: &str) {
        self.add(format_args!("<p>{}</p>\n", escaped(text)));
    }

    fn key(&mut self) {
        self.add(format_args!("<p class=\"key\">"));
        for side in 0..self.sides.len() {
            let (color, title) = (charts::color(side), escaped(&self.sides[side].title()));
            self.add(format_args!(
                "<span><i style=\"background:{color}\"></i>{title}</span>"
            ));
        }
        self.add(format_args!("</p>\n"));
    }

    /// A figure with its chart and what stands below it.
    fn figure(&mut self, id: &str, title: &str, svg: &str, below: &str) {
        let (id, title) = (escaped(id), escaped(title));
        self.add(format_args!(
            "<figure id=\"{id}\"><h3>{title}</h3>\n{svg}<figcaption>{below}</figcaption></figure>\n"
        ));
    }

    fn latencies(&mut self) -> Result<()> {
        let found = &self.findings.latencies;
        let names = found
            .iter()
            .map(|found| (&*found.workload, &*found.what.0.what));
        let names = distinct(names);
        if names.is_empty() {
            return Ok(());
        }
        self.add(format_args!("<h2>Latency</h2>\n"));
        self.paragraph(
            "How long the given part of all operations took at most, all rounds together: p99.9 is the time that one in \
             a thousand exceeded. Both axes are logarithmic; lower is better, and the right end is the longest time of \
             all. What takes a thread's CPU away (other programs, interrupts) shows there too, so the involuntary \
             context switches of a round stand beside the maximum.",
        );
        self.paragraph(
            "alloc_touch: an allocation with the first write to each of its pages. service: a request from the moment the \
             server took it; response: from the moment it was due, so a stall counts for every request that it delayed. idle: \
             a turn of the loop that waits for the next operation: what the machine does to a thread that does nothing. \
             -warm: after warm_up. -ahead: theap's warmer follows the growth. System has neither and runs as it is.",
        );
        let curves: Vec<_> = found.iter().map(|found| found.what.0.curve()).collect();
        let range = decades(curves.iter().flatten().map(|&(_, nanos)| nanos));
        self.add(format_args!("<div class=\"charts\">\n"));
        for (workload, what) in names {
            let mut lines = Vec::new();
            let mut rows = String::new();
            for side in 0..self.sides.len() {
                let Column { allocator, pages } = &self.sides[side];
                let of_side = |found: &&_| -> bool {
                    let found: &crate::findings::Finding<_> = found;
                    found.is(workload, allocator, pages)
                };
                let mut of_side = self.findings.latencies.iter().filter(of_side);
                let Some(found) = of_side.find(|found| found.what.0.what == what) else {
                    continue;
                };
                let curve = found.what.0.curve().into_iter();
                let points = curve.map(|(nines, nanos)| (nines, nanos as f64)).collect();
                lines.push(Line { side, points });
                rows += &self.latency_row(workload, side, &found.what.0);
            }
            let svg = charts::latency(&lines, range)?;
            let heads: String = QUANTILES
                .iter()
                .map(|(name, _)| format!("<th>{name}</th>"))
                .collect();
            let below = format!(
                "<div class=\"wide\"><table><tr><th>side</th>{heads}<th title=\"involuntary context switches a round\">switches</th></tr>{rows}</table></div>"
            );
            let title = format!("{workload}: {what}");
            self.figure(&format!("latency-{workload}-{what}"), &title, &svg, &below);
        }
        self.add(format_args!("</div>\n"));
        Ok(())
    }

    fn latency_row(&self, workload: &str, side: usize, latency: &Latency) -> String {
        let switches = self.record(workload, side, "involuntary_switches");
        let switches = switches.map_or("–".into(), |record| {
            format!("{} [{}–{}]", record.median, record.min, record.max)
        });
        let cells: String = QUANTILES
            .iter()
            .map(|&(_, quantile)| {
                format!("<td>{}</td>", duration(latency.quantile(quantile) as f64))
            })
            .collect();
        let title = escaped(&self.sides[side].title());
        format!("<tr><td>{title}</td>{cells}<td>{switches}</td></tr>")
    }

    fn faults(&mut self) -> Result<()> {
        let (faults, cost) = (self.bars("minor_faults"), self.bars("cost_per_mib"));
        self.add(format_args!(
            "<h2>Page faults</h2>\n<div class=\"charts\">\n"
        ));
        if !faults.is_empty() {
            let svg = charts::bars(&faults, true, &|value| format!("{value:.0}"))?;
            let below = "Minor faults of the process in the measured part, median of the rounds, those of populating \
                         included. The scale is logarithmic.";
            self.figure("faults", "Faults", &svg, below);
        }
        if !cost.is_empty() {
            let svg = charts::bars(&cost, false, &|value| format!("{value:.0} µs"))?;
            let below = "Microseconds for each MiB that is allocated and touched for the first time, median of the \
                         rounds, the time of preparation (warm_up) counted in. The scale is linear.";
            self.figure("fault-cost", "Fault cost per MiB", &svg, below);
        }
        self.add(format_args!("</div>\n"));
        Ok(())
    }

    /// Medians of the metric, a group a workload.
    fn bars(&self, metric: &str) -> Vec<Bars> {
        let of_metric = self
            .findings
            .records
            .iter()
            .filter(|record| record.metric == metric);
        let names = distinct(of_metric.map(|record| &*record.workload));
        let values = |workload: &str| {
            let sides = 0..self.sides.len();
            let value = |side| Some((side, self.record(workload, side, metric)?.median));
            sides.filter_map(value).collect()
        };
        let bars = |name: &str| Bars {
            name: name.into(),
            values: values(name),
        };
        names.into_iter().map(bars).collect()
    }

    fn memory(&mut self) -> Result<()> {
        let names = distinct(self.findings.memory.iter().map(|found| &*found.workload));
        if names.is_empty() {
            return Ok(());
        }
        self.add(format_args!("<h2>Memory over time</h2>\n"));
        self.paragraph(
            "Resident memory of the process in the first round, hugetlb pages included, from its start to its end, looked \
             at from outside. Before the measured part the workload makes its own tables; a steep rise at the beginning \
             is preparation.",
        );
        self.add(format_args!("<div class=\"charts\">\n"));
        for workload in names {
            let line = |side: usize| {
                let Column { allocator, pages } = &self.sides[side];
                let mut found = self.findings.memory.iter();
                let found = found.find(|found| found.is(workload, allocator, pages))?;
                let points = found.what.memory.iter();
                let points = points.map(|&(time, bytes)| (time, bytes as f64)).collect();
                Some(Line { side, points })
            };
            let lines: Vec<Line> = (0..self.sides.len()).filter_map(line).collect();
            let svg = charts::memory(&lines)?;
            self.figure(&format!("memory-{workload}"), workload, &svg, "");
        }
        self.add(format_args!("</div>\n"));
        Ok(())
    }

    fn figures(&mut self) {
        self.add(format_args!(
            "<h2>All figures</h2>\n<p>Median [smallest–largest] of the rounds.</p>\n\
             <div class=\"wide\"><table class=\"all\"><tr><th>workload</th><th>metric</th><th>unit</th>"
        ));
        for side in 0..self.sides.len() {
            let title = escaped(&self.sides[side].title());
            self.add(format_args!("<th>{title}</th>"));
        }
        self.add(format_args!("</tr>\n"));
        let records = self.findings.records.iter();
        let rows = records.map(|record| (&*record.workload, &*record.metric, &*record.unit));
        for (workload, metric, unit) in distinct(rows) {
            let shown = theap_bench::shown_unit(unit);
            self.add(format_args!(
                "<tr><td>{}</td><td>{metric}</td><td>{}</td>",
                escaped(workload),
                shown.0
            ));
            for side in 0..self.sides.len() {
                let record = self.record(workload, side, metric);
                let cell =
                    record.map_or("–".into(), |record| theap_bench::figures(record, shown.1));
                self.add(format_args!("<td>{cell}</td>"));
            }
            self.add(format_args!("</tr>\n"));
        }
        self.add(format_args!("</table></div>\n"));
    }

    fn host(&mut self) -> Result<()> {
        let cpu = CpuInfo::current().ok();
        let model = cpu
            .as_ref()
            .and_then(|cpu| cpu.model_name(0))
            .unwrap_or("unknown");
        let command: Vec<_> = env::args().collect();
        let clock = format!(
            "time stamp counter; every time includes the {} ns of a reading",
            clock_resolution()?
        );
        let own = [
            ("command", command.join(" ")),
            ("theap", env!("CARGO_PKG_VERSION").into()),
            (
                "processor",
                format!(
                    "{} × {model}",
                    cpu.as_ref().map_or(0, |cpu| cpu.num_cores())
                ),
            ),
            ("clock", clock),
        ];
        self.add(format_args!(
            "<h2>The host</h2>\n<p>What it was when the page was written, as theap doctor sees it.</p>\n\
             <table class=\"facts\">\n"
        ));
        for (subject, found) in own.into_iter().chain(doctor::facts()) {
            let (subject, found) = (escaped(subject), escaped(&found));
            self.add(format_args!(
                "<tr><td>{subject}</td><td>{found}</td></tr>\n"
            ));
        }
        self.add(format_args!("</table>\n"));
        Ok(())
    }

    fn record(&self, workload: &str, side: usize, metric: &str) -> Option<&Record> {
        self.findings.records.iter().find(|record| {
            record.workload == workload
                && record.metric == metric
                && Column::of(record) == self.sides[side]
        })
    }
}

/// Each once, in order of first appearance.
fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

/// The powers of ten around all times.
fn decades(nanos: impl Iterator<Item = u64>) -> (f64, f64) {
    let (low, high) = nanos.fold((u64::MAX, 1), |(low, high), nanos| {
        (low.min(nanos), high.max(nanos))
    });
    let power = |exponent: f64| 10f64.powf(exponent);
    let low = (low.clamp(1, high) as f64).log10().floor();
    (
        power(low),
        power((high as f64).log10().ceil().max(low + 1.0)),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
