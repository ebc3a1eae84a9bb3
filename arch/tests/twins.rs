//! The one runner that holds each pair of twins together on the same inputs.
//!
//! A pair is the function that the crate chose for this machine and the plain one of `portable`.
//! Where both are the same code, the tests check the plain one twice. Outputs go between guard
//! values, so that a write beyond the end shows. The tests also try the thread slot in a shared
//! library, loaded at run time and preloaded.
#![allow(unsafe_code)] // calls functions on raw memory, and loads a library

mod probe;

use probe::Probe;
use proptest::prelude::*;
use std::ffi::c_void;
use std::process::Command;
use std::ptr::{null_mut, without_provenance_mut};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::{env, fs, thread};
use theap_arch::{self as chosen, CLASSED_MAX, CLASSES, Magazine, TINY_MAX, portable};

/// Whether the crate has code for this machine.
const TUNED: bool = cfg!(all(target_arch = "x86_64", target_os = "linux", not(miri)));
/// A value that no function under test writes.
const GUARD: *mut u8 = without_provenance_mut(0x6a6a_6a6a_6a6a);
const CAPACITY: usize = 16;

/// A magazine with its array, between the sentinel and a guard.
///
/// The test reads the array through the same pointer as the header: an access through a reference
/// to the array would end the header's right to it.
struct Stack {
    entries: *mut Entries,
    capacity: usize,
    header: Magazine,
}

type Entries = [*mut u8; CAPACITY + 2];

impl Stack {
    fn new(capacity: usize) -> Self {
        let mut entries: Entries = [null_mut(); CAPACITY + 2];
        entries[capacity + 1] = GUARD;
        let entries = Box::into_raw(Box::new(entries));
        // SAFETY: `capacity` is at most CAPACITY, so both addresses lie within the array.
        let (base, limit) = unsafe {
            let base = entries.cast::<*mut u8>().add(1);
            (base, base.add(capacity))
        };
        Stack {
            entries,
            capacity,
            header: Magazine { top: base, limit },
        }
    }

    /// The sentinel below the magazine's entries and the guard above them.
    fn ends(&self) -> [*mut u8; 2] {
        // SAFETY: the array lives as long as `self`, and no reference to it exists.
        unsafe { [(*self.entries)[0], (*self.entries)[self.capacity + 1]] }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: `new` got the pointer from a box, and nobody uses the array after this.
        drop(unsafe { Box::from_raw(self.entries) });
    }
}

type Pop = unsafe fn(*mut Magazine) -> *mut u8;
type Push = unsafe fn(*mut Magazine, *mut u8) -> bool;
const MAGAZINES: [(Pop, Push); 2] = [
    (chosen::pop, chosen::push),
    (portable::magazine::pop, portable::magazine::push),
];

/// A header in read-only memory with its sentinel.
#[repr(C)]
struct Frozen(*mut u8, Magazine);
// SAFETY: nothing writes to the static.
unsafe impl Sync for Frozen {}
static FROZEN: Frozen = {
    let end = (&raw const FROZEN)
        .cast::<*mut u8>()
        .cast_mut()
        .wrapping_add(1);
    Frozen(
        null_mut(),
        Magazine {
            top: end,
            limit: end,
        },
    )
};

#[test]
fn failing_pop_and_push_write_nothing() {
    let header = (&raw const FROZEN.1).cast_mut();
    for (pop, push) in MAGAZINES {
        // SAFETY: an empty magazine of capacity 0; a write would end the process.
        unsafe {
            assert!(pop(header).is_null());
            assert!(!push(header, GUARD));
        }
    }
    assert!(FROZEN.0.is_null());
}

proptest! {
    #[test]
    fn magazines_are_stacks(
        capacity in 0..=CAPACITY,
        steps in proptest::collection::vec(proptest::option::of(1usize..), 0..200),
    ) {
        for (pop, push) in MAGAZINES {
            let mut stack = Stack::new(capacity);
            let mut model = Vec::new();
            for step in &steps {
                let header = &raw mut stack.header;
                match *step {
                    Some(value) => {
                        let room = model.len() < capacity;
                        // SAFETY: a valid magazine that only this thread uses.
                        prop_assert_eq!(unsafe { push(header, without_provenance_mut(value)) }, room);
                        if room {
                            model.push(value);
                        }
                    }
                    // SAFETY: a valid magazine that only this thread uses.
                    None => prop_assert_eq!(unsafe { pop(header) }.addr(), model.pop().unwrap_or(0)),
                }
                prop_assert_eq!(stack.ends(), [null_mut(), GUARD]);
            }
        }
    }
}

#[test]
fn every_size_has_the_same_class() {
    let mut class = 0;
    let mut largest = 16;
    for size in 0..=CLASSED_MAX {
        if size > largest {
            class += 1;
            largest += if largest < 128 {
                16
            } else {
                1 << (largest.ilog2() - 2)
            };
        }
        assert_eq!(chosen::class_of(size), class, "{size} bytes");
        assert_eq!(
            portable::size_class::class_of(size),
            class,
            "{size} bytes, twin"
        );
        if size <= TINY_MAX {
            assert_eq!(chosen::class_of_tiny(size), class, "{size} bytes, table");
            assert_eq!(
                portable::size_class::class_of_tiny(size),
                class,
                "{size} bytes, twin"
            );
        }
    }
    assert_eq!((class + 1, largest), (CLASSES, CLASSED_MAX));
}

