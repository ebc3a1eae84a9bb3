//! Linker arguments of `libtheap.so`: what it exports, and how it is loaded.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=exports.map");
    let dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    for argument in [
        // rustc's own script lists the same symbols; ours makes the list one to read.
        &format!("--version-script={dir}/exports.map"),
        "-soname=libtheap.so",
        // Its key destructor and its blocks outlive any dlclose.
        "-z,nodelete",
        // Its fork handlers are to be the first.
        "-z,initfirst",
        // Fewer mappings to set up in every short program.
        "-z,noseparate-code",
        "--hash-style=gnu",
    ] {
        println!("cargo::rustc-cdylib-link-arg=-Wl,{argument}");
    }
}
