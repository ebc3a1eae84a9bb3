//! The CPUs that this process may use, and those that are kept free for pinned threads.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::host::{Host, list, parse_list};
use super::{Answer, Check, Section};

pub const SECTION: Section = Section {
    title: "CPUs",
    checks: &[
        Check {
            id: "cpu.allowed",
            subject: "CPUs allowed",
            brings: "",
            examine: allowed,
        },
        Check {
            id: "cpu.isolated",
            subject: "CPUs isolated",
            brings: "the scheduler puts nothing beside pinned threads",
            examine: isolated,
        },
        Check {
            id: "cpu.nohz_full",
            subject: "CPUs nohz_full",
            brings: "no timer tick on a CPU that runs one pinned thread",
            examine: nohz_full,
        },
    ],
};

const DIRECTORY: &str = "/sys/devices/system/cpu";
const ALONE: &str = "one CPU: nothing to keep free";

fn online(host: &Host) -> Result<BTreeSet<u32>> {
    let online = host.list(&format!("{DIRECTORY}/online"))?;
    online.with_context(|| format!("there is no {DIRECTORY}/online"))
}

/// The CPUs that the advice keeps free: the upper half.
fn upper_half(cpus: &BTreeSet<u32>) -> BTreeSet<u32> {
    cpus.iter().copied().skip(cpus.len().div_ceil(2)).collect()
}

/// The number of CPUs and their list, like `2: 0-1`.
fn counted(cpus: &BTreeSet<u32>) -> String {
    format!("{}: {}", cpus.len(), list(cpus))
}

fn allowed(host: &Host) -> Result<Answer> {
    let path = "/proc/self/status";
    let text = host.field(path, "Cpus_allowed_list")?;
    let text = text.with_context(|| format!("{path} has no Cpus_allowed_list"))?;
    // The mask may name CPUs that are not there.
    let online = online(host)?;
    let allowed = &parse_list(&text, path)? & &online;
    Ok(Answer::good(format!(
        "{} (of {} online)",
        counted(&allowed),
        online.len()
    )))
}

fn isolated(host: &Host) -> Result<Answer> {
    let isolated = host.list(&format!("{DIRECTORY}/isolated"))?;
    let isolated = isolated.unwrap_or_default();
    let online = online(host)?;
    Ok(if !isolated.is_empty() {
        Answer::good(counted(&isolated))
    } else if online.len() < 2 {
        Answer::good(ALONE)
    } else {
        let cpus = list(&upper_half(&online));
        Answer::note(
            "none",
            format!("kernel command line: isolcpus=managed_irq,domain,{cpus}"),
        )
    })
}

fn nohz_full(host: &Host) -> Result<Answer> {
    let online = online(host)?;
    let isolated = host.list(&format!("{DIRECTORY}/isolated"))?;
    let mut wanted = isolated.unwrap_or_default();
    let free = host.list(&format!("{DIRECTORY}/nohz_full"))?;
    let ticking = match &free {
        Some(free) if !free.is_empty() && wanted.is_subset(free) => {
            return Ok(Answer::good(counted(free)));
        }
        _ if online.len() < 2 => return Ok(Answer::good(ALONE)),
        Some(free) if free.is_empty() => "none".to_owned(),
        Some(free) => format!("{}, not on all isolated CPUs", counted(free)),
        None => "not supported by this kernel".to_owned(),
    };
    if wanted.is_empty() {
        wanted = upper_half(&online);
    }
    let cpus = list(&wanted);
    let kernel = match free {
        Some(_) => "kernel command line",
        None => "kernel with CONFIG_NO_HZ_FULL=y and command line",
    };
    Ok(Answer::note(
        ticking,
        format!("{kernel}: nohz_full={cpus} rcu_nocbs={cpus}"),
    ))
}
