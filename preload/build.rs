//! Linker arguments of `libtheap.so`: its exports, and how the loader loads it; and whether the
//! build is an optimised one.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=exports.map");
    // Calls at the end of a function are jumps then.
    println!("cargo::rustc-check-cfg=cfg(optimised)");
    if std::env::var("OPT_LEVEL").is_ok_and(|level| level != "0") {
        println!("cargo::rustc-cfg=optimised");
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
