//! Pointers from elsewhere: blocks of the C library go back to it, other addresses end the process,
//! and the names that glibc has for its malloc beside the usual ones are this library's.
#![allow(missing_docs)]

mod library;

use library::{command, compile, prefix, preloaded, scratch, succeed};
use std::path::PathBuf;
use std::process::Output;

/// The exit status of `foreign.c` for a number that it has no address for.
const NO_SUCH: i32 = 77;

fn maker(name: &str) -> PathBuf {
    compile("maker.c", &format!("{name}.so"), &["-shared", "-fPIC"])
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn blocks_of_the_c_library_go_back_to_it() {
    let (program, plugin) = (compile("foreign.c", "foreign", &[]), maker("maker"));
    let run = |name: &str, value: &str| {
        succeed(
            preloaded(120, &program)
                .arg(&plugin)
                .arg("every")
                .env("THEAP_FOREIGN", "apart")
                .env(name, value),
        )
    };
    for (name, value) in [
        ("THEAP_PAGES", "small"),
        ("THEAP_PAGES", "thp"),
        ("THEAP_FRONT", "classic"),
        // The C library's arenas: one for all threads, and blocks of all sizes in them.
        ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=67108864"),
    ] {
        let said = said(&run(name, value));
        assert!(
            said.starts_with("theap: the program frees or resizes 0x") && said.lines().count() == 1,
            "{value}: once: {said}"
        );
    }
    let said = said(&run("THEAP_MESSAGES", "0"));
    assert_eq!(said, "");
}

/// A plugin that looks for malloc in its own libraries first finds the process's, and everything
/// else where it looked for it: in itself, and by the run path of whoever loads it.
#[test]
fn plugins_that_look_in_their_own_libraries_are_served() {
    let shared = |name: &str, define: &str| {
        let run_path = [
            "-shared",
            "-fPIC",
            define,
            "-Wl,-rpath,$ORIGIN/../bin-deepbind-plugin.so",
        ];
        compile("deepbind.c", name, &run_path)
    };
    let plugin = shared("deepbind-plugin.so", "-DPLUGIN");
    let loader = shared("deepbind-loader.so", "-DLOADER");
    let host = compile("deepbind.c", "deepbind", &["-rdynamic"]);
    let run = |value: &str, whose: &str, variables: &[(&str, &str)]| {
        let mut command = preloaded(60, &host);
        command.args([&plugin, &loader]).arg(whose);
        command
            .env("THEAP_FOREIGN", value)
            .envs(variables.iter().copied());
        assert_eq!(said(&succeed(&mut command)), "");
    };
    run("hand-over", "theap", &[]);
    run("hand-over", "theap", &[("LD_BIND_NOW", "1")]);
    run("hand-over", "theap", &[("THEAP_PAGES", "thp")]);
    run("apart", "libc", &[]);
    run("abort", "libc", &[]);
}

#[test]
fn the_option_ends_the_process_instead() {
    let (program, plugin) = (compile("foreign.c", "ends", &[]), maker("ends"));
    let output = preloaded(20, &program)
        .arg(plugin)
        .arg("one")
        .env("THEAP_FOREIGN", "abort")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = said(&output);
    assert!(
        said.starts_with("theap: free of a pointer that is not from this heap: 0x"),
        "{said}"
    );
}

/// A library that was linked with this one, and is loaded late into a program that was not: what
/// the program allocates is the C library's, since before this library came.
#[test]
fn a_library_that_comes_late_hands_over_too() {
    let runpath = format!("-Wl,-rpath,{}/lib", prefix().display());
    let directory = format!("-L{}/lib", prefix().display());
    let linked = ["-shared", "-fPIC", &directory, "-ltheap", &runpath];
    let plugin = compile("maker.c", "late.so", &linked);
    let program = compile("foreign.c", "late", &[]);
    let said = said(&succeed(command(20, program).arg(plugin).arg("theirs")));
    assert!(said.contains("a block of the C library's malloc"), "{said}");
}

/// An address on a stack, in a binary, in nothing, or inside of a block of the C library.
#[test]
fn what_is_no_block_ends_the_process() {
    let (program, plugin) = (compile("foreign.c", "wrong", &[]), maker("wrong"));
    let mut tried = 0;
    for number in 0.. {
        let run = |resize: &[&str]| {
            let mut command = preloaded(20, &program);
            command.arg(&plugin).arg(number.to_string()).args(resize);
            command.env("THEAP_FOREIGN", "apart").output().unwrap()
        };
        let output = run(&[]);
        if output.status.code() == Some(NO_SUCH) {
            break;
        }
        for output in [output, run(&["resize"])] {
            let said = said(&output);
            assert!(
                !output.status.success()
                    && said.contains("theap: free of a pointer that is not from this heap: 0x")
                    && said.contains("(SIGABRT)")
                    && said.lines().count() == 1,
                "{number}: {said}"
            );
        }
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
}

/// Programs that call glibc's other names get blocks of this heap, with the right contents,
/// alignment and errors.
#[test]
fn other_names_of_glibc_are_of_the_same_heap() {
    let source = scratch("names").join("names.c");
    std::fs::write(&source, NAMES).unwrap();
    let program = source.with_extension("out");
    let status = std::process::Command::new("cc")
        .args(["-w", "-O0", "-fno-builtin", "-I"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/c"))
        .arg("-o")
        .args([&program, &source])
        .status();
    assert!(status.unwrap().success());
    let output = succeed(&mut preloaded(20, &program));
    assert_eq!(said(&output), "");
}

const NAMES: &str = r#"
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t), *__libc_valloc(size_t), *__libc_pvalloc(size_t);
extern void __libc_free(void *);
int main(void) {
    bool (*owns)(const void *);
    int (*aligned)(void **, size_t, size_t);
    void (*sized)(void *, size_t), (*aligned_sized)(void *, size_t, size_t);
    *(void **)&owns = dlsym(RTLD_DEFAULT, "theap_owns");
    *(void **)&aligned = dlsym(RTLD_DEFAULT, "__posix_memalign");
    *(void **)&sized = dlsym(RTLD_DEFAULT, "free_sized");
    *(void **)&aligned_sized = dlsym(RTLD_DEFAULT, "free_aligned_sized");
    CHECK(owns && aligned && sized && aligned_sized);
    for (size_t size = 0; size < 3 << 20; size += size / 4 + 1) {
        void *placed = NULL;
        CHECK(aligned(&placed, 64, size) == 0 && (uintptr_t)placed % 64 == 0);
        void *all[] = {__libc_malloc(size), __libc_calloc(size, 1), __libc_realloc(NULL, size),
                       __libc_memalign(64, size), __libc_valloc(size), __libc_pvalloc(size), placed,
                       __libc_realloc(malloc(5), size + 1), malloc(size), aligned_alloc(64, size)};
        CHECK((uintptr_t)all[3] % 64 == 0 && (uintptr_t)all[4] % 4096 == 0 && (uintptr_t)all[5] % 4096 == 0);
        for (size_t at = 0; at < size; at++)
            CHECK(((char *)all[1])[at] == 0);
        for (int i = 0; i < 10; i++) {
            CHECK(all[i] && owns(all[i]));
            memset(all[i], 1, size);
        }
        for (int i = 0; i < 4; i++)
            free(all[i]);
        for (int i = 4; i < 8; i++)
            __libc_free(all[i]);
        sized(all[8], size);
        aligned_sized(all[9], 64, size);
    }
    sized(NULL, 10);
    aligned_sized(NULL, 64, 10);
    __libc_free(NULL);
    void *place = &place;
    CHECK(aligned(&place, 3, 10) == EINVAL && aligned(&place, 64, SIZE_MAX) == ENOMEM && place == &place);
    FAILS(__libc_malloc(SIZE_MAX), ENOMEM);
    FAILS(__libc_calloc(SIZE_MAX, 2), ENOMEM);
    FAILS(__libc_memalign(64, SIZE_MAX), ENOMEM);
    FAILS(__libc_pvalloc(SIZE_MAX), ENOMEM);
    return 0;
}
"#;
