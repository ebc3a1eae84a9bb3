//! The events that were seen: printed one by one, summed up, and written as a file in the Chrome
//! trace format.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use theap::{Event, EventKind};

use crate::pages;

/// The stages of a refill that spans come from, by their numbers in events.
const STAGES: [&str; 8] = [
    "", "stash", "partial", "empty", "fresh", "prepared", "grow", "remote",
];

/// The events of a trace.
pub struct Record {
    out: Box<dyn Write>,
    quiet: bool,
    /// Events to keep for the file, at most.
    limit: usize,
    kept: Vec<Event>,
    /// The number of events of each kind, and the time that they took together.
    counts: BTreeMap<&'static str, (u64, Duration)>,
    /// Events that were overwritten before they were read.
    pub lost: u64,
    /// The time of the first event.
    first: Option<u64>,
}

impl Record {
    /// An empty record that prints to `out`, each event unless it is `quiet`, and keeps `limit`
    /// events.
    pub fn new(out: Box<dyn Write>, quiet: bool, limit: usize) -> Self {
        Self {
            out,
            quiet,
            limit,
            kept: Vec::new(),
            counts: BTreeMap::new(),
            lost: 0,
            first: None,
        }
    }

    /// Whether there has been no event.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Adds the events of one reading, in the order of time.
    ///
    /// # Errors
    /// Fails if they cannot be printed.
    pub fn add_all(&mut self, mut events: Vec<Event>) -> Result<()> {
        events.sort_by_key(|event| event.time);
        for event in events {
            self.add(event)?;
        }
        Ok(self.out.flush()?)
    }

    fn add(&mut self, event: Event) -> Result<()> {
        let (count, time) = self.counts.entry(event.kind.name()).or_default();
        *count += 1;
        *time += Duration::from_nanos(event.duration.into());
        let first = *self.first.get_or_insert(event.time);
        if self.kept.len() < self.limit {
            self.kept.push(event);
        }
        if self.quiet {
            return Ok(());
        }
        let fields: Vec<String> = arguments(&event)
            .into_iter()
            .map(|(name, value)| {
                let value = value.as_str().map_or(value.to_string(), str::to_owned);
                format!("{name}={value}")
            })
            .collect();
        let at = event.time.wrapping_sub(first) as f64 / 1e9;
        let took = f64::from(event.duration) / 1e3;
        let (source, kind) = (source(event.source), event.kind.name());
        writeln!(
            self.out,
            "{at:>12.6} {source:<10} {kind:<9} {took:>10.3} us  {}",
            fields.join(" ")
        )?;
        Ok(())
    }

    /// Prints the number of events of each kind, and how many were lost.
    ///
    /// # Errors
    /// Fails if the sums cannot be printed.
    pub fn sum_up(&mut self) -> Result<()> {
        for (name, (count, time)) in &self.counts {
            let mean = time.as_secs_f64() * 1e6 / *count as f64;
            writeln!(
                self.out,
                "{name:<10} {count:>10} events, {mean:>10.3} us each"
            )?;
        }
        writeln!(self.out, "lost       {:>10} events", self.lost)?;
        Ok(())
    }

    /// Writes the kept events of process `pid` to a file, in the order of time.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn write(&mut self, path: &Path, pid: i32) -> Result<()> {
        self.kept.sort_by_key(|event| event.time);
        let sources: BTreeSet<usize> = self.kept.iter().map(|event| event.source).collect();
        let named = sources.into_iter().map(|tid| {
            let arguments = json!({"name": source(tid)});
            json!({"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": arguments})
        });
        let events = self.kept.iter().map(|event| {
            let arguments: BTreeMap<_, _> = arguments(event).into_iter().collect();
            json!({
                "name": event.kind.name(),
                "cat": "theap",
                "ph": "X",
                "ts": event.time as f64 / 1e3,
                "dur": f64::from(event.duration) / 1e3,
                "pid": pid,
                "tid": event.source,
                "args": arguments,
            })
        });
        let mut file = BufWriter::new(File::create(path)?);
        let lost = self.lost;
        write!(
            file,
            "{{\"displayTimeUnit\":\"ns\",\"otherData\":{{\"lost\":\"{lost}\"}},\"traceEvents\":["
        )?;
        for (index, event) in named.chain(events).enumerate() {
            writeln!(file, "{}", if index == 0 { "" } else { "," })?;
            serde_json::to_writer(&mut file, &event)?;
        }
        writeln!(file, "\n]}}")?;
        Ok(file.flush()?)
    }
}

/// The name of the ring that an event comes from.
fn source(number: usize) -> String {
    match number.checked_sub(1) {
        None => "pool".to_owned(),
        Some(heap) => format!("heap {heap}"),
    }
}

/// The numbers of an event, with their names and in words.
fn arguments(event: &Event) -> Vec<(&'static str, Value)> {
    let [a, b, value] = event.kind.fields();
    let fields = [
        (a, u64::from(event.a)),
        (b, u64::from(event.b)),
        (value, event.value),
    ];
    fields
        .into_iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, number)| {
            let value = match name {
                "class" => theap::class_size(number as usize).map(Value::from),
                "stage" => STAGES.get(number as usize).map(|&stage| stage.into()),
                "pages" => Some(pages_name(number as usize).map_or(number.into(), Value::from)),
                "address" => Some(format!("{number:#x}").into()),
                _ => None,
            };
            (name, value.unwrap_or_else(|| number.into()))
        })
        .collect()
}

/// The name of a page mode by its number in events; 0 stands for no pages.
fn pages_name(number: usize) -> Option<&'static str> {
    match number.checked_sub(1) {
        None => Some(""),
        Some(nth) => pages::MAPPED.get(nth).map(|mode| mode.name()),
    }
}

/// Every kind has a name of its own, by which it is counted.
const _: () = assert!(EventKind::ALL.len() == 15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_the_names_of_the_option() {
        let names = (0..6).map(pages_name).collect::<Vec<_>>();
        let known = ["", "small", "thp", "hugetlb", "hugetlb-1g"].map(Some);
        assert_eq!(names[..5], known);
        assert_eq!(names[5], None);
    }
}
