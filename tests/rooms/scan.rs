//! Scans a source file for its modules, and for each module for the modules that it declares, the
//! names that it imports and defines, and every path of two or more segments in its code. The file
//! is read as a tree of tokens, so comments, strings and documentation count for nothing, and the
//! arguments of macros count like the code around them.
//!
//! Code that is compiled for tests alone (`#[cfg(test)]`, `#[test]`) is left out, but its modules
//! are noted as tests.

use crate::source::tokens::{is_group, is_path, is_punct, word};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};

/// The segments of a path as the code has them; `crate`, `self` and `super` may be among them.
pub type Segments = Vec<String>;

/// The contents of a module: of a file, or of a `mod name { … }` in a file.
#[derive(Default)]
pub struct Scope {
    pub modules: Vec<Declared>,
    /// The path behind each name that `use` imports.
    pub imports: BTreeMap<String, Segments>,
    /// The path behind each name that a `use` inside a function imports; other modules do not see
    /// them.
    pub inner: BTreeMap<String, Segments>,
    /// The modules from which `use` imports all names.
    pub globs: Vec<Segments>,
    /// The names of the items that the module defines.
    pub defined: BTreeSet<String>,
    /// Every path in the code, with the number of its line.
    pub named: Vec<(Segments, usize)>,
    /// Whether the whole file is `#![cfg(test)]`.
    pub tests: bool,
}

/// A module as its parent declares it.
pub struct Declared {
    pub name: String,
    /// Whether the module is compiled for tests alone.
    pub tests: bool,
    /// The argument of `#[path]`.
    pub path: Option<String>,
    /// The contents, unless they are in a file of their own.
    pub body: Option<Scope>,
}

/// Reads a file's text.
pub fn scan(text: &str) -> Result<Scope, String> {
    let tokens: TokenStream = text.parse().map_err(|error| format!("{error}"))?;
    let mut scope = Scope::default();
    Walk::items(&mut scope).tokens(tokens);
    Ok(scope)
}

/// The words after which the name of an item stands.
const ITEMS: [&str; 9] = [
    "fn", "struct", "enum", "union", "trait", "type", "const", "static", "mod",
];

struct Walk<'a> {
    scope: &'a mut Scope,
    /// Whether the tokens are items of a module, and not the body of a function or the like.
    items: bool,
    /// Whether the tokens are in the braces of a macro.
    in_macro: bool,
}

