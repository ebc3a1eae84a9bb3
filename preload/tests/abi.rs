//! The library's interface: its exports, how programs link it, and every entry by programs in C and
//! C++.
#![allow(missing_docs)]

mod library;

use library::{command, compile, library, prefix, preloaded, scratch, succeed, text};
use std::collections::BTreeSet;
use std::process::Command;

/// The most instructions that the hit paths of malloc and free may have, `ret` included.
const HIT_PATH: usize = 20;

const EXPORTS: &str = "
    malloc free calloc realloc reallocarray cfree aligned_alloc memalign posix_memalign valloc pvalloc
    free_sized free_aligned_sized
    __libc_malloc __libc_free __libc_calloc __libc_realloc __libc_memalign __libc_valloc __libc_pvalloc __posix_memalign
    malloc_usable_size malloc_trim malloc_stats malloc_info mallinfo mallinfo2 mallopt dlopen dlmopen
    _Znwm _ZnwmRKSt9nothrow_t _ZnwmSt11align_val_t _ZnwmSt11align_val_tRKSt9nothrow_t
    _Znam _ZnamRKSt9nothrow_t _ZnamSt11align_val_t _ZnamSt11align_val_tRKSt9nothrow_t
    _ZdlPv _ZdlPvm _ZdlPvRKSt9nothrow_t _ZdlPvSt11align_val_t _ZdlPvmSt11align_val_t
    _ZdlPvSt11align_val_tRKSt9nothrow_t
    _ZdaPv _ZdaPvm _ZdaPvRKSt9nothrow_t _ZdaPvSt11align_val_t _ZdaPvmSt11align_val_t
    _ZdaPvSt11align_val_tRKSt9nothrow_t
    theap_version theap_warm_up theap_warm_up_class theap_purge theap_collect theap_seal theap_unseal theap_set_front
    theap_owns theap_stats_json theap_on_soft_limit theap_serve_soft_limit theap_resident theap_hot_begin
    theap_hot_excuse theap_hot_end";

#[test]
fn exports_are_these() {
    let listing = text(
        Command::new("nm")
            .args(["-D", "--defined-only"])
            .arg(library()),
    );
    let found: BTreeSet<_> = listing
        .lines()
        .filter_map(|l| l.split(' ').nth(2))
        .collect();
    assert_eq!(found, EXPORTS.split_whitespace().collect());
}

/// The library needs no library but libc, binds nothing lazily, has its thread-local storage by
/// initial-exec, and has no unwinder.
#[test]
fn it_needs_little() {
    let dynamic = text(Command::new("readelf").arg("-dW").arg(library()));
    let needed: Vec<_> = dynamic.lines().filter(|l| l.contains("(NEEDED)")).collect();
    assert!(
        needed.len() == 1 && needed[0].contains("[libc.so.6]"),
        "{dynamic}"
    );
    for flag in ["STATIC_TLS", "BIND_NOW", "NODELETE", "[libtheap.so]"] {
        assert!(dynamic.contains(flag), "{flag}\n{dynamic}");
    }
    assert!(!dynamic.contains("TEXTREL"));
    let undefined = text(
        Command::new("nm")
            .args(["-D", "--undefined-only"])
            .arg(library()),
    );
    for name in ["__tls_get_addr", "malloc", "_Unwind", "personality"] {
        assert!(!undefined.contains(name), "{undefined}");
    }
}

/// The instructions of an exported function, in the order of their addresses.
fn disassemble(name: &str) -> Vec<String> {
    let symbols = text(Command::new("nm").args(["-D", "-S"]).arg(library()));
    let symbol = symbols
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.last() == Some(&name))
        .unwrap();
    let number = |field: &str| u64::from_str_radix(field, 16).unwrap();
    let (start, size) = (number(symbol[0]), number(symbol[1]));
    let listing = text(
        Command::new("objdump")
            .args(["-d", "--no-show-raw-insn", "-M", "intel"])
            .arg(format!("--start-address={start:#x}"))
            .arg(format!("--stop-address={:#x}", start + size))
            .arg(library()),
    );
    listing
        .lines()
        .filter_map(|line| line.trim().split_once(":\t"))
        .map(|(_, instruction)| instruction.to_owned())
        .collect()
}

/// The hit path falls through every branch: up to the first `ret` there is no call, and every jump
/// is conditional.
#[test]
fn malloc_and_free_are_straight() {
    for name in ["malloc", "free"] {
        let code = disassemble(name);
        let hit = code.iter().position(|i| i.starts_with("ret")).unwrap() + 1;
        println!("{name}: {hit} instructions");
        let shown = code[..hit].join("\n");
        assert!(hit <= HIT_PATH, "{name}: {hit} instructions\n{shown}");
        for instruction in &code[..hit] {
            assert!(
                !instruction.starts_with("call") && !instruction.starts_with("jmp"),
                "{name}\n{shown}"
            );
        }
        assert!(
            shown.contains("fs:"),
            "{name} reads its thread's slot\n{shown}"
        );
    }
}

