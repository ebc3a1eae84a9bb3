//! The page that `theap compare --html` writes: latency, page faults, memory over time, all
//! figures.

use std::env;
use std::ffi::OsStr;
use std::path::Path;

use anyhow::Result;
use procfs::{CpuInfo, Current};
use theap_bench::render::charts::{self, Bars, Line, duration};
use theap_bench::render::{Page, distinct, escaped};
use theap_bench::{Column, Latency, QUANTILES, Record, clock_resolution};

use super::findings::{Finding, Findings};
use crate::doctor;

/// The page that is being written, and the findings that it shows.
struct Comparison<'a> {
    findings: &'a Findings,
    page: Page,
}

/// Writes the page.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write(findings: &Findings, path: &Path) -> Result<()> {
    let sides = distinct(findings.records.iter().map(Column::of));
    let heading = "theap against System on this host";
    let mut comparison = Comparison {
        findings,
        page: Page::new("theap compare", heading, sides),
    };
    comparison.fill()?;
    Ok(comparison.page.write(path)?)
}

impl Comparison<'_> {
    fn fill(&mut self) -> Result<()> {
        self.page.paragraph(
            "Each run had a process of its own; sides took turns in every round. Figures are of one host at one \
             time: ratios between sides of this page tell more than the figures themselves.",
        );
        self.page.key();
        self.latencies()?;
        self.faults()?;
        self.memory()?;
        self.page.figures(&self.findings.records);
        self.host()
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
        self.page.add(format_args!("<h2>Latency</h2>\n"));
        self.page.paragraph(
            "The time that the given part of all operations took at most, all rounds together: p99.9 is the time that \
             one operation in a thousand exceeded. Both axes are logarithmic; lower is better, and the right end is the longest time of \
             all. What takes a thread's CPU away (other programs, interrupts) shows there too, so the involuntary \
             context switches of a round stand beside the maximum.",
        );
        self.page.paragraph(
            "alloc_touch: an allocation with the first write to each of its pages. service: a request from the moment the \
             server took it; response: from the moment it was due, so a stall counts for every request that it delayed. idle: \
             a turn of the loop that waits for the next operation: what the machine does to a thread that does nothing. \
             -warm: after warm_up. -ahead: theap's warmer follows the growth. System has neither and runs as it is.",
        );
        let curves: Vec<_> = found.iter().map(|found| found.what.0.curve()).collect();
        let range = decades(curves.iter().flatten().map(|&(_, nanos)| nanos));
        self.page.add(format_args!("<div class=\"charts\">\n"));
        for (workload, what) in names {
            let mut lines = Vec::new();
            let mut rows = String::new();
            for side in 0..self.page.sides.len() {
                let Column { allocator, pages } = &self.page.sides[side];
                let of_side = |found: &&_| -> bool {
                    let found: &Finding<_> = found;
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
            self.page
                .figure(&format!("latency-{workload}-{what}"), &title, &svg, &below);
        }
        self.page.add(format_args!("</div>\n"));
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
        let title = escaped(&self.page.sides[side].title());
        format!("<tr><td>{title}</td>{cells}<td>{switches}</td></tr>")
    }

    fn faults(&mut self) -> Result<()> {
        let (faults, cost) = (self.bars("minor_faults"), self.bars("cost_per_mib"));
        self.page.add(format_args!(
            "<h2>Page faults</h2>\n<div class=\"charts\">\n"
        ));
        if !faults.is_empty() {
            let svg = charts::bars(&faults, true, &|value| format!("{value:.0}"))?;
            let below = "Minor faults of the process in the measured part, median of the rounds, those of populating \
                         included. The scale is logarithmic.";
            self.page.figure("faults", "Faults", &svg, below);
        }
        if !cost.is_empty() {
            let svg = charts::bars(&cost, false, &|value| format!("{value:.0} µs"))?;
            let below = "Microseconds for each MiB that is allocated and touched for the first time, median of the \
                         rounds, the time of preparation (warm_up) counted in. The scale is linear.";
            self.page
                .figure("fault-cost", "Fault cost per MiB", &svg, below);
        }
        self.page.add(format_args!("</div>\n"));
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
            let sides = 0..self.page.sides.len();
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
        self.page.add(format_args!("<h2>Memory over time</h2>\n"));
        self.page.paragraph(
            "Resident memory of the process in the first round, hugetlb pages included, from its start to its end, sampled \
             from outside. Before the measured part the workload makes its own tables; a steep rise at the beginning \
             is preparation.",
        );
        self.page.add(format_args!("<div class=\"charts\">\n"));
        for workload in names {
            let line = |side: usize| {
                let Column { allocator, pages } = &self.page.sides[side];
                let mut found = self.findings.memory.iter();
                let found = found.find(|found| found.is(workload, allocator, pages))?;
                let points = found.what.memory.iter();
                let points = points.map(|&(time, bytes)| (time, bytes as f64)).collect();
                Some(Line { side, points })
            };
            let lines: Vec<Line> = (0..self.page.sides.len()).filter_map(line).collect();
            let svg = charts::memory(&lines)?;
            self.page
                .figure(&format!("memory-{workload}"), workload, &svg, "");
        }
        self.page.add(format_args!("</div>\n"));
        Ok(())
    }

    fn host(&mut self) -> Result<()> {
        let cpu = CpuInfo::current().ok();
        let model = cpu
            .as_ref()
            .and_then(|cpu| cpu.model_name(0))
            .unwrap_or("unknown");
        let command: Vec<_> = env::args_os().collect();
        let clock = format!(
            "time stamp counter; every time includes the {} ns of a reading",
            clock_resolution()?
        );
        let own = [
            (
                "command",
                command.join(OsStr::new(" ")).to_string_lossy().into_owned(),
            ),
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
        let about = "The host when the page was written, as theap doctor sees it.";
        let own = own.into_iter().chain(doctor::facts());
        self.page.facts(about, own);
        Ok(())
    }

    fn record(&self, workload: &str, side: usize, metric: &str) -> Option<&Record> {
        self.page
            .record(&self.findings.records, workload, side, metric)
    }
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