impl<'a> Walk<'a> {
    fn items(scope: &'a mut Scope) -> Self {
        Walk {
            scope,
            items: true,
            in_macro: false,
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let (mut at, mut path) = (0, None);
        while at < tokens.len() {
            let here = &tokens[at..];
            if let Some((attribute, length)) = attribute(here) {
                at += length;
                match attribute {
                    Attribute::Tests { inner: true } => self.scope.tests = true,
                    Attribute::Tests { inner: false } => at += self.test_item(&tokens[at..]),
                    Attribute::Path(file) => path = Some(file),
                    Attribute::Other => {}
                }
            } else {
                at += self.step(here, &tokens[..at], &mut path);
            }
        }
    }

    /// Takes the item or the path at the front, after the tokens `behind`. Returns the number of
    /// tokens that it took.
    fn step(
        &mut self,
        here: &[TokenTree],
        behind: &[TokenTree],
        path: &mut Option<String>,
    ) -> usize {
        match &here[0] {
            TokenTree::Group(group) => {
                self.group(group, behind);
                1
            }
            TokenTree::Ident(_) => match word(here, 0).as_str() {
                // This is `pub(in some::path)`.
                "pub" if is_group(here, 1, Delimiter::Parenthesis) => 2,
                "use" if !is_punct(here, 1, '<') => self.import(here),
                "mod" if self.items => self.module(here, false, path.take()),
                word => {
                    self.define(word, here);
                    self.path(here, behind)
                }
            },
            _ => 1,
        }
    }

    /// Takes a group in brackets. Imports in a body hold only there; imports in the braces of a
    /// macro at the level of items (`cfg_if!`) hold for the module.
    fn group(&mut self, group: &Group, behind: &[TokenTree]) {
        let of_macro = is_punct(behind, behind.len().wrapping_sub(1), '!');
        let branch = match behind.last() {
            Some(TokenTree::Group(condition)) => condition.delimiter() == Delimiter::Bracket,
            Some(TokenTree::Ident(word)) => word == "else",
            _ => false,
        };
        let items = self.items
            && group.delimiter() == Delimiter::Brace
            && (of_macro || self.in_macro && branch);
        Walk {
            scope: self.scope,
            items,
            in_macro: self.in_macro || of_macro,
        }
        .tokens(group.stream());
    }

    fn define(&mut self, keyword: &str, here: &[TokenTree]) {
        let name = match keyword {
            "macro_rules" if is_punct(here, 1, '!') => word(here, 2),
            "static" if word(here, 1) == "mut" => word(here, 2),
            _ if ITEMS.contains(&keyword) => word(here, 1),
            _ => return,
        };
        if self.items && !name.is_empty() && !ITEMS.contains(&name.as_str()) {
            self.scope.defined.insert(name);
        }
    }

    /// Takes `mod name;` or `mod name { … }`.
    fn module(&mut self, here: &[TokenTree], tests: bool, path: Option<String>) -> usize {
        let body = match here.get(2) {
            Some(TokenTree::Group(group)) => {
                let mut scope = Scope::default();
                Walk::items(&mut scope).tokens(group.stream());
                Some(scope)
            }
            _ => None,
        };
        self.scope.modules.push(Declared {
            name: word(here, 1),
            tests: tests || body.as_ref().is_some_and(|scope| scope.tests),
            path,
            body,
        });
        3
    }

    /// Skips an item for tests alone, but notes a module. Returns the number of tokens.
    fn test_item(&mut self, here: &[TokenTree]) -> usize {
        let (mut at, mut path) = (0, None);
        while let Some((attribute, length)) = attribute(&here[at..]) {
            if let Attribute::Path(file) = attribute {
                path = Some(file);
            }
            at += length;
        }
        if word(here, at) == "pub" {
            at += 1 + usize::from(is_group(here, at + 1, Delimiter::Parenthesis));
        }
        if self.items && word(here, at) == "mod" {
            return at + self.module(&here[at..], true, path);
        }
        // A field, and a value of a struct, end at a comma. An item, a statement and an arm of a
        // match end there or at a body.
        let field = is_punct(here, at + 1, ':') && !is_path(here, at + 1);
        while at < here.len() {
            let end = match &here[at] {
                TokenTree::Punct(mark) if mark.as_char() == ';' => true,
                TokenTree::Punct(mark) if mark.as_char() == ',' => field,
                TokenTree::Group(group) => !field && group.delimiter() == Delimiter::Brace,
                _ => false,
            };
            at += 1;
            if end {
                break;
            }
        }
        at
    }

    /// Takes `use tree;`.
    fn import(&mut self, here: &[TokenTree]) -> usize {
        let end = (1..here.len())
            .find(|&at| is_punct(here, at, ';'))
            .unwrap_or(here.len());
        let tree = &here[1..end];
        // In `use ::name` the name is another crate's.
        if !is_path(tree, 0) {
            self.import_tree(tree, &[]);
        }
        end + 1
    }

    /// Takes one tree, `a::b::{c, d as e, f::*}`, below a prefix.
    fn import_tree(&mut self, tree: &[TokenTree], prefix: &[String]) {
        let Some(first) = tree.first() else { return };
        let line = first.span().start().line;
        match first {
            TokenTree::Group(group) => {
                let list: Vec<_> = group.stream().into_iter().collect();
                for part in list.split(is_comma) {
                    self.import_tree(part, prefix);
                }
            }
            TokenTree::Punct(_) => {
                self.scope.globs.push(prefix.to_vec());
                self.scope.named.push((prefix.to_vec(), line));
            }
            _ => {
                let name = word(tree, 0);
                let mut whole = prefix.to_vec();
                if name != "self" || prefix.is_empty() {
                    whole.push(name);
                }
                if is_path(tree, 1) {
                    return self.import_tree(&tree[3..], &whole);
                }
                let bound = match word(tree, 1).as_str() {
                    "as" => word(tree, 2),
                    _ => whole.last().cloned().unwrap_or_default(),
                };
                self.scope.named.push((whole.clone(), line));
                let names = match self.items {
                    true => &mut self.scope.imports,
                    false => &mut self.scope.inner,
                };
                names.insert(bound, whole);
            }
        }
    }

    /// Takes a path in the code, `a::b`. Single names need no note: the imports have them. Returns
    /// the number of tokens.
    fn path(&mut self, here: &[TokenTree], behind: &[TokenTree]) -> usize {
        // A name behind a `::` is the rest of a path, or begins with another crate.
        let rest = is_path(behind, behind.len().wrapping_sub(2));
        let mut segments = vec![word(here, 0)];
        let mut at = 1;
        while is_path(here, at) && !word(here, at + 2).is_empty() {
            segments.push(word(here, at + 2));
            at += 3;
        }
        // `crate::name!` is a macro that is exported at the root, wherever it is defined.
        let macro_of_root =
            segments.len() == 2 && segments[0] == "crate" && is_punct(here, at, '!');
        if segments.len() > 1 && !rest && !macro_of_root {
            let line = here[0].span().start().line;
            self.scope.named.push((segments, line));
        }
        at
    }
}

enum Attribute {
    Tests { inner: bool },
    Path(String),
    Other,
}

/// The attribute at the front, and the number of its tokens.
fn attribute(here: &[TokenTree]) -> Option<(Attribute, usize)> {
    if !is_punct(here, 0, '#') {
        return None;
    }
    let inner = is_punct(here, 1, '!');
    let at = 1 + usize::from(inner);
    let Some(TokenTree::Group(group)) = here.get(at) else {
        return None;
    };
    let tokens: Vec<_> = group.stream().into_iter().collect();
    let attribute = match (word(&tokens, 0).as_str(), tokens.get(1)) {
        ("test", None) => Attribute::Tests { inner },
        ("cfg", Some(TokenTree::Group(when))) if for_tests(when.stream()) => {
            Attribute::Tests { inner }
        }
        ("path", Some(_)) => Attribute::Path(tokens[2].to_string().trim_matches('"').to_owned()),
        _ => Attribute::Other,
    };
    Some((attribute, at + 1))
}

/// Whether the condition of `cfg` is `test`, or `all(…)` with `test` in it.
fn for_tests(condition: TokenStream) -> bool {
    let tokens: Vec<_> = condition.into_iter().collect();
    match (word(&tokens, 0).as_str(), tokens.get(1)) {
        ("test", None) => true,
        ("all", Some(TokenTree::Group(list))) => {
            let list: Vec<_> = list.stream().into_iter().collect();
            list.split(is_comma)
                .any(|part| for_tests(part.iter().cloned().collect()))
        }
        _ => false,
    }
}

fn is_comma(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',')
}
