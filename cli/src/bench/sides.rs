//! The sides of the row suite: theap, theap on small pages, System, and the peers that this host
//! has.

use std::env;
use std::path::Path;

use anyhow::{Context, Result};
use theap_bench::suite::{Entrant, Role, Side, glibc};

use crate::launch::library;
use crate::launch::peer::{self, Peer};

/// The directories in which distributions install libraries.
const LIBRARY_DIRECTORIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
];

/// The peers that are searched for: name, file, and Debian's package.
const KNOWN: [[&str; 3]; 4] = [
    ["mimalloc", "libmimalloc.so.2", "libmimalloc2.0"],
    ["jemalloc", "libjemalloc.so.2", "libjemalloc2"],
    [
        "tcmalloc",
        "libtcmalloc_minimal.so.4",
        "libtcmalloc-minimal4",
    ],
    ["tbbmalloc", "libtbbmalloc_proxy.so.2", "libtbbmalloc2"],
];

/// All sides. The peers are those that were asked for or, if none was, the known ones.
///
/// # Errors
/// Fails if a library is not there, or if two peers have one name.
pub fn all(library: Option<&Path>, asked: &[Peer]) -> Result<Vec<Side>> {
    let theap = library::find(library)?;
    let mut sides = Role::SUBJECTS
        .iter()
        .map(|&(role, name)| side(name, role, Some(&theap)))
        .collect::<Result<Vec<_>>>()?;
    sides.push(side("system", Role::Peer, None)?);
    let installed = if asked.is_empty() {
        installed()?
    } else {
        Vec::new()
    };
    for peer in asked.iter().chain(&installed) {
        let names = sides.iter().map(|side| &*side.entrant.name);
        peer::name_is_free(&peer.name, names)?;
        sides.push(side(&peer.name, Role::Peer, Some(&peer.library))?);
    }
    Ok(sides)
}

fn side(name: &str, role: Role, library: Option<&Path>) -> Result<Side> {
    let mut arguments = vec!["row".into()];
    let mut environment = role.variables();
    if let Some(library) = library {
        arguments.extend(["--library".into(), library.into()]);
        environment.push((library::PRELOAD.into(), library::preload(library)));
    }
    let version = match (role, library) {
        (Role::Peer, Some(library)) => library.display().to_string(),
        (Role::Peer, None) => glibc(),
        _ => format!("theap {}", env!("CARGO_PKG_VERSION")),
    };
    Ok(Side {
        entrant: Entrant {
            name: name.into(),
            role,
            version,
        },
        program: env::current_exe().context("cannot find this program")?,
        arguments,
        environment,
    })
}

/// The known peers that this host has, with a line on standard error for each that it has not.
fn installed() -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for [name, file, package] in KNOWN {
        let mut paths = LIBRARY_DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join(file));
        match paths.find(|path| path.exists()) {
            Some(path) => peers.push(Peer {
                name: name.into(),
                library: library::named(&path)?,
            }),
            None => {
                eprintln!("note: without {name}: there is no {file}; Debian has it in {package}")
            }
        }
    }
    Ok(peers)
}
