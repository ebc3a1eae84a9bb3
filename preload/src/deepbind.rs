//! Plugins that are loaded with RTLD_DEEPBIND.
//!
//! Such a plugin looks for `malloc` and `free` in the libraries that it needs, and finds the C
//! library's before this library's: a block that its host gave it to free would end the process.
//! `dlopen` of this library does what the C library's does. Before the first plugin of this kind
//! it changes the C library's symbol table in memory: there the malloc family leads to the
//! functions that the rest of the process has under these names. Everything else that the plugin
//! wants to find in its own libraries first, it still finds there.
//!
//! Nothing is changed where another malloc comes before this one, where the option `foreign` is not
//! `hand-over`, or where the table lies in memory that may be executed.
#![allow(unsafe_code)] // Exported names, assembly, the C library's symbol table.

use crate::foreign;
use crate::image::is_ours;
use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use libc::{Elf64_Ehdr, Elf64_Phdr, Elf64_Sym};
use theap::raw;

const PAGE: usize = 4096;

/// Tags of a dynamic section: the table of symbols, that of their names, and the table of hashes.
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
/// The kind of a symbol that is a function.
const STT_FUNC: u8 = 2;

/// The malloc family of the C library.
const NAMES: [&CStr; 18] = [
    c"malloc",
    c"free",
    c"calloc",
    c"realloc",
    c"reallocarray",
    c"aligned_alloc",
    c"memalign",
    c"posix_memalign",
    c"valloc",
    c"pvalloc",
    c"malloc_usable_size",
    c"__libc_malloc",
    c"__libc_free",
    c"__libc_calloc",
    c"__libc_realloc",
    c"__libc_memalign",
    c"__libc_valloc",
    c"__libc_pvalloc",
];

/// It is true once the C library's symbol table was changed, or cannot be.
static DONE: AtomicBool = AtomicBool::new(false);

macro_rules! loading {
    ($($name:ident($($argument:ident: $type:ty),*) = $next:ident)+) => {$(
        /// Loads a library, as the C library's function of this name does. That one learns from the
        /// return address who calls, so it is entered by a jump.
        ///
        /// # Safety
        /// The conditions of the C library's function.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> *mut c_void {
            naked_asm!(
                ".cfi_startproc",
                "push rdi",
                ".cfi_adjust_cfa_offset 8",
                "push rsi",
                ".cfi_adjust_cfa_offset 8",
                "push rdx",
                ".cfi_adjust_cfa_offset 8",
                "call {next}",
                "pop rdx",
                ".cfi_adjust_cfa_offset -8",
                "pop rsi",
                ".cfi_adjust_cfa_offset -8",
                "pop rdi",
                ".cfi_adjust_cfa_offset -8",
                "test rax, rax",
                "jz 2f",
                "jmp rax",
                "2:",
                "ret",
                ".cfi_endproc",
                next = sym $next,
            )
        }
    )+};
}

loading! {
    dlopen(file: *const c_char, mode: c_int) = next_dlopen
    dlmopen(space: libc::Lmid_t, file: *const c_char, mode: c_int) = next_dlmopen
}

extern "C" fn next_dlopen(_: *const c_char, mode: c_int) -> *mut c_void {
    prepare(mode);
    // SAFETY: the name ends with a zero.
    unsafe { libc::dlsym(libc::RTLD_NEXT, c"dlopen".as_ptr()) }
}

extern "C" fn next_dlmopen(space: libc::Lmid_t, _: *const c_char, mode: c_int) -> *mut c_void {
    // Another name space has a C library of its own.
    if space == libc::LM_ID_BASE {
        prepare(mode);
    }
    // SAFETY: the name ends with a zero.
    unsafe { libc::dlsym(libc::RTLD_NEXT, c"dlmopen".as_ptr()) }
}

/// Changes the C library's symbol table before the first library that is loaded with
/// RTLD_DEEPBIND. Two threads may do so at once: they write the same.
fn prepare(mode: c_int) {
    if mode & libc::RTLD_DEEPBIND == 0 || DONE.load(Relaxed) {
        return;
    }
    if is_ours(in_process(c"malloc"))
        && raw::stands_in()
        && let Some(library) = Library::of(foreign::c_library())
    {
        NAMES.iter().for_each(|name| library.lead(name));
    }
    DONE.store(true, Relaxed);
}

