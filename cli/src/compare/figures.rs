//! The figures of a command's run, and the command's name in a table.

use theap_bench::Metric;

use crate::measure::ptrace::Run;

/// Metric: bytes on transparent hugepages when the command ended.
pub const THP: &str = "thp_at_exit";

/// Metric: bytes on hugetlb pages when the command ended.
pub const HUGETLB: &str = "hugetlb_at_exit";

/// Characters of a command that a table shows.
const SHOWN: usize = 40;

/// The command's label, shortened to fit into a cell of a table.
pub fn short(label: &str) -> String {
    let line = label.replace(|c: char| c.is_whitespace() || c == '|', " ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The figures of a measured run.
pub fn of_run(run: &Run) -> Vec<Metric> {
    let [wall, user, system] =
        [run.wall, run.user, run.system].map(|time| time.as_secs_f64() * 1e3);
    vec![
        metric("wall_time", "ms", wall),
        metric("cpu_time", "ms", user + system),
        metric("user_time", "ms", user),
        metric("system_time", "ms", system),
        metric("minor_faults", "faults", run.minor_faults as f64),
        metric("major_faults", "faults", run.major_faults as f64),
        metric("peak_rss", "bytes", run.peak as f64),
        metric(THP, "bytes", run.memory.thp as f64),
        metric(HUGETLB, "bytes", run.memory.hugetlb as f64),
    ]
}

/// A figure with its unit.
pub fn metric(name: &'static str, unit: &'static str, value: f64) -> Metric {
    Metric {
        metric: name.into(),
        unit: unit.into(),
        value,
    }
}
