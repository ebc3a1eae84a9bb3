//! The figures of a heap with what is asked for besides: its heaps one by one, and the memory that
//! the kernel has for it.

use super::format::{write_fields, write_help};
use super::{HeapStats, Metric, Resident, Stats};
use core::fmt::{Result, Write};

/// The figures of a heap, to be written with those of its heaps and of its resident memory. Nothing
/// here allocates.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a, H> {
    /// The figures.
    pub stats: &'a Stats,
    /// The figures of each heap.
    pub heaps: H,
    /// The memory that the kernel has for the heap, if it was asked.
    pub resident: Option<Resident>,
}

impl HeapStats {
    /// Writes the head of a table of heaps.
    ///
    /// # Errors
    /// The error that `out` returned.
    pub fn write_text_head(out: &mut impl Write) -> Result {
        write!(out, "{:>10} {:>8} {:<15}", "heap", "thread", "name")?;
        for (name, width, ..) in Self::FIGURES {
            write!(out, " {name:>width$}")?;
        }
        out.write_char('\n')
    }

    /// Writes a row of a table of heaps.
    ///
    /// # Errors
    /// The error that `out` returned.
    pub fn write_text(&self, out: &mut impl Write) -> Result {
        write!(
            out,
            "{:>10} {:>8} {:<15}",
            self.heap, self.thread, self.name
        )?;
        for ((_, width, ..), (_, value)) in Self::FIGURES.iter().zip(self.list()) {
            write!(out, " {value:>width$}")?;
        }
        out.write_char('\n')
    }
}

impl<H: Iterator<Item = HeapStats> + Clone> Shown<'_, H> {
    /// Writes tables for people.
    ///
    /// # Errors
    /// The error that `out` returned.
    pub fn write_text(&self, out: &mut impl Write) -> Result {
        if let Some(resident) = &self.resident {
            for (name, bytes) in resident.sizes() {
                writeln!(out, "{name:<20} {bytes:>16} bytes")?;
            }
        }
        self.stats.write_text(out)?;
        let mut heaps = self.heaps.clone().peekable();
        if heaps.peek().is_some() {
            HeapStats::write_text_head(out)?;
        }
        heaps.try_for_each(|heap| heap.write_text(out))?;
        if let Some(resident) = &self.resident {
            let used = self.stats.allocated;
            write_share(out, "allocated / resident", used, resident.resident)?;
        }
        Ok(())
    }

    /// Writes one JSON object, without a line end: that of [`Stats::write_json`], with the sizes of
    /// the resident memory, and a list `threads`.
    ///
    /// # Errors
    /// The error that `out` returned.
    pub fn write_json(&self, out: &mut impl Write) -> Result {
        out.write_char('{')?;
        self.stats.write_json_fields(out)?;
        if let Some(resident) = &self.resident {
            out.write_char(',')?;
            write_fields(out, resident.sizes().into_iter())?;
        }
        out.write_str(",\"threads\":[")?;
        for (index, heap) in self.heaps.clone().enumerate() {
            out.write_str(if index == 0 { "{" } else { ",{" })?;
            write!(out, "\"name\":\"{}\",", heap.name)?;
            let numbers = [("heap", heap.heap), ("thread", heap.thread)];
            write_fields(out, numbers.into_iter().chain(heap.list()))?;
            out.write_char('}')?;
        }
        out.write_str("]}")
    }

    /// Writes the metrics in Prometheus' text format (version 0.0.4).
    ///
    /// # Errors
    /// The error that `out` returned.
    pub fn write_prometheus(&self, out: &mut impl Write) -> Result {
        self.stats.write_prometheus(out)?;
        let figures = self.resident.as_ref().map(Resident::figures);
        for (name, help, bytes) in figures.into_iter().flatten() {
            write_help(out, format_args!("{name}_bytes"), Metric::Gauge, help)?;
            writeln!(out, "theap_{name}_bytes {bytes}")?;
        }
        // A metric without a sample is none.
        if self.heaps.clone().next().is_none() {
            return Ok(());
        }
        for (index, (name, _, metric, help)) in HeapStats::FIGURES.into_iter().enumerate() {
            let (name, suffix) = (name.trim_end_matches("_bytes"), metric.suffix());
            let name = format_args!("heap_{name}_bytes{suffix}");
            write_help(out, name, metric, help)?;
            for heap in self.heaps.clone() {
                let HeapStats {
                    heap: number,
                    thread,
                    name: of,
                    ..
                } = heap;
                let value = heap.list()[index].1;
                write!(out, "theap_{name}{{heap=\"{number}\",thread=\"{thread}\",")?;
                writeln!(out, "name=\"{of}\"}} {value}")?;
            }
        }
        Ok(())
    }
}

/// Writes a share in percent, unless it is one of nothing.
pub fn write_share(out: &mut impl Write, name: &str, part: u64, of: u64) -> Result {
    if of == 0 {
        return Ok(());
    }
    let tenths = u128::from(part) * 1000 / u128::from(of);
    let (percent, tenth) = (tenths / 10, tenths % 10);
    writeln!(out, "{name:<20} {percent:>14}.{tenth} %")
}
