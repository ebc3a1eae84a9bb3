//! [`Stats`] as text for people, JSON, and the text format that Prometheus scrapes. Nothing here allocates.

use super::{COUNTERS, ClassStats, NodeStats, Stats, is_gauge};
use core::fmt::{Result, Write};

/// Figures that are no sizes, and what they mean.
const COUNTS: [(&str, &str); 3] = [
    ("refusals", "What a sealed heap refused."),
    ("heaps", "Heaps ever made."),
    ("warmer_starts", "Warmer threads started."),
];

impl NodeStats {
    /// The sizes in bytes, with their names.
    pub fn sizes(&self) -> [(&'static str, u64); 7] {
        [
            ("mapped_small", self.mapped_small),
            ("mapped_thp", self.mapped_thp),
            ("mapped_hugetlb", self.mapped_hugetlb),
            ("mapped_hugetlb_1g", self.mapped_hugetlb_1g),
            ("active", self.active),
            ("empty", self.empty),
            ("fresh", self.fresh),
        ]
    }
}

impl ClassStats {
    /// The numbers with their names, but for the size.
    pub fn list(&self) -> [(&'static str, u64); 5] {
        [
            ("spans", self.spans),
            ("span_bytes", self.span_bytes),
            ("refilled_blocks", self.refilled_blocks),
            ("drained_blocks", self.drained_blocks),
            ("learned_blocks", self.learned_blocks),
        ]
    }

    /// Whether the class was ever used.
    pub fn is_used(&self) -> bool {
        self.spans != 0 || self.refilled_blocks != 0
    }
}

impl Stats {
    fn counts(&self) -> [u64; COUNTS.len()] {
        [self.refusals, self.heaps, self.warmer_starts]
    }

    fn used_classes(&self) -> impl Iterator<Item = &ClassStats> {
        self.classes.iter().filter(|class| class.is_used())
    }

    /// Writes a table for people.
    ///
    /// # Errors
    /// What `out` answered.
    pub fn write_text(&self, out: &mut impl Write) -> Result {
        for (name, bytes) in self.sizes() {
            writeln!(out, "{name:<20} {bytes:>16} bytes")?;
        }
        for ((name, _), count) in COUNTS.iter().zip(self.counts()) {
            writeln!(out, "{name:<20} {count:>16}")?;
        }
        for (name, count) in self.totals.list() {
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
        writeln!(
            out,
            "{:>10} {:>8} {:>14} {:>16} {:>16} {:>16}",
            "class", "spans", "span_bytes", "refilled_blocks", "drained_blocks", "learned_blocks"
        )?;
        for class in self.used_classes() {
            writeln!(
                out,
                "{:>10} {:>8} {:>14} {:>16} {:>16} {:>16}",
                class.size,
                class.spans,
                class.span_bytes,
                class.refilled_blocks,
                class.drained_blocks,
                class.learned_blocks
            )?;
        }
        Ok(())
    }

    /// Writes one JSON object, without a line end. Classes that were never used are left out.
    ///
    /// # Errors
    /// What `out` answered.
    pub fn write_json(&self, out: &mut impl Write) -> Result {
        out.write_char('{')?;
        let counts = COUNTS.iter().map(|(name, _)| *name).zip(self.counts());
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
        out.write_str("]}")
    }

    /// Writes the metrics in Prometheus' text format (version 0.0.4).
    ///
    /// # Errors
    /// What `out` answered.
    pub fn write_prometheus(&self, out: &mut impl Write) -> Result {
        write_help(
            out,
            "address_space_bytes",
            "gauge",
            "Addresses reserved for blocks.",
        )?;
        writeln!(out, "theap_address_space_bytes {}", self.address_space)?;
        write_help(
            out,
            "mapped_bytes",
            "gauge",
            "Memory mapped, by node and page mode.",
        )?;
        for node in self.nodes.iter() {
            for (pages, bytes) in [
                ("small", node.mapped_small),
                ("thp", node.mapped_thp),
                ("hugetlb", node.mapped_hugetlb),
                ("hugetlb_1g", node.mapped_hugetlb_1g),
            ] {
                let node = node.node;
                writeln!(
                    out,
                    "theap_mapped_bytes{{node=\"{node}\",pages=\"{pages}\"}} {bytes}"
                )?;
            }
        }
        write_help(
            out,
            "slot_bytes",
            "gauge",
            "Mapped memory, by node and state of its slots.",
        )?;
        for node in self.nodes.iter() {
            for (state, bytes) in [
                ("active", node.active),
                ("empty", node.empty),
                ("fresh", node.fresh),
            ] {
                let node = node.node;
                writeln!(
                    out,
                    "theap_slot_bytes{{node=\"{node}\",state=\"{state}\"}} {bytes}"
                )?;
            }
        }
        self.write_prometheus_classes(out)?;
        for ((name, help), count) in COUNTS.iter().zip(self.counts()) {
            write_help(out, format_args!("{name}_total"), "counter", help)?;
            writeln!(out, "theap_{name}_total {count}")?;
        }
        for ((name, count), (_, help)) in self.totals.list().zip(COUNTERS) {
            let (suffix, kind) = if is_gauge(name) {
                ("", "gauge")
            } else {
                ("_total", "counter")
            };
            write_help(out, format_args!("{name}{suffix}"), kind, help.trim())?;
            writeln!(out, "theap_{name}{suffix} {count}")?;
        }
        Ok(())
    }

    fn write_prometheus_classes(&self, out: &mut impl Write) -> Result {
        let metrics = [
            ("class_spans", "gauge", "Spans, by size of their blocks."),
            (
                "class_span_bytes",
                "gauge",
                "Bytes of spans, by size of their blocks.",
            ),
            (
                "class_refilled_blocks_total",
                "counter",
                "Blocks moved from spans to magazines, by size.",
            ),
            (
                "class_drained_blocks_total",
                "counter",
                "Blocks moved from magazines to spans, by size.",
            ),
            (
                "class_learned_blocks",
                "gauge",
                "Blocks that magazines may hold beyond their fixed capacities, by size.",
            ),
        ];
        for (index, (name, kind, help)) in metrics.into_iter().enumerate() {
            write_help(out, name, kind, help)?;
            for class in self.used_classes() {
                let (size, value) = (class.size, class.list()[index].1);
                writeln!(out, "theap_{name}{{size=\"{size}\"}} {value}")?;
            }
        }
        Ok(())
    }
}

/// Fields of a JSON object.
fn write_fields(out: &mut impl Write, fields: impl Iterator<Item = (&'static str, u64)>) -> Result {
    for (index, (name, value)) in fields.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\"{name}\":{value}")?;
    }
    Ok(())
}

fn write_help(
    out: &mut impl Write,
    name: impl core::fmt::Display,
    kind: &str,
    help: &str,
) -> Result {
    writeln!(out, "# HELP theap_{name} {help}")?;
    writeln!(out, "# TYPE theap_{name} {kind}")
}
