//! The page modes of theap: their names, which of them this host can serve, and whether a run got
//! the mode that it asked for. theap falls back to other pages by itself, so a run that only asked
//! for a mode proves nothing about the pages that it had.

use std::fmt;
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use procfs::process::Process;
use procfs::{Current, Meminfo, ProcResult};
use theap::Pages;

use crate::doctor::{self, Host};

/// The pages that a run's heap is made of, as `THEAP_PAGES` tells them to theap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageMode(pub Pages);

impl ValueEnum for PageMode {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [PageMode; Pages::ALL.len()] = {
            let mut all = [PageMode(Pages::Auto); Pages::ALL.len()];
            let mut nth = 0;
            while nth < all.len() {
                all[nth] = PageMode(Pages::ALL[nth]);
                nth += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self.0 {
            Pages::Auto => "The largest pages that the host has to give",
            Pages::Hugetlb => "2 MiB pages from the host's reserved pool",
            Pages::Hugetlb1g => "1 GiB pages from the host's reserved pool",
            Pages::Thp => "Transparent hugepages of 2 MiB",
            Pages::Small => "4 KiB pages",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

/// The variable that theap reads its page mode from.
pub const VARIABLE: &str = "THEAP_PAGES";

/// Bytes of a hugepage.
const HUGEPAGE: usize = 2 << 20;

/// Hugepages that are needed beyond those for the blocks: each size class group and thread has some
/// that are partly used.
const SPARE: usize = 16;

impl PageMode {
    /// The mode's name, which is also the value of [`VARIABLE`].
    pub const fn name(self) -> &'static str {
        self.0.name()
    }

    /// The reason why this host cannot serve the mode for workloads that hold `footprint` bytes,
    /// with what to do about it; nothing if it can.
    fn obstacle(self, footprint: usize) -> Result<Option<String>> {
        match self.0 {
            Pages::Small | Pages::Auto => Ok(None),
            Pages::Thp => thp_obstacle(&doctor::here()),
            Pages::Hugetlb => hugetlb_obstacle(footprint),
            Pages::Hugetlb1g => Ok(gigantic_obstacle(footprint)),
        }
    }

    /// Fails unless all memory that theap has in this process is on pages of this mode, but for
    /// nurseries.
    ///
    /// # Errors
    /// Says what there is instead.
    pub fn verify(self) -> Result<()> {
        let stats = theap::stats();
        let mapped = |mode: Pages| match mode {
            Pages::Auto => stats.mapped(),
            Pages::Small => stats.mapped_small,
            Pages::Thp => stats.mapped_thp,
            Pages::Hugetlb => stats.mapped_hugetlb,
            Pages::Hugetlb1g => stats.mapped_hugetlb_1g,
        };
        if self.0 == Pages::Auto {
            return Ok(());
        }
        let wanted = mapped(self.0);
        // In this mode nurseries lie on small pages, and a run that needs little has no others.
        let asked = std::env::var_os("THEAP_PAGES").is_some_and(|pages| pages == self.name());
        let nurseries = match self.0 {
            Pages::Thp if asked => stats.mapped_small,
            _ => 0,
        };
        ensure!(
            wanted + nurseries > 0 && wanted + nurseries == stats.mapped(),
            "the run was not on {self} pages alone: theap mapped {}; free memory or hugepages, or leave \
             {self} out of --pages",
            MAPPED
                .map(|mode| format!("{} bytes on {mode} pages", mapped(mode.0)))
                .join(", ")
        );
        if self.0 == Pages::Thp && wanted > 0 {
            // The kernel may take the advice and have no hugepage to give all the same.
            let given = Process::myself().and_then(|process| transparent(&process));
            let given = given.context("cannot read /proc/self/smaps_rollup")?;
            ensure!(
                given > 0,
                "the kernel gave no transparent hugepage; free memory, then: sysctl -w vm.compact_memory=1"
            );
        }
        Ok(())
    }
}

/// The pages that memory can be on, in the order of their numbers in events, which begin at 1.
pub const MAPPED: [PageMode; 4] = [
    PageMode(Pages::Small),
    PageMode(Pages::Thp),
    PageMode(Pages::Hugetlb),
    PageMode(Pages::Hugetlb1g),
];

/// Bytes of a process on transparent hugepages.
///
/// # Errors
/// Fails if the process is gone, or may not be read.
pub fn transparent(process: &Process) -> ProcResult<u64> {
    let rollup = process.smaps_rollup()?.memory_map_rollup;
    let sizes = rollup.iter();
    Ok(sizes
        .filter_map(|map| map.extension.map.get("AnonHugePages"))
        .sum())
}

impl fmt::Display for PageMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The modes that the user asked for or, if there are none, the modes that the host can serve, with
/// a line on standard error for each that it cannot serve.
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
    for mode in [Pages::Small, Pages::Thp, Pages::Hugetlb].map(PageMode) {
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
    // The quarter covers the size classes, which round up by a fifth at most.
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
