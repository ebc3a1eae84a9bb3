//! Linker arguments of `libtheap.so`: its exports, and how the loader loads it; and whether malloc
//! and free are the tuned ones, which check nothing.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=exports.map");
    println!("cargo::rustc-check-cfg=cfg(tuned)");
    let is_optimised = std::env::var("OPT_LEVEL").is_ok_and(|level| level != "0");
    let checks = ["HARDENED", "VALGRIND"]
        .iter()
        .any(|feature| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some());
    if is_optimised && !checks {
        println!("cargo::rustc-cfg=tuned");
    }
    let dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    for argument in [
        // rustc's own script lists the same symbols; this one is a list for people to read.
        &format!("--version-script={dir}/exports.map"),
        "-soname=libtheap.so",
        // The destructor of its pthread key and its blocks must outlive any dlclose.
        "-z,nodelete",
        // Its fork handlers must be the first that the process registers.
        "-z,initfirst",
        // Every short program has fewer mappings to set up.
        "-z,noseparate-code",
        "--hash-style=gnu",
    ] {
        println!("cargo::rustc-cdylib-link-arg=-Wl,{argument}");
    }
}
