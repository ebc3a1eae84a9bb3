//! Transparent hugepages: whether the kernel gives them, when, and at what cost in memory.

use anyhow::{Context, Result};

use super::host::Host;
use super::{Answer, Check, Section, hugetlb};

pub const SECTION: Section = Section {
    title: "Transparent hugepages",
    checks: &[
        Check {
            id: "thp.enabled",
            subject: "THP enabled",
            brings: "hugepages without a pool: thp mode",
            examine: enabled,
        },
        Check {
            id: "thp.defrag",
            subject: "THP defrag",
            brings: "hugepages at first touch for theap, no waits for others",
            examine: defrag,
        },
        Check {
            id: "thp.max_ptes_none",
            subject: "THP max_ptes_none",
            brings: "RSS stays near what is used",
            examine: max_ptes_none,
        },
    ],
};

const DIRECTORY: &str = "/sys/kernel/mm/transparent_hugepage";
/// Absent pages of 512 that khugepaged may fill without counting as bloat: an eighth.
const BLOAT: u64 = 64;
const UNSUPPORTED: &str = "not supported by this kernel";

/// The word in brackets of a file that lists the choices; nothing if there is no such file.
fn chosen(host: &Host, path: &str, choices: &[&'static str]) -> Result<Option<&'static str>> {
    let Some(text) = host.optional(path)? else {
        return Ok(None);
    };
    let mut words = text.split_whitespace();
    let word = words.find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    let known = choices.iter().find(|choice| Some(**choice) == word);
    let known = known.with_context(|| format!("{path} has {text:?} for a choice"))?;
    Ok(Some(known))
}

/// The setting for pages of 2 MiB, with the file that has it; nothing if the kernel has no
/// transparent hugepages. Since Linux 6.8 each size has a switch of its own, which may defer to the
/// common switch.
pub fn switch(host: &Host) -> Result<Option<(&'static str, String)>> {
    let choices = &["always", "inherit", "madvise", "never"];
    let own = format!("{DIRECTORY}/hugepages-2048kB/enabled");
    let common = format!("{DIRECTORY}/enabled");
    let path = match chosen(host, &own, choices)? {
        Some(word) if word != "inherit" => return Ok(Some((word, own))),
        _ => common,
    };
    Ok(chosen(host, &path, choices)?.map(|word| (word, path)))
}

fn enabled(host: &Host) -> Result<Answer> {
    let (found, fix) = match switch(host)? {
        None => (
            UNSUPPORTED,
            "boot a kernel with CONFIG_TRANSPARENT_HUGEPAGE=y".to_owned(),
        ),
        Some((word @ "never", path)) => (word, format!("echo madvise > {path}")),
        Some((word, _)) => return Ok(Answer::good(word)),
    };
    // Without transparent hugepages and without a pool there is no hugepage for theap.
    Ok(match hugetlb::serves(host) {
        true => Answer::note(found, fix),
        false => Answer::missing(found, fix),
    })
}

fn defrag(host: &Host) -> Result<Answer> {
    let path = format!("{DIRECTORY}/defrag");
    let choices = &["always", "defer", "defer+madvise", "madvise", "never"];
    let Some(word) = chosen(host, &path, choices)? else {
        return Ok(Answer::good(UNSUPPORTED));
    };
    let why = match word {
        "always" => "every first touch on this host may wait for compaction",
        "defer" => "first touches get 4 KiB pages while memory is fragmented",
        "never" => "nobody makes hugepages when memory is fragmented",
        _ => return Ok(Answer::good(word)),
    };
    Ok(Answer::note(
        format!("{word}: {why}"),
        format!("echo defer+madvise > {path}"),
    ))
}

fn max_ptes_none(host: &Host) -> Result<Answer> {
    let path = format!("{DIRECTORY}/khugepaged/max_ptes_none");
    let Some((word, _)) = switch(host)? else {
        return Ok(Answer::good(UNSUPPORTED));
    };
    let limit = host.number(&path)?;
    Ok(if limit <= BLOAT {
        Answer::good(limit.to_string())
    } else if word == "never" {
        Answer::good(format!("{limit}, without effect"))
    } else {
        Answer::note(
            format!("{limit}: khugepaged bloats, adding up to {limit} pages to each 512"),
            format!("echo {BLOAT} > {path}"),
        )
    })
}
