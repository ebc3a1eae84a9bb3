//! glibc's functions that show the allocator's state, and those that tune it.
#![allow(unsafe_code)] // C interfaces: exported names, raw pointers in and out.

use crate::text::Text;
use core::ffi::c_int;
use theap::{Stats, raw};

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

/// Totals of the heap in bytes: `arena` is mapped, `uordblks` in use (also by blocks that threads
/// cache), `fordblks` free, `keepcost` free and empty. The other fields are 0.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> libc::mallinfo2 {
    let stats = raw::sizes();
    libc::mallinfo2 {
        arena: stats.mapped() as usize,
        ordblks: 0,
        smblks: 0,
        hblks: 0,
        hblkhd: 0,
        usmblks: 0,
        fsmblks: 0,
        uordblks: stats.active as usize,
        fordblks: (stats.empty + stats.fresh) as usize,
        keepcost: stats.empty as usize,
    }
}

/// The totals of [`mallinfo2`], in fields that end at 2 GiB.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> libc::mallinfo {
    let stats = raw::sizes();
    let int = |bytes: u64| c_int::try_from(bytes).unwrap_or(c_int::MAX);
    libc::mallinfo {
        arena: int(stats.mapped()),
        ordblks: 0,
        smblks: 0,
        hblks: 0,
        hblkhd: 0,
        usmblks: 0,
        fsmblks: 0,
        uordblks: int(stats.active),
        fordblks: int(stats.empty + stats.fresh),
        keepcost: int(stats.empty),
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
        text.send();
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
        let held = text.held();
        // SAFETY: `held` is a slice, and `file` is open for writing, as the caller promises in `#
        // Safety`.
        unsafe { libc::fwrite(held.as_ptr().cast(), 1, held.len(), file) == held.len() }
    });
    if written == Some(true) { 0 } else { -1 }
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
    text.add(format_args!("</malloc>\n"));
}
