//! The memory of the host, and the limits of a process.

use anyhow::{Context, Result, bail};

use super::host::{Host, size};
use super::{Answer, Check, Section};

pub const SECTION: Section = Section {
    title: "Memory and limits",
    checks: &[
        Check {
            id: "memory.available",
            subject: "memory available",
            brings: "",
            examine: available,
        },
        Check {
            id: "memory.overcommit",
            subject: "overcommit",
            brings: "the heap grows as long as there is memory",
            examine: overcommit,
        },
        Check {
            id: "memory.max_map_count",
            subject: "mappings",
            brings: "a heap on hugetlb pages may fill the memory",
            examine: max_map_count,
        },
        Check {
            id: "limits.as",
            subject: "RLIMIT_AS",
            brings: "addresses for a heap as large as memory",
            examine: address_space,
        },
        Check {
            id: "limits.data",
            subject: "RLIMIT_DATA",
            brings: "a heap as large as memory",
            examine: data,
        },
        Check {
            id: "limits.memlock",
            subject: "RLIMIT_MEMLOCK",
            brings: "services may mlockall, and theap lock its heap (lock=1)",
            examine: memlock,
        },
    ],
};

/// The kernel's default for the mappings of a process.
const DEFAULT_MAPPINGS: u64 = 65530;
/// Bytes of the smallest mapping that hugetlb pages need.
const HUGEPAGE: u64 = 2 << 20;
/// The least bytes of addresses that theap needs: its tables, a SuperSlab, and 2 MiB of metadata.
const LEAST_ADDRESSES: u64 = 8 << 20;

fn available(host: &Host) -> Result<Answer> {
    let (available, total) = (host.memory("MemAvailable")?, host.memory("MemTotal")?);
    Ok(Answer::good(format!(
        "{} of {}",
        size(available),
        size(total)
    )))
}

fn overcommit(host: &Host) -> Result<Answer> {
    let path = "/proc/sys/vm/overcommit_memory";
    match host.number(path)? {
        0 => return Ok(Answer::good("0 (heuristic)")),
        1 => return Ok(Answer::good("1 (always)")),
        2 => {}
        other => bail!("{path} has {other} for a mode"),
    }
    // Reserved addresses are not charged, memory that the heap maps is; hugetlb pages are not.
    let left = host
        .memory("CommitLimit")?
        .saturating_sub(host.memory("Committed_AS")?);
    let found = format!("2 (never), {} left to commit", size(left));
    let fix = "sysctl -w vm.overcommit_memory=0";
    Ok(if left < host.memory("MemTotal")? / 4 {
        Answer::missing(found, fix)
    } else {
        Answer::note(found, fix)
    })
}

fn max_map_count(host: &Host) -> Result<Answer> {
    let limit = host.number("/proc/sys/vm/max_map_count")?;
    let wanted = (host.memory("MemTotal")? / HUGEPAGE).max(DEFAULT_MAPPINGS);
    let found = format!("{limit} for a process");
    Ok(if limit >= wanted {
        Answer::good(found)
    } else {
        Answer::note(found, format!("sysctl -w vm.max_map_count={wanted}"))
    })
}

/// The soft and the hard limit of this process in bytes; nothing where there is no limit.
fn limit(host: &Host, name: &str) -> Result<[Option<u64>; 2]> {
    let path = "/proc/self/limits";
    let text = host.text(path)?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let line = lines
        .next()
        .with_context(|| format!("{path} has no {name}"))?;
    let mut values = line.split_whitespace().map(|word| match word {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    });
    match (values.next().flatten(), values.next().flatten()) {
        (Some(soft), Some(hard)) => Ok([soft, hard]),
        _ => bail!("{path} has {:?} for {name}", line.trim()),
    }
}

/// The command that lifts a limit. The shell may raise its own soft limit up to the hard limit,
/// which only root can raise.
fn lift(hard: Option<u64>, ulimit: char, prlimit: &str) -> String {
    match hard {
        None => format!("ulimit -{ulimit} unlimited"),
        Some(_) => format!("prlimit --pid $$ --{prlimit}=unlimited"),
    }
}

fn address_space(host: &Host) -> Result<Answer> {
    let [soft, hard] = limit(host, "Max address space")?;
    let fix = lift(hard, 'v', "as");
    Ok(match soft {
        None => Answer::good("unlimited"),
        Some(bytes) if bytes < LEAST_ADDRESSES => Answer::missing(
            format!("{}: theap needs {}", size(bytes), size(LEAST_ADDRESSES)),
            fix,
        ),
        Some(bytes) => Answer::note(size(bytes), fix),
    })
}

fn data(host: &Host) -> Result<Answer> {
    let [soft, hard] = limit(host, "Max data size")?;
    Ok(match soft {
        None => Answer::good("unlimited"),
        Some(bytes) => Answer::note(size(bytes), lift(hard, 'd', "data")),
    })
}

fn memlock(host: &Host) -> Result<Answer> {
    let [soft, hard] = limit(host, "Max locked memory")?;
    Ok(match soft {
        None => Answer::good("unlimited"),
        Some(bytes) => Answer::note(size(bytes), lift(hard, 'l', "memlock")),
    })
}