/// The function that the process has under this name.
fn in_process(name: &CStr) -> *const c_void {
    // SAFETY: the name ends with a zero.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

/// The loader's description of a library: the first two members of `struct link_map` (link.h).
#[repr(C)]
struct LinkMap {
    base: usize,
    name: *const c_char,
    dynamic: *const Dynamic,
}

/// An entry of a library's dynamic section.
#[repr(C)]
struct Dynamic {
    tag: i64,
    value: usize,
}

unsafe extern "C" {
    fn dladdr1(
        address: *const c_void,
        info: *mut libc::Dl_info,
        extra: *mut *mut c_void,
        flags: c_int,
    ) -> c_int;
}

/// `dladdr1` answers the library's `LinkMap`.
const RTLD_DL_LINKMAP: c_int = 2;

/// A loaded library whose symbol table lies in memory that may be read only.
struct Library {
    base: usize,
    symbols: *const Elf64_Sym,
    strings: *const c_char,
    hashes: *const u32,
}

impl Library {
    /// The library of this function; `None` if its symbol table is not known or may not be changed.
    fn of(function: *const c_void) -> Option<Self> {
        let mut info = MaybeUninit::<libc::Dl_info>::uninit();
        let mut map = null_mut();
        // SAFETY: both may be written, and any address may be asked for.
        if unsafe { dladdr1(function, info.as_mut_ptr(), &raw mut map, RTLD_DL_LINKMAP) } == 0 {
            return None;
        }
        // SAFETY: the loader has answered the description of a library that is loaded.
        let LinkMap { base, dynamic, .. } = unsafe { map.cast::<LinkMap>().read() };
        // SAFETY: it describes a library that stays, for it is the C library.
        let [symbols, strings, hashes] = unsafe { tables(base, dynamic) }?;
        // SAFETY: a library's first page is its header.
        unsafe { is_read_only(base, symbols) }.then_some(Self {
            base,
            symbols: symbols as *const Elf64_Sym,
            strings: strings as *const c_char,
            hashes: hashes as *const u32,
        })
    }

    /// Lets the name lead to the function that the process has under it.
    fn lead(&self, name: &CStr) {
        let function = in_process(name).addr();
        let Some(symbol) = self.symbol(name).filter(|_| function != 0) else {
            return;
        };
        let page = symbol.addr() / PAGE * PAGE;
        let bytes = symbol.addr() + size_of::<Elf64_Sym>() - page;
        let page = page as *mut c_void;
        // SAFETY: the pages hold constants of the library, which nobody else makes writable. Other
        // threads read the aligned word's old value or its new one, and both are right.
        unsafe {
            if libc::mprotect(page, bytes, libc::PROT_READ | libc::PROT_WRITE) == 0 {
                let value = (&raw const (*symbol).st_value).cast_mut();
                AtomicU64::from_ptr(value).store(function.wrapping_sub(self.base) as u64, Relaxed);
                libc::mprotect(page, bytes, libc::PROT_READ);
            }
        }
    }

    /// The library's entry for a function of this name, found by the table of hashes as the loader
    /// finds it: numbers of buckets, of the first symbol in the table, of words of a filter, and of
    /// bits to shift; the filter; the buckets; a hash for each symbol, whose lowest bit ends its
    /// bucket.
    fn symbol(&self, name: &CStr) -> Option<*const Elf64_Sym> {
        let hash = name.to_bytes().iter().fold(5381, |hash: u32, byte| {
            hash.wrapping_mul(33).wrapping_add(u32::from(*byte))
        });
        // SAFETY: the table has this form (`Elf_GNU_Hash`), and its numbers are those of symbols.
        // Names of symbols are offsets of strings that end with a zero.
        unsafe {
            let [buckets, first, filter] = [0, 1, 2].map(|at| *self.hashes.add(at));
            let bucket = self.hashes.add(4 + 2 * filter as usize);
            let chain = bucket.add(buckets as usize);
            let mut number = *bucket.add((hash % buckets) as usize);
            if number < first {
                return None;
            }
            loop {
                let found = *chain.add((number - first) as usize);
                let symbol = self.symbols.add(number as usize);
                if found | 1 == hash | 1
                    && (*symbol).st_info & 15 == STT_FUNC
                    && CStr::from_ptr(self.strings.add((*symbol).st_name as usize)) == name
                {
                    return Some(symbol);
                }
                if found & 1 == 1 {
                    return None;
                }
                number += 1;
            }
        }
    }
}

/// The places of a library's symbols, their names, and the hashes of these.
///
/// # Safety
/// The loader has these two in a library's description, and the library stays.
unsafe fn tables(base: usize, dynamic: *const Dynamic) -> Option<[usize; 3]> {
    let mut found = [0; 3];
    // SAFETY: a dynamic section ends with an entry of tag 0.
    let entries = (0..).map(|at| unsafe { &*dynamic.add(at) });
    for entry in entries.take_while(|entry| entry.tag != 0) {
        let Some(table) = [DT_SYMTAB, DT_STRTAB, DT_GNU_HASH]
            .iter()
            .position(|tag| *tag == entry.tag)
        else {
            continue;
        };
        // The loader adds the base where it may write to the section.
        let added = if entry.value < base { base } else { 0 };
        found[table] = entry.value + added;
    }
    found.iter().all(|place| *place != 0).then_some(found)
}

/// Tells whether the library maps this address for reading only.
///
/// # Safety
/// A loaded library's header is at `base`.
unsafe fn is_read_only(base: usize, address: usize) -> bool {
    // SAFETY: the header says where the descriptions of the segments are, in the same segment.
    unsafe {
        let header = base as *const Elf64_Ehdr;
        let segments = (base + (*header).e_phoff as usize) as *const Elf64_Phdr;
        (0..usize::from((*header).e_phnum)).any(|at| {
            let segment = &*segments.add(at);
            let start = base + segment.p_vaddr as usize;
            segment.p_type == libc::PT_LOAD
                && segment.p_flags == libc::PF_R
                && (start..start + segment.p_memsz as usize).contains(&address)
        })
    }
}
