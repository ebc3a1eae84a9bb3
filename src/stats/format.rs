//! [`Stats`] as text for people, as JSON, and in the text format that Prometheus scrapes. Nothing
//! here allocates.

use super::figures::{Family, Metric};
use super::shown::write_share;
use super::{COUNTERS, ClassStats, METRICS, Stats};
use core::fmt::{Display, Result, Write};

impl Stats {
    fn used_classes(&self) -> impl Iterator<Item = &ClassStats> {
        self.classes.iter().filter(|class| class.is_used())
    }

    /// Writes a table for people.
    ///
    /// # Errors
    /// The error that `out` returned.
    pub fn write_text(&self, out: &mut impl Write) -> Result {
        for (name, bytes) in self.sizes() {
            writeln!(out, "{name:<20} {bytes:>16} bytes")?;
        }
        let held = self.active.wrapping_add(self.outside);
        write_share(out, "allocated / active", self.allocated, held)?;
        let counts = self.counts().map(|(name, _, count)| (name, count));
        for (name, count) in counts.into_iter().chain(self.totals.list()) {
            writeln!(out, "{name:<20} {count:>16}")?;
        }
        if self.nodes.len() > 1 {
            for node in self.nodes.iter() {
                writeln!(out, "node {}", node.node)?;
                for (name, bytes) in node.sizes() {
                    writeln!(out, "  {name:<18} {bytes:>16} bytes")?;
                }
            }
        }
        self.write_text_classes(out)
    }

    fn write_text_classes(&self, out: &mut impl Write) -> Result {
        write!(out, "{:>10}", "class")?;
        for (name, width, ..) in ClassStats::FIGURES {
            write!(out, " {name:>width$}")?;
        }
        out.write_char('\n')?;
        for class in self.used_classes() {
            write!(out, "{:>10}", class.size)?;
            for ((_, width, ..), (_, value)) in ClassStats::FIGURES.iter().zip(class.list()) {
                write!(out, " {value:>width$}")?;
            }
            out.write_char('\n')?;
        }
        Ok(())
    }

    /// Writes one JSON object, without a line end. Classes that were never used are left out.
    ///
    /// # Errors
    /// The error that `out` returned.
    pub fn write_json(&self, out: &mut impl Write) -> Result {
        out.write_char('{')?;
        self.write_json_fields(out)?;
        out.write_char('}')
    }

    /// Writes the fields of the JSON object.
    pub(super) fn write_json_fields(&self, out: &mut impl Write) -> Result {
        let counts = self.counts().map(|(name, _, count)| (name, count));
        write_fields(out, self.sizes().into_iter().chain(counts))?;
        out.write_str(",\"counters\":{")?;
        write_fields(out, self.totals.list())?;
        out.write_str("},\"nodes\":[")?;
        for (index, node) in self.nodes.iter().enumerate() {
            out.write_str(if index == 0 { "{" } else { ",{" })?;
            write_fields(out, [("node", node.node)].into_iter().chain(node.sizes()))?;
            out.write_char('}')?;
        }
        out.write_str("],\"classes\":[")?;
        for (index, class) in self.used_classes().enumerate() {
            out.write_str(if index == 0 { "{" } else { ",{" })?;
            write_fields(out, [("size", class.size)].into_iter().chain(class.list()))?;
            out.write_char('}')?;
        }
        out.write_char(']')
    }

    /// Writes the metrics in Prometheus' text format (version 0.0.4).
    ///
    /// # Errors
    /// The error that `out` returned.
    pub fn write_prometheus(&self, out: &mut impl Write) -> Result {
        for (name, help, bytes) in self.range_sizes() {
            write_help(out, format_args!("{name}_bytes"), Metric::Gauge, help)?;
            writeln!(out, "theap_{name}_bytes {bytes}")?;
        }
        self.write_prometheus_nodes(out)?;
        self.write_prometheus_classes(out)?;
        let metrics = COUNTERS.iter().zip(METRICS).zip(self.totals.list());
        let counters =
            metrics.map(|((&(name, help), &metric), (_, count))| (name, help, metric, count));
        let counts = self
            .counts()
            .map(|(name, help, count)| (name, help, Metric::Counter, count));
        for (name, help, metric, count) in counts.into_iter().chain(counters) {
            let suffix = metric.suffix();
            write_help(
                out,
                format_args!("{name}{suffix}"),
                metric,
                help.trim_ascii(),
            )?;
            writeln!(out, "theap_{name}{suffix} {count}")?;
        }
        Ok(())
    }

    fn write_prometheus_nodes(&self, out: &mut impl Write) -> Result {
        for family in Family::ALL {
            let [name, label, help] = family.metric();
            write_help(out, name, Metric::Gauge, help)?;
            for node in self.nodes.iter() {
                let metrics = node.metrics().into_iter();
                for (_, value, bytes) in metrics.filter(|&(of, ..)| of == family) {
                    let node = node.node;
                    writeln!(
                        out,
                        "theap_{name}{{node=\"{node}\",{label}=\"{value}\"}} {bytes}"
                    )?;
                }
            }
        }
        Ok(())
    }

    fn write_prometheus_classes(&self, out: &mut impl Write) -> Result {
        // A metric without a sample is none.
        if self.used_classes().next().is_none() {
            return Ok(());
        }
        for (index, (name, _, metric, help)) in ClassStats::FIGURES.into_iter().enumerate() {
            // A metric names its unit.
            let unit = if ClassStats::is_size(name) && !name.ends_with("_bytes") {
                "_bytes"
            } else {
                ""
            };
            let name = format_args!("class_{name}{unit}{}", metric.suffix());
            write_help(out, name, metric, help)?;
            for class in self.used_classes() {
                let (size, value) = (class.size, class.list()[index].1);
                writeln!(out, "theap_{name}{{size=\"{size}\"}} {value}")?;
            }
        }
        Ok(())
    }
}

/// Writes fields of a JSON object.
pub(super) fn write_fields(
    out: &mut impl Write,
    fields: impl Iterator<Item = (&'static str, u64)>,
) -> Result {
    for (index, (name, value)) in fields.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\"{name}\":{value}")?;
    }
    Ok(())
}

/// Writes what Prometheus shows of a metric besides its values.
pub(super) fn write_help(
    out: &mut impl Write,
    name: impl Display,
    metric: Metric,
    help: &str,
) -> Result {
    writeln!(out, "# HELP theap_{name} {help}")?;
    writeln!(out, "# TYPE theap_{name} {}", metric.name())
}
