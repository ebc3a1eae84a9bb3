//! The rooms of a crate, and the imports between them. A room is a directory of modules, or a
//! single module beside the crate's root; the root is a room of its own. A path is followed through
//! `pub use` to the file that defines the name. The checks do not see the use of a method, or of a
//! macro by its bare name, because these leave no path.
//!
//! ```text
//! root file -> modules (scan) -> each path resolved: file names file -> room names room
//! ```

mod made_up;
mod scan;

use scan::{Declared, Scope, Segments};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

/// A module, in a file of its own or within one.
struct Module {
    path: Segments,
    file: PathBuf,
    /// Whether the module is compiled for tests alone.
    tests: bool,
    parent: usize,
    children: BTreeMap<String, usize>,
    scope: Scope,
}

/// The end of a path.
#[derive(Clone, Copy)]
enum Target {
    Module(usize),
    /// An item of this module.
    Item(usize),
    OtherCrate,
}

/// The modules below one root file.
pub struct Crate {
    modules: Vec<Module>,
}

/// A place where a file names another file that belongs to another room.
pub struct Import {
    file: PathBuf,
    line: usize,
    path: String,
    target: PathBuf,
}

impl std::fmt::Display for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (file, target) = (self.file.display(), self.target.display());
        write!(f, "{file}:{} names {} ({target})", self.line, self.path)
    }
}

/// The rooms, each with the rooms that it names and the places where it does.
pub type Graph = BTreeMap<String, BTreeMap<String, Vec<Import>>>;

impl Crate {
    /// Reads the root file and all modules below it. Paths in reports are relative to `base`.
    pub fn read(base: &Path, root: &Path) -> Crate {
        let mut whole = Crate {
            modules: Vec::new(),
        };
        let scope = read(root);
        let directory = root.parent().unwrap();
        whole.add(0, Vec::new(), root, directory, scope, false);
        for module in &mut whole.modules {
            if let Ok(relative) = module.file.strip_prefix(base) {
                module.file = relative.to_path_buf();
            }
        }
        whole
    }

    /// Adds a module and the modules that it declares; `directory` has the files of its children.
    fn add(
        &mut self,
        parent: usize,
        path: Segments,
        file: &Path,
        directory: &Path,
        mut scope: Scope,
        tests: bool,
    ) -> usize {
        let declared = std::mem::take(&mut scope.modules);
        let index = self.modules.len();
        let tests = tests || scope.tests;
        self.modules.push(Module {
            path,
            file: file.to_path_buf(),
            tests,
            parent,
            children: BTreeMap::new(),
            scope,
        });
        for child in declared {
            self.add_child(index, directory, child);
        }
        index
    }

    fn add_child(&mut self, parent: usize, directory: &Path, child: Declared) {
        let Module {
            path, file, tests, ..
        } = &self.modules[parent];
        let (mut path, tests) = (path.clone(), *tests || child.tests);
        path.push(child.name.clone());
        // A module may be declared once for each of several configurations; the name means the
        // first.
        let known = self.modules[parent].children.get(&child.name).copied();
        if let (Some(known), None) = (known, &child.body) {
            self.modules[known].tests &= tests;
            return;
        }
        let mut inside = directory.join(&child.name);
        let (file, scope) = match (child.body, child.path) {
            (Some(scope), _) => (file.clone(), scope),
            (None, Some(path)) => {
                let file = file.parent().unwrap().join(path).canonicalize().unwrap();
                inside = file.parent().unwrap().to_path_buf();
                let scope = read(&file);
                (file, scope)
            }
            (None, None) => {
                let alone = directory.join(format!("{}.rs", child.name));
                let nested = inside.join("mod.rs");
                let Some(file) = [alone, nested].into_iter().find(|file| file.exists()) else {
                    // The name is the argument of a macro, which writes the module itself.
                    self.modules[parent].scope.defined.insert(child.name);
                    return;
                };
                let scope = read(&file);
                (file, scope)
            }
        };
        let index = self.add(parent, path, &file, &inside, scope, tests);
        self.modules[parent]
            .children
            .entry(child.name)
            .or_insert(index);
    }

