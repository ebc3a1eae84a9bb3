//! The pools of hugetlb pages of the host and of each node, of 2 MiB and of 1 GiB.

use anyhow::Result;

use super::host::{Host, size};
use super::{Answer, Check, Section, numa};

pub const SECTION: Section = Section {
    title: "Hugetlb pages",
    checks: &[
        Check {
            id: "hugetlb.pool",
            subject: "2 MiB pages",
            brings: "hugetlb mode: one fault for 2 MiB, none after warm_up",
            examine: pool,
        },
        Check {
            id: "hugetlb.nodes",
            subject: "2 MiB pages by node",
            brings: "hugepages of its own for every node",
            examine: nodes,
        },
        Check {
            id: "hugetlb.1g",
            subject: "1 GiB pages",
            brings: "512 pages of 2 MiB for each, which theap takes",
            examine: gigantic,
        },
    ],
};

/// Bytes of a hugetlb page of the size that theap takes.
pub const PAGE: u64 = 2 << 20;
/// Pages of the largest step by which a heap grows, unless told otherwise (`THEAP_GROWTH`).
const SCANT: u64 = 16;
/// The directory of the pool of 2 MiB pages.
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
/// The directory of the pool of 1 GiB pages.
const GIGANTIC: &str = "/sys/kernel/mm/hugepages/hugepages-1048576kB";

/// The pool of one size of pages.
struct Pool {
    pages: u64,
    /// Pages that are neither used nor promised to a mapping.
    free: u64,
    /// Pages that the kernel may add on demand, if it finds memory then.
    addable: u64,
}

impl Pool {
    /// The pool in this directory; nothing if the kernel has no pages of this size.
    fn read(host: &Host, directory: &str) -> Result<Option<Pool>> {
        if host
            .optional(&format!("{directory}/nr_hugepages"))?
            .is_none()
        {
            return Ok(None);
        }
        let number = |name: &str| host.number(&format!("{directory}/{name}"));
        Ok(Some(Pool {
            pages: number("nr_hugepages")?,
            free: number("free_hugepages")?.saturating_sub(number("resv_hugepages")?),
            addable: number("nr_overcommit_hugepages")?
                .saturating_sub(number("surplus_hugepages")?),
        }))
    }
}

/// Whether the pool of 2 MiB pages has pages to give.
pub fn serves(host: &Host) -> bool {
    let pool = Pool::read(host, POOL).ok().flatten();
    pool.is_some_and(|pool| pool.free + pool.addable > 0)
}

/// Pages in the pool of 2 MiB pages, used or not.
pub fn pages(host: &Host) -> Option<u64> {
    let pool = Pool::read(host, POOL).ok().flatten();
    pool.map(|pool| pool.pages)
}

/// Pages to reserve: a quarter of `free` bytes.
fn quarter(free: u64) -> u64 {
    (free / 4 / PAGE).max(1)
}

/// The command that makes the pool `pages` large.
fn resize(host: &Host, pages: u64) -> String {
    // The sysctl is about the default size, which may be 1 GiB.
    match host.memory("Hugepagesize") {
        Ok(PAGE) => format!("sysctl -w vm.nr_hugepages={pages}"),
        _ => format!("echo {pages} > {POOL}/nr_hugepages"),
    }
}

fn pool(host: &Host) -> Result<Answer> {
    let Some(pool) = Pool::read(host, POOL)? else {
        return Ok(Answer::missing(
            "not supported by this kernel",
            "boot a kernel with CONFIG_HUGETLBFS=y",
        ));
    };
    let Pool {
        pages,
        free,
        addable,
    } = pool;
    // An empty pool is missing, even if the size to ask for cannot be found out.
    let available = host.memory("MemAvailable").or(host.memory("MemFree"));
    let more = pages + quarter(available.unwrap_or(4 << 30));
    let fix = || resize(host, more);
    let found = format!("{pages} ({}), {free} free", size(pages * PAGE));
    Ok(match (pages, free, addable) {
        (0, _, 0) => Answer::missing("none in the pool", fix()),
        (_, 0, 0) => Answer::missing(format!("{found}: all are in use or promised"), fix()),
        (_, 0, _) => Answer::note(format!("{found}, up to {addable} on demand"), fix()),
        (_, ..SCANT, _) => {
            Answer::note(format!("{found}: one step of growth takes {SCANT}"), fix())
        }
        _ => Answer::good(found),
    })
}

fn nodes(host: &Host) -> Result<Answer> {
    let usable = numa::usable(host)?;
    if usable.len() < 2 {
        return Ok(Answer::good("one node"));
    }
    let (mut found, mut fixes) = (Vec::new(), Vec::new());
    for node in usable {
        let directory = format!(
            "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB",
            node.number
        );
        let Some(pages) = host.optional(&format!("{directory}/nr_hugepages"))? else {
            return Ok(Answer::good("no pools by node"));
        };
        let free = host.number(&format!("{directory}/free_hugepages"))?;
        found.push(format!("node {}: {pages}, {free} free", node.number));
        if free == 0 {
            let more = host.number(&format!("{directory}/nr_hugepages"))? + quarter(node.free);
            fixes.push(format!("echo {more} > {directory}/nr_hugepages"));
        }
    }
    Ok(match fixes.is_empty() {
        true => Answer::good(found.join("; ")),
        false => Answer::missing(found.join("; "), fixes.join("; ")),
    })
}

fn gigantic(host: &Host) -> Result<Answer> {
    let Some(Pool { pages, free, .. }) = Pool::read(host, GIGANTIC)? else {
        return Ok(Answer::good("not supported"));
    };
    if free == 0 {
        return Ok(Answer::good(format!("{pages}, none free")));
    }
    let found = format!("{pages}, {free} free: idle unless THEAP_PAGES=hugetlb-1g");
    // Since Linux 5.16 a page can be broken up where it is.
    let fix = match host.optional(&format!("{GIGANTIC}/demote_size"))? {
        Some(_) => format!("echo {free} > {GIGANTIC}/demote"),
        None => format!("echo {} > {GIGANTIC}/nr_hugepages", pages - free.min(pages)),
    };
    Ok(Answer::note(found, fix))
}