#[test]
fn larger_sizes_have_no_class() {
    let powers = (21..64).map(|shift| 1usize << shift);
    for size in powers
        .flat_map(|p| [p + 1, p + p / 2])
        .chain([usize::MAX / 2, usize::MAX])
    {
        assert!(chosen::class_of(size) >= CLASSES, "{size}");
        assert!(
            portable::size_class::class_of(size) >= CLASSES,
            "{size}, twin"
        );
    }
}

type Expand = unsafe fn(u64, usize, usize, *mut *mut u8) -> usize;

/// Runs one of the twins into an array that has room for 64 addresses and a guard at both ends.
fn expanded(expand: Expand, word: u64, base: usize, stride: usize) -> Vec<usize> {
    let mut out = [GUARD; 66];
    // SAFETY: from the second entry on the array has 65 entries, and a word has at most 64 bits.
    let count = unsafe { expand(word, base, stride, out.as_mut_ptr().add(1)) };
    assert!(
        out[0] == GUARD && out[count + 1..].iter().all(|&p| p == GUARD),
        "{word:#x}"
    );
    out[1..=count].iter().map(|p| p.addr()).collect()
}

type ExpandFull = unsafe fn(usize, usize, *mut *mut u8);

/// Runs one of the twins for a full word into such an array.
fn expanded_full(expand: ExpandFull, base: usize, stride: usize) -> Vec<usize> {
    let mut out = [GUARD; 66];
    // SAFETY: from the second entry on the array has 65 entries, and a word has at most 64 bits.
    unsafe { expand(base, stride, out.as_mut_ptr().add(1)) };
    assert!(out[0] == GUARD && out[65] == GUARD);
    out[1..65].iter().map(|p| p.addr()).collect()
}

fn check_expand(word: u64, base: usize, stride: usize) {
    let address = |bit: usize| base.wrapping_add(stride.wrapping_mul(bit));
    let expected: Vec<usize> = (0..64)
        .rev()
        .filter(|bit| word >> bit & 1 == 1)
        .map(address)
        .collect();
    assert_eq!(
        expanded(chosen::expand, word, base, stride),
        expected,
        "{word:#x}"
    );
    assert_eq!(
        expanded(portable::bitmap::expand, word, base, stride),
        expected,
        "{word:#x}, twin"
    );
}

fn check_expand_full(base: usize, stride: usize) {
    let expected = expanded(portable::bitmap::expand, u64::MAX, base, stride);
    assert_eq!(expanded_full(chosen::expand_full, base, stride), expected);
    assert_eq!(
        expanded_full(portable::bitmap::expand_full, base, stride),
        expected
    );
}

#[test]
fn edge_words_expand_alike() {
    for stride in [0, 1, 16, 262_144, (1 << 32) - 1] {
        for base in [0, 4096, 1 << 46, usize::MAX - 100] {
            for low in (0..=64).step_by(if cfg!(miri) { 32 } else { 1 }) {
                let ones = u64::MAX.checked_shr(64 - low).unwrap_or(0);
                for word in [
                    ones,
                    !ones,
                    ones.rotate_left(13),
                    ones & 0x5555_5555_5555_5555,
                ] {
                    check_expand(word, base, stride);
                }
            }
            check_expand_full(base, stride);
        }
    }
}

proptest! {
    #[test]
    fn random_words_expand_alike(
        words in [any::<u64>(), any::<u64>(), any::<u64>()],
        base in 0usize..1 << 47,
        stride in 0usize..1 << 32,
    ) {
        let [a, b, c] = words;
        // One bit in eight, one in two, seven in eight.
        for word in [a & b & c, a, a | b | c] {
            check_expand(word, base, stride);
        }
        check_expand_full(base, stride);
    }
}

#[test]
fn clearing_touches_exactly_the_range() {
    // Miri takes minutes for the lengths above.
    let most = if cfg!(miri) { 70 } else { usize::MAX };
    let lengths = (0..=300).chain([511, 512, 513, 4096, 65_537]);
    for len in lengths.filter(|&len| len <= most) {
        for start in [0, 1, 7, 16, 33] {
            for clear in [chosen::clear, portable::clear::clear] as [unsafe fn(*mut u8, usize); 2] {
                let mut memory = vec![0xa5u8; start + len + 64];
                // SAFETY: the range lies within the vector.
                unsafe { clear(memory.as_mut_ptr().add(start), len) };
                let (before, rest) = memory.split_at(start);
                let (range, after) = rest.split_at(len);
                assert!(
                    range.iter().all(|&byte| byte == 0),
                    "{len} bytes at {start}"
                );
                assert!(
                    before.iter().chain(after).all(|&byte| byte == 0xa5),
                    "{len} at {start}"
                );
            }
        }
    }
}