#[test]
fn every_c_function() {
    succeed(&mut preloaded(60, compile("abi.c", "abi", &[])));
}

#[test]
fn every_c_function_in_every_page_mode() {
    let program = compile("abi.c", "abi-modes", &[]);
    let _pages = library::Hugepages::take(160);
    for mode in ["small", "thp", "hugetlb"] {
        succeed(preloaded(60, &program).env("THEAP_PAGES", mode));
    }
}

/// Compiles a program with the header, and links it with the flags of pkg-config.
#[test]
fn linked_by_pkg_config() {
    let flags = text(
        Command::new("pkg-config")
            .args(["--cflags", "--libs", "theap"])
            .env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig")),
    );
    let runpath = format!("-Wl,-rpath,{}/lib", prefix().display());
    let mut arguments = vec!["-DLINKED", runpath.as_str()];
    arguments.extend(flags.split_whitespace());
    let program = compile("abi.c", "abi-linked", &arguments);
    // Cargo names directories in which there may be another build of the library.
    succeed(command(60, program).env_remove("LD_LIBRARY_PATH"));
}

/// A relative PREFIX and DESTDIR start at the caller's directory.
#[test]
fn installed_below_the_callers_directory() {
    let here = scratch("relative").canonicalize().unwrap();
    let status = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/install.sh"))
        .arg("to/here")
        .current_dir(&here)
        .env("DESTDIR", "stage")
        .env("CARGO", env!("CARGO"))
        .env("CARGO_TARGET_DIR", library::build_directory())
        .status();
    assert!(status.unwrap().success());
    let prefix = here.join("to/here");
    let staged = here.join("stage").join(prefix.strip_prefix("/").unwrap());
    assert!(staged.join("lib/libtheap.so").is_file());
    let config = std::fs::read_to_string(staged.join("lib/pkgconfig/theap.pc")).unwrap();
    let line = format!("prefix={}\n", prefix.display());
    assert!(config.contains(&line), "{config}");
}

#[test]
fn every_operator() {
    succeed(&mut preloaded(
        60,
        compile("operators.cpp", "operators", &[]),
    ));
}

/// A program's own operators serve every form that C++ derives from them, and no size of a replaced
/// new is trusted.
#[test]
fn replaced_operators() {
    let runpath = format!("-Wl,-rpath,{}/lib", prefix().display());
    let directory = format!("-L{}/lib", prefix().display());
    let linked = [
        "-DSTATIC",
        "-static-libstdc++",
        "-ltheap",
        &runpath,
        &directory,
    ];
    for kind in ["-DPLAIN", "-DARRAY", "-DALIGNED", "-DLARGER"] {
        let name = kind.trim_start_matches("-D");
        let program = compile("replaced.cpp", name, &[kind, "-Wno-sized-deallocation"]);
        succeed(&mut command(60, &program));
        succeed(&mut preloaded(60, &program));
        let mut arguments = vec![kind, "-Wno-sized-deallocation"];
        arguments.extend(linked);
        let program = compile("replaced.cpp", &format!("{name}-static"), &arguments);
        succeed(&mut command(60, &program));
    }
}

/// A failing new works in a library that brought the C++ runtime along, and in a process without
/// one.
#[test]
fn operators_in_c_programs() {
    let plugin = compile("plugin.cpp", "plugin.so", &["-shared", "-fPIC"]);
    let host = compile("host.c", "host", &[]);
    succeed(preloaded(20, &host).arg(plugin));
    let output = preloaded(20, &host).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("theap: operator new failed"), "{said}");
}

/// To free an address that is no block ends the process with one line, at once or when the process
/// or the thread ends.
#[test]
fn misuse_is_reported() {
    let program = compile("wrong_free.c", "wrong_free", &["-O0", "-fno-builtin", "-w"]);
    for (mistake, message) in [
        ("stack", "free of a pointer that is not from this heap: "),
        ("twice", "double free of "),
        ("twice-large", "free of a pointer to which no block belongs"),
        ("twice-huge", "double free of "),
        ("twice-others-between", "double free of "),
        ("twice-and-trimmed", "double free of "),
        ("inside", "free of a pointer to which no block belongs"),
        (
            "inside-and-trimmed",
            "free of a pointer to which no block belongs",
        ),
        ("twice-in-a-thread", "double free of "),
        ("twice-in-a-thread-that-is-followed", "double free of "),
        ("here-and-in-a-thread", "double free of "),
        ("twice-in-a-handler", "double free of "),
        ("twice-in-a-destructor", "double free of "),
    ] {
        let output = preloaded(20, &program).arg(mistake).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{mistake}");
        let is_one_line = said.lines().count() == 1 && said.starts_with("theap: ");
        assert!(is_one_line && said.contains(message), "{mistake}: {said}");
    }
    for right in ["none", "ended-by-a-signal"] {
        succeed(preloaded(20, &program).arg(right));
    }
}