    /// The files of all modules, those of tests included.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        self.modules.iter().map(|one| one.file.clone()).collect()
    }

    /// The room of each module. A module that `known` lists is a room, also where it is one file of
    /// a directory.
    fn rooms(&self, known: &[&str]) -> Vec<String> {
        let is_room = |module: &Module| {
            let has_files = module.children.values().any(|&child| {
                let child = &self.modules[child];
                !child.tests && child.file != module.file
            });
            has_files || known.contains(&module.path.join("::").as_str())
        };
        let room = |mut index: usize| {
            let mut module = &self.modules[index];
            // A module beside the root is a room in any case, unless it is inline: then it belongs
            // to the file that it stands in.
            while !is_room(module) && (module.path.len() > 1 || self.is_inline(index)) && index > 0
            {
                index = module.parent;
                module = &self.modules[index];
            }
            match module.path.is_empty() {
                true => module
                    .file
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned(),
                false => module.path.join("::"),
            }
        };
        (0..self.modules.len()).map(room).collect()
    }

    fn is_inline(&self, index: usize) -> bool {
        self.modules[index].file == self.modules[self.modules[index].parent].file
    }

    /// The imports between rooms, without those of tests.
    pub fn graph(&self, known: &[&str]) -> Graph {
        let rooms = self.rooms(known);
        let mut graph = Graph::new();
        for (index, module) in self
            .modules
            .iter()
            .enumerate()
            .filter(|(_, one)| !one.tests)
        {
            let names = graph.entry(rooms[index].clone()).or_default();
            for (path, line) in &module.scope.named {
                let (Target::Module(target) | Target::Item(target)) = self.resolve(index, path, 0)
                else {
                    continue;
                };
                if rooms[target] != rooms[index] && !self.modules[target].tests {
                    names
                        .entry(rooms[target].clone())
                        .or_default()
                        .push(Import {
                            file: module.file.clone(),
                            line: *line,
                            path: path.join("::"),
                            target: self.modules[target].file.clone(),
                        });
                }
            }
        }
        graph
    }

    /// The end of a path that stands in this module.
    fn resolve(&self, from: usize, path: &[String], depth: usize) -> Target {
        let Some((first, rest)) = path.split_first().filter(|_| depth < 32) else {
            return Target::OtherCrate;
        };
        let start = match first.as_str() {
            "crate" => Target::Module(0),
            "self" => Target::Module(from),
            "super" => Target::Module(self.modules[from].parent),
            name => match self.member(from, name, depth) {
                Some(found) => found,
                None => match self.modules[from].scope.inner.get(name) {
                    Some(path) => self.resolve(from, path, depth + 1),
                    None => Target::OtherCrate,
                },
            },
        };
        rest.iter().fold(start, |target, name| match target {
            Target::Module(at) if name == "super" => Target::Module(self.modules[at].parent),
            // A name that is found nowhere, perhaps because a macro defines it, counts as an item
            // of the deepest module that was found.
            Target::Module(at) => self.member(at, name, depth).unwrap_or(Target::Item(at)),
            other => other,
        })
    }

    /// The meaning of a name in a module: a module below it, an import, or an item.
    fn member(&self, at: usize, name: &str, depth: usize) -> Option<Target> {
        let module = &self.modules[at];
        if let Some(&child) = module.children.get(name) {
            return Some(Target::Module(child));
        }
        if let Some(path) = module.scope.imports.get(name).filter(|_| depth < 32) {
            return Some(self.resolve(at, path, depth + 1));
        }
        if module.scope.defined.contains(name) {
            return Some(Target::Item(at));
        }
        let globs = module.scope.globs.iter().filter(|_| depth < 32);
        globs
            .filter_map(|path| match self.resolve(at, path, depth + 1) {
                Target::Module(target) if target != at => self.member(target, name, depth + 1),
                _ => None,
            })
            .next()
    }
}

fn read(file: &Path) -> Scope {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    scan::scan(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// One message for each set of rooms that name each other in a circle, with the files of one
/// circle.
pub fn circles(graph: &Graph) -> Vec<String> {
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let mut found = Vec::new();
    for room in graph.keys() {
        if told.contains(room.as_str()) {
            continue;
        }
        let Some(circle) = way(graph, room, room) else {
            continue;
        };
        let members: Vec<&str> = graph
            .keys()
            .filter(|other| *other == room || connected(graph, room, other))
            .map(String::as_str)
            .collect();
        let steps = circle.windows(2).map(|step| {
            let imports = &graph[step[0]][step[1]];
            format!(
                "\n    {} -> {}: {}, {} in all",
                step[0],
                step[1],
                imports[0],
                imports.len()
            )
        });
        found.push(format!(
            "rooms in a circle: {}{}",
            members.join(", "),
            steps.collect::<String>()
        ));
        told.extend(members);
    }
    found
}

/// Whether each room names the other, directly or by way of others.
fn connected(graph: &Graph, one: &str, other: &str) -> bool {
    way(graph, one, other).is_some() && way(graph, other, one).is_some()
}

/// The shortest way from one room to another, of at least one step.
fn way<'a>(graph: &'a Graph, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(room) = queue.pop_front() {
        for next in graph[room].keys().map(String::as_str) {
            if before.contains_key(next) {
                continue;
            }
            before.insert(next, room);
            if next == to {
                let mut way = vec![next, room];
                while way[way.len() - 1] != from {
                    way.push(before[way[way.len() - 1]]);
                }
                way.reverse();
                return Some(way);
            }
            queue.push_back(next);
        }
    }
    None
}

/// Messages about imports that run upwards, about rooms that have no floor, and about names of
/// floors that belong to no room. `floors` begins with the lowest; rooms of one floor may name each
/// other.
pub fn upward(graph: &Graph, floors: &[&[&str]]) -> Vec<String> {
    let floor = |room: &str| floors.iter().position(|rooms| rooms.contains(&room));
    let mut found = Vec::new();
    for (room, names) in graph {
        let Some(own) = floor(room) else {
            let above = names.keys().filter_map(|name| floor(name)).max();
            let least = above.map_or("any floor".to_owned(), |at| {
                format!("the floor of {}, or above", floors[at].join(", "))
            });
            found.push(format!(
                "the room {room} has no floor: add it to FLOORS in tests/layers.rs, on {least}"
            ));
            continue;
        };
        for (name, imports) in names {
            if floor(name).is_some_and(|floor| floor > own) {
                let list = imports.iter().map(|import| format!("\n    {import}"));
                found.push(format!(
                    "upwards, {room} -> {name}:{}",
                    list.collect::<String>()
                ));
            }
        }
    }
    for room in floors.iter().copied().flatten() {
        if !graph.contains_key(*room) {
            found.push(format!(
                "there is no room {room}: take it out of FLOORS in tests/layers.rs"
            ));
        }
    }
    found
}
