//! The limits of this process's control groups, in version 1 and version 2 of control groups.
//!
//! A limit holds for a group and all groups below it, so the tightest limit between the process's
//! group and the mount counts. A container cannot see the groups above its mount.

use std::path::Path;

use anyhow::{Context, Result, bail};
use procfs::ProcessCGroups;
use procfs::process::MountInfos;

use super::host::{Host, size};
use super::{Answer, Check, Section, hugetlb};

pub const SECTION: Section = Section {
    title: "Control group",
    checks: &[
        Check {
            id: "cgroup.memory",
            subject: "memory limit",
            brings: "a heap as large as the host's memory",
            examine: memory,
        },
        Check {
            id: "cgroup.memory_high",
            subject: "memory throttle",
            brings: "no thread is slowed down above the mark",
            examine: memory_high,
        },
        Check {
            id: "cgroup.hugetlb",
            subject: "2 MiB pages limit",
            brings: "the whole pool for this group",
            examine: hugetlb_pages,
        },
    ],
};

/// A group of version 1 without a limit shows the greatest number of whole pages, which is above
/// this.
const UNLIMITED: u64 = 1 << 62;

/// The names of one limit in the two versions.
struct Names {
    controller: &'static str,
    first: &'static [&'static str],
    second: &'static [&'static str],
}

/// A limit in bytes, and the command that lifts it.
struct Limit {
    bytes: u64,
    fix: String,
}

/// The directories of this process's group and those above it for a controller, innermost first,
/// and whether they are of version 2. Nothing if the controller has no group here.
fn groups(host: &Host, controller: &str) -> Result<Option<(Vec<String>, bool)>> {
    let Some(ProcessCGroups(mine)) = host.parsed("/proc/self/cgroup")? else {
        return Ok(None);
    };
    // A controller is in one version at a time.
    let first = mine
        .iter()
        .find(|group| group.controllers.iter().any(|name| name == controller));
    let second = mine
        .iter()
        .find(|group| group.hierarchy == 0 && group.controllers.is_empty());
    let Some(group) = first.or(second) else {
        return Ok(None);
    };
    let mounts: Option<MountInfos> = host.parsed("/proc/self/mountinfo")?;
    let mounts = mounts.context("there is no /proc/self/mountinfo")?;
    let mount = mounts.iter().find(|mount| match first {
        Some(_) => mount.fs_type == "cgroup" && mount.super_options.contains_key(controller),
        None => mount.fs_type == "cgroup2",
    });
    let path = &group.pathname;
    let Some(mount) = mount else {
        if path == "/" {
            return Ok(None);
        }
        bail!("the {controller} controller's group {path} is not mounted here");
    };
    // A path beyond the mount belongs to a host around this container; only the mounted groups can
    // be seen.
    let below = Path::new(path).strip_prefix(&mount.root);
    let below = below.ok().filter(|below| !below.starts_with(".."));
    let innermost = mount.mount_point.join(below.unwrap_or(Path::new("")));
    let directories = innermost
        .ancestors()
        .take_while(|directory| directory.starts_with(&mount.mount_point));
    // Joining nothing leaves a slash at the end.
    let directories = directories
        .map(|directory| directory.to_string_lossy().trim_end_matches('/').to_owned())
        .collect();
    Ok(Some((directories, first.is_none())))
}

/// The tightest of the limits; nothing if there is none.
fn tightest(host: &Host, names: &Names) -> Result<Option<Limit>> {
    let Some((directories, second)) = groups(host, names.controller)? else {
        return Ok(None);
    };
    let (files, lifted) = match second {
        true => (names.second, "max"),
        false => (names.first, "-1"),
    };
    let mut tightest: Option<Limit> = None;
    for path in directories
        .iter()
        .flat_map(|directory| files.iter().map(move |file| format!("{directory}/{file}")))
    {
        // The outermost group has no limits, nor has one to which the controller was not given.
        let bytes = match host.optional(&path)?.as_deref() {
            None | Some("max") => continue,
            Some(_) => host.number(&path)?,
        };
        if bytes < UNLIMITED && tightest.as_ref().is_none_or(|limit| bytes < limit.bytes) {
            let fix = format!("echo {lifted} > {path}");
            tightest = Some(Limit { bytes, fix });
        }
    }
    Ok(tightest)
}

fn memory(host: &Host) -> Result<Answer> {
    let names = Names {
        controller: "memory",
        first: &["memory.limit_in_bytes"],
        second: &["memory.max"],
    };
    let total = host.memory("MemTotal")?;
    Ok(match tightest(host, &names)? {
        Some(Limit { bytes, fix }) if bytes < total => Answer::note(
            format!("{} of the host's {}", size(bytes), size(total)),
            fix,
        ),
        _ => Answer::good("no limit"),
    })
}

fn memory_high(host: &Host) -> Result<Answer> {
    let names = Names {
        controller: "memory",
        first: &[],
        second: &["memory.high"],
    };
    Ok(match tightest(host, &names)? {
        Some(Limit { bytes, fix }) => Answer::note(format!("above {}", size(bytes)), fix),
        None => Answer::good("no mark"),
    })
}

fn hugetlb_pages(host: &Host) -> Result<Answer> {
    let names = Names {
        controller: "hugetlb",
        first: &[
            "hugetlb.2MB.limit_in_bytes",
            "hugetlb.2MB.rsvd.limit_in_bytes",
        ],
        second: &["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"],
    };
    let Some(Limit { bytes, fix }) = tightest(host, &names)? else {
        return Ok(Answer::good("no limit"));
    };
    let (allowed, pages) = (bytes / hugetlb::PAGE, hugetlb::pages(host).unwrap_or(0));
    let found = format!("{allowed} ({})", size(bytes));
    Ok(if allowed == 0 {
        Answer::missing("none allowed", fix)
    } else if allowed < pages {
        Answer::note(format!("{found} of the pool's {pages}"), fix)
    } else {
        Answer::good(found)
    })
}
