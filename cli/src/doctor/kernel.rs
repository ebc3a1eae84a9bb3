//! The clock of the kernel, and what its release can do.
//!
//! A check concludes from the kernel's release what the kernel can do. Distributions add features
//! to old releases, so a check may call a feature missing that is there, but never the reverse.

use anyhow::{Context, Result, ensure};

use super::host::Host;
use super::{Answer, Check, Section};

pub const SECTION: Section = Section {
    title: "Timer and kernel",
    checks: &[
        Check {
            id: "timer.clocksource",
            subject: "clock source",
            brings: "the time without a system call",
            examine: clocksource,
        },
        Check {
            id: "kernel.release",
            subject: "kernel release",
            brings: "",
            examine: release,
        },
        Check {
            id: "kernel.populate",
            subject: "MADV_POPULATE_WRITE",
            brings: "hugetlb mode, and warm_up",
            examine: |host| since(host, [5, 14], Answer::missing),
        },
        Check {
            id: "kernel.move_hugetlb",
            subject: "mremap of hugetlb",
            brings: "hugetlb mode",
            examine: |host| since(host, [5, 16], Answer::missing),
        },
        Check {
            id: "kernel.move_pages",
            subject: "MREMAP_DONTUNMAP",
            brings: "realloc of large blocks without copying",
            examine: |host| since(host, [5, 7], Answer::note),
        },
        Check {
            id: "kernel.purge_locked",
            subject: "MADV_DONTNEED_LOCKED",
            brings: "purge works in processes that called mlockall",
            examine: |host| since(host, [5, 18], Answer::note),
        },
    ],
};

const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0";
const RELEASE: &str = "/proc/sys/kernel/osrelease";

fn clocksource(host: &Host) -> Result<Answer> {
    let path = format!("{CLOCK}/current_clocksource");
    let current = host.text(&path)?;
    ensure!(!current.is_empty(), "{path} is empty");
    if current == "tsc" {
        return Ok(Answer::good(current));
    }
    let available = host.text(&format!("{CLOCK}/available_clocksource"))?;
    let fix = match available.split_whitespace().any(|name| name == "tsc") {
        true => format!("echo tsc > {path}"),
        false => "kernel command line: tsc=reliable (if the CPU's TSC is invariant)".to_owned(),
    };
    Ok(Answer::note(current, fix))
}

fn release(host: &Host) -> Result<Answer> {
    let release = host.text(RELEASE)?;
    ensure!(!release.is_empty(), "{RELEASE} is empty");
    let build = host.optional("/proc/sys/kernel/version")?;
    Ok(Answer::good(match build {
        Some(build) => format!("{release} {build}"),
        None => release,
    }))
}

/// The answer about a feature that Linux has since a release, given as version and patch level.
fn since(host: &Host, release: [u32; 2], lacking: fn(String, String) -> Answer) -> Result<Answer> {
    let [version, patchlevel] = release;
    let text = host.text(RELEASE)?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|digits| digits.parse().ok());
    let here: Option<[u32; 2]> = number().zip(number()).map(|(a, b)| [a, b]);
    let here = here.with_context(|| format!("{RELEASE} has {text:?} for a release"))?;
    let found = format!("since Linux {version}.{patchlevel}");
    Ok(if here >= release {
        Answer::good(found)
    } else {
        lacking(
            format!("{found}, this is {}.{}", here[0], here[1]),
            format!("boot Linux {version}.{patchlevel} or later"),
        )
    })
}