#[test]
fn tables_are_written_exactly() {
    for len in (0..=100).chain([254, 255, 256, 257, 270, 271, 272, 273, 500]) {
        for start in [0, 1, 7, 16] {
            let check = |write: &dyn Fn(*const AtomicU8), wanted: &dyn Fn(usize) -> u8| {
                let memory: Vec<_> = (0..start + len + 32).map(|_| AtomicU8::new(0xa5)).collect();
                write(memory[start..].as_ptr());
                for (at, byte) in memory.iter().enumerate() {
                    let inside = (start..start + len).contains(&at);
                    let wanted = if inside { wanted(at - start) } else { 0xa5 };
                    assert_eq!(byte.load(Relaxed), wanted, "{at} of {len} at {start}");
                }
            };
            for fill in [chosen::fill, portable::table::fill] {
                // SAFETY: the places lie within the vector.
                check(&|table| unsafe { fill(table, len, 0x7e) }, &|_| 0x7e);
            }
            for number in [chosen::number, portable::table::number] {
                // SAFETY: as before.
                check(&|table| unsafe { number(table, len) }, &|at| {
                    at.min(255) as u8
                });
            }
        }
    }
}

/// Whether the C library says that it registers threads with rseq.
fn has_rseq() -> bool {
    // SAFETY: a terminated name; where the symbol exists it is a constant of 4 bytes.
    unsafe {
        let size = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr()).cast::<u32>();
        !size.is_null() && size.read() > 0
    }
}

/// Calls `check` on each CPU that this thread may run on.
fn on_each_cpu(check: impl Fn(i64)) {
    // SAFETY: plain data, filled in by the system, for this thread.
    unsafe {
        let size = size_of::<libc::cpu_set_t>();
        let mut allowed = std::mem::zeroed::<libc::cpu_set_t>();
        assert_eq!(libc::sched_getaffinity(0, size, &mut allowed), 0);
        for cpu in (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &allowed)) {
            let mut one = std::mem::zeroed::<libc::cpu_set_t>();
            libc::CPU_SET(cpu, &mut one);
            assert_eq!(libc::sched_setaffinity(0, size, &one), 0);
            check(cpu as i64);
        }
        assert_eq!(libc::sched_setaffinity(0, size, &allowed), 0);
    }
}

#[test]
fn cpu_number_is_where_the_thread_runs() {
    on_each_cpu(|cpu| {
        let expected = (has_rseq() && TUNED).then_some(cpu as u32);
        assert_eq!(chosen::cpu_number(), expected);
        assert_eq!(portable::cpu::cpu_number(), None);
    });
}

static EMPTY: [u64; 4] = [7; 4];
theap_arch::thread_slot! { mod tuned: c_void = EMPTY; }
theap_arch::portable_thread_slot! { mod plain: c_void = EMPTY; }

/// Every thread's slot starts with the static's address and keeps what its thread puts in.
fn check_slot(
    get: impl Fn() -> *mut c_void + Sync,
    set: impl Fn(*mut c_void) + Sync,
    empty: *const c_void,
) {
    const THREADS: usize = 4;
    let (together, empty) = (Barrier::new(THREADS), empty.addr());
    thread::scope(|scope| {
        for number in 1..=THREADS {
            let (get, set, together) = (&get, &set, &together);
            scope.spawn(move || {
                assert_eq!(get().addr(), empty);
                for round in 1..100 {
                    let mine = without_provenance_mut(number * 4096 + round);
                    set(mine);
                    together.wait();
                    assert_eq!(get(), mine);
                }
            });
        }
    });
    assert_eq!(get().addr(), empty);
}

#[test]
fn slots_belong_to_their_threads() {
    let empty = (&raw const EMPTY).cast();
    check_slot(tuned::get, tuned::set, empty);
    check_slot(plain::get, plain::set, empty);
}

fn check_probe(probe: Probe) {
    check_slot(
        || (probe.get)(),
        |value| (probe.set)(value),
        (probe.empty)(),
    );
    on_each_cpu(|cpu| assert_eq!((probe.cpu)(), if has_rseq() { cpu } else { -1 }));
}

/// This test checks a library that it loads, and runs this program again with the library
/// preloaded, where the test checks the preloaded one.
#[test]
#[cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux", not(miri))),
    ignore
)]
fn slots_work_in_libraries() {
    if let Some(probe) = probe::find(libc::RTLD_DEFAULT) {
        return check_probe(probe);
    }
    for profile in ["dev", "release", "lto"] {
        let library = probe::build(profile, false);
        let image = fs::read(&library).unwrap();
        let call = b"__tls_get_addr";
        assert!(
            !image.windows(call.len()).any(|name| name == call),
            "{profile} calls for TLS"
        );
        check_probe(probe::load(&library));
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "slots_work_in_libraries"])
            .env("LD_PRELOAD", &library)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{profile}: {said}"
        );
        probe::remove(&library);
    }
}
