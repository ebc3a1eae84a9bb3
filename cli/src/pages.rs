//! Page modes of theap: which of them this host can serve, and whether a run got the one it asked
//! for. theap falls back by itself, so a run that only asked for a mode proves nothing about it.

use std::fmt;
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use procfs::process::Process;
use procfs::{Current, Meminfo};

use crate::doctor::{self, Host};

/// What theap is told to take its memory in, by `THEAP_PAGES` of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PageMode {
    /// 4 KiB pages.
    Small,
    /// Transparent hugepages of 2 MiB.
    Thp,
    /// 2 MiB pages from the host's reserved pool.
    Hugetlb,
    /// 1 GiB pages from the host's reserved pool.
    #[value(name = "hugetlb-1g")]
    Hugetlb1g,
    /// Whatever theap finds best.
    Auto,
}

/// The variable that theap reads its page mode from.
pub const VARIABLE: &str = "THEAP_PAGES";

/// Bytes of a hugepage.
const HUGEPAGE: usize = 2 << 20;

/// Hugepages beyond those for blocks: partly used ones of each size class group and thread.
const SPARE: usize = 16;

impl PageMode {
    /// The value of [`VARIABLE`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Thp => "thp",
            Self::Hugetlb => "hugetlb",
            Self::Hugetlb1g => "hugetlb-1g",
            Self::Auto => "auto",
        }
    }

    /// Why this host cannot serve the mode for workloads that hold `footprint` bytes, with what to
    /// do about it; nothing if it can.
    fn obstacle(self, footprint: usize) -> Result<Option<String>> {
        match self {
            Self::Small | Self::Auto => Ok(None),
            Self::Thp => thp_obstacle(&doctor::here()),
            Self::Hugetlb => hugetlb_obstacle(footprint),
            Self::Hugetlb1g => Ok(gigantic_obstacle(footprint)),
        }
    }

    /// Fails unless all memory that theap has in this process is of this mode.
    ///
    /// # Errors
    /// Says what there is instead.
    pub fn verify(self) -> Result<()> {
        let stats = theap::stats();
        let (small, thp, hugetlb) = (stats.mapped_small, stats.mapped_thp, stats.mapped_hugetlb);
        let gigantic = stats.mapped_hugetlb_1g;
        let wanted = match self {
            Self::Auto => return Ok(()),
            Self::Small => small,
            Self::Thp => thp,
            Self::Hugetlb => hugetlb,
            Self::Hugetlb1g => gigantic,
        };
        ensure!(
            wanted > 0 && wanted == stats.mapped(),
            "the run was not on {self} pages alone: theap mapped {small} bytes on small, {thp} on thp, \
             {hugetlb} on hugetlb, {gigantic} on hugetlb-1g pages; free memory or hugepages, or leave {self} out of \
             --pages"
        );
        if self == Self::Thp {
            // That the kernel was advised does not mean that it had a hugepage to give.
            let given = anonymous_hugepages().context("cannot read /proc/self/smaps_rollup")?;
            ensure!(
                given > 0,
                "the kernel gave no transparent hugepage; free memory, then: sysctl -w vm.compact_memory=1"
            );
        }
        Ok(())
    }
}

/// Bytes of this process on transparent hugepages.
fn anonymous_hugepages() -> Result<u64> {
    let rollup = Process::myself()?.smaps_rollup()?.memory_map_rollup;
    Ok(rollup
        .iter()
        .filter_map(|map| map.extension.map.get("AnonHugePages"))
        .sum())
}

impl fmt::Display for PageMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The modes that were asked for, or, if none, those that the host can serve, with a line on
/// standard error for each that it cannot.
///
/// # Errors
/// Fails if a mode was asked for that the host cannot serve.
pub fn choose(asked: &[PageMode], footprint: usize) -> Result<Vec<PageMode>> {
    for mode in asked {
        if let Some(obstacle) = mode.obstacle(footprint)? {
            bail!("this host cannot serve --pages {mode}: {obstacle}");
        }
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    let mut served = Vec::new();
    for mode in [PageMode::Small, PageMode::Thp, PageMode::Hugetlb] {
        match mode.obstacle(footprint)? {
            None => served.push(mode),
            Some(obstacle) => eprintln!("note: without {mode} pages: {obstacle}"),
        }
    }
    Ok(served)
}

fn thp_obstacle(host: &Host) -> Result<Option<String>> {
    Ok(match doctor::thp_switch(host)? {
        None => Some("the kernel is built without transparent hugepages".into()),
        Some(("never", path)) => Some(format!(
            "they are switched off; allow them with: echo madvise > {path}"
        )),
        Some(_) => None,
    })
}

fn gigantic_obstacle(footprint: usize) -> Option<String> {
    let pool = "/sys/kernel/mm/hugepages/hugepages-1048576kB";
    let read = |name: &str| {
        fs::read_to_string(format!("{pool}/{name}"))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let (Some(free), Some(total)) = (read("free_hugepages"), read("nr_hugepages")) else {
        return Some("the kernel has no pages of 1 GiB".into());
    };
    let needed = (footprint.saturating_add(footprint / 4) as u64)
        .div_ceil(1 << 30)
        .max(1);
    (free < needed).then(|| {
        let enough: u64 = total - free + needed;
        format!("{needed} of 1 GiB are needed, {free} are free; reserve them with: echo {enough} > {pool}/nr_hugepages")
    })
}

fn hugetlb_obstacle(footprint: usize) -> Result<Option<String>> {
    let memory = Meminfo::current().context("cannot read /proc/meminfo")?;
    let (Some(free), Some(total)) = (memory.hugepages_free, memory.hugepages_total) else {
        return Ok(Some("the kernel is built without hugetlb pages".into()));
    };
    // A quarter more: size classes round up by a fifth at most.
    let needed = footprint.saturating_add(footprint / 4).div_ceil(HUGEPAGE) + SPARE;
    if free >= needed as u64 {
        return Ok(None);
    }
    let enough = total - free + needed as u64;
    Ok(Some(format!(
        "{needed} of 2 MiB are needed, {free} are free; reserve them with: sysctl -w vm.nr_hugepages={enough}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Since Linux 6.8 the switch of the 2 MiB size counts, unless it defers to the common one.
    #[test]
    fn thp_is_switched_by_its_size() {
        let root = tempfile::tempdir().unwrap();
        let thp = root.path().join("sys/kernel/mm/transparent_hugepage");
        fs::create_dir_all(thp.join("hugepages-2048kB")).unwrap();
        let obstacle = |common: &str, own: &str| {
            fs::write(thp.join("enabled"), common).unwrap();
            fs::write(thp.join("hugepages-2048kB/enabled"), own).unwrap();
            thp_obstacle(&Host::at(root.path().into())).unwrap()
        };
        let never = "always inherit madvise [never]";
        let said = obstacle("always [madvise] never", never).unwrap();
        assert!(said.contains("hugepages-2048kB/enabled"), "{said}");
        let inherit = "always [inherit] madvise never";
        let said = obstacle("always madvise [never]", inherit).unwrap();
        assert!(said.contains("transparent_hugepage/enabled"), "{said}");
        let own = "always inherit [madvise] never";
        assert_eq!(obstacle("always madvise [never]", own), None);
    }
}
