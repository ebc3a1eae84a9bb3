//! glibc's functions that show the allocator's state, and those that tune it.
#![allow(unsafe_code)] // C interfaces: exported names, raw pointers in and out.

use crate::text::Text;
use core::ffi::c_int;
use theap::{HeapStats, Stats, raw};

/// Accepts every parameter without effect: glibc's tune parts that this allocator does not have.
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(_parameter: c_int, _value: c_int) -> c_int {
    1
}

/// Gives free memory back to the system; answers 1 if there was any, else 0. Does not heed `_pad`,
/// the number of bytes to keep.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_pad: usize) -> c_int {
    c_int::from(theap::purge() > 0)
}

/// The figures that `mallinfo` and `mallinfo2` tell, as glibc documents them.
struct Info {
    arena: u64,
    ordblks: u64,
    smblks: u64,
    hblks: u64,
    hblkhd: u64,
    fsmblks: u64,
    uordblks: u64,
    fordblks: u64,
    keepcost: u64,
}

impl Info {
    #[inline(never)]
    fn gather() -> Self {
        let sums = raw::sums();
        let mapped = sums.nodes.mapped();
        let used = sums.allocated.saturating_sub(sums.outside);
        Self {
            arena: mapped,
            ordblks: sums.free_blocks,
            smblks: sums.cached_blocks,
            hblks: sums.outside_runs,
            hblkhd: sums.outside,
            fsmblks: sums.cached,
            uordblks: used,
            fordblks: mapped.saturating_sub(used),
            keepcost: sums.nodes.empty,
        }
    }
}

/// Totals of the heap, in bytes unless said: `arena` is mapped in the range, `uordblks` what the
/// program holds of that, `fordblks` the rest. `ordblks` is the number of blocks that are free in
/// spans, `smblks` of those in thread caches and `fsmblks` their bytes, `hblks` the number of huge
/// runs outside of the range and `hblkhd` their bytes. `keepcost` is free and warm. `usmblks` is 0.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> libc::mallinfo2 {
    let info = Info::gather();
    libc::mallinfo2 {
        arena: info.arena as usize,
        ordblks: info.ordblks as usize,
        smblks: info.smblks as usize,
        hblks: info.hblks as usize,
        hblkhd: info.hblkhd as usize,
        usmblks: 0,
        fsmblks: info.fsmblks as usize,
        uordblks: info.uordblks as usize,
        fordblks: info.fordblks as usize,
        keepcost: info.keepcost as usize,
    }
}

/// The totals of [`mallinfo2`], in fields that end at 2 GiB.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> libc::mallinfo {
    let info = Info::gather();
    let int = |number: u64| c_int::try_from(number).unwrap_or(c_int::MAX);
    libc::mallinfo {
        arena: int(info.arena),
        ordblks: int(info.ordblks),
        smblks: int(info.smblks),
        hblks: int(info.hblks),
        hblkhd: int(info.hblkhd),
        usmblks: 0,
        fsmblks: int(info.fsmblks),
        uordblks: int(info.uordblks),
        fordblks: int(info.fordblks),
        keepcost: int(info.keepcost),
    }
}

/// Writes the statistics to standard error.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    let written = raw::with_report(|report| {
        let mut text = Text::new(&mut report.text);
        // Writing to this buffer does not fail.
        let _ = report.stats.write_text(&mut text);
        if report.stats.nodes.len() > 1 {
            add_placement(&mut text);
        }
        let _ = HeapStats::write_text_head(&mut text);
        text.send();
        for heap in theap::heaps() {
            let mut text = Text::new(&mut report.text);
            let _ = heap.write_text(&mut text);
            text.send();
        }
    });
    if written.is_none() {
        let mut buffer = [0; 80];
        let mut text = Text::new(&mut buffer);
        text.add(format_args!(
            "theap: no memory for the statistics, or the heap is sealed\n"
        ));
        text.send();
    }
}

/// Adds where the memory lies: apart, as its rows are on the stack.
#[inline(never)]
fn add_placement(text: &mut Text<'_>) {
    if let Ok(placement) = theap::placement() {
        let _ = placement.write_text(text);
    }
}

/// Writes the statistics as XML. Answers 0; EINVAL if `options` is not 0, as there are no options;
/// or -1 if writing failed, if there is no memory for the text, or if the heap is sealed.
///
/// # Safety
/// `file` is open for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_info(options: c_int, file: *mut libc::FILE) -> c_int {
    if options != 0 {
        return libc::EINVAL;
    }
    let written = raw::with_report(|report| {
        let mut text = Text::new(&mut report.text);
        add_xml(&report.stats, &mut text);
        // SAFETY: the file is open for writing, as the caller promises in `# Safety`.
        let mut written = unsafe { write_to(file, &text) };
        for heap in theap::heaps() {
            let mut text = Text::new(&mut report.text);
            add_xml_heap(&heap, &mut text);
            // SAFETY: as above.
            written &= unsafe { write_to(file, &text) };
        }
        let mut text = Text::new(&mut report.text);
        text.add(format_args!("</malloc>\n"));
        // SAFETY: as above.
        unsafe { write_to(file, &text) && written }
    });
    if written == Some(true) { 0 } else { -1 }
}

/// Writes a text to a file; false if that failed.
///
/// # Safety
/// `file` is open for writing.
unsafe fn write_to(file: *mut libc::FILE, text: &Text<'_>) -> bool {
    let held = text.held();
    // SAFETY: `held` is a slice, and `file` is open for writing, as the caller promises in `#
    // Safety`.
    unsafe { libc::fwrite(held.as_ptr().cast(), 1, held.len(), file) == held.len() }
}

fn add_xml(stats: &Stats, text: &mut Text<'_>) {
    text.add(format_args!("<malloc version=\"theap-1\">\n"));
    for (name, bytes) in stats.sizes() {
        text.add(format_args!("<size name=\"{name}\" bytes=\"{bytes}\"/>\n"));
    }
    for (name, count) in stats.totals.list() {
        text.add(format_args!(
            "<counter name=\"{name}\" count=\"{count}\"/>\n"
        ));
    }
    for class in stats.classes.iter().filter(|class| class.is_used()) {
        text.add(format_args!("<class size=\"{}\"", class.size));
        for (name, value) in class.list() {
            text.add(format_args!(" {name}=\"{value}\""));
        }
        text.add(format_args!("/>\n"));
    }
}

fn add_xml_heap(heap: &HeapStats, text: &mut Text<'_>) {
    let (number, thread) = (heap.heap, heap.thread);
    text.add(format_args!("<heap nr=\"{number}\" thread=\"{thread}\""));
    for (name, value) in heap.list() {
        text.add(format_args!(" {name}=\"{value}\""));
    }
    text.add(format_args!("/>\n"));
}
