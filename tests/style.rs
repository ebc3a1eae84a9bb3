//! Limits that hold for every file: a function has at most 60 lines and six arguments, a file 600
//! lines; `unsafe` is opened in the files that have it and in no other; comments end at column 100
//! and documents at column 120.

mod source;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use source::tokens::{is_group, is_punct, word};
use source::{files, root};
use std::fs;
use std::path::Path;

const FUNCTION_LINES: usize = 60;
const ARGUMENTS: usize = 6;
const FILE_LINES: usize = 600;
const COMMENT_COLUMNS: usize = 100;
const DOCUMENT_COLUMNS: usize = 120;

/// The directories whose functions have limits and whose files open `unsafe` one by one.
const STRICT: [&str; 4] = ["src", "arch", "platform", "preload"];

/// The problems of a text: the number of the line, from 1, and a sentence.
type Problems = Vec<(usize, String)>;

fn tokens(text: &str) -> Vec<TokenTree> {
    let tokens: TokenStream = text.parse().unwrap();
    tokens.into_iter().collect()
}

/// Finds functions that are too long or have too many arguments, also in macros.
fn functions(tokens: &[TokenTree], problems: &mut Problems) {
    for (at, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            let inside: Vec<_> = group.stream().into_iter().collect();
            functions(&inside, problems);
        }
        let name = match is_punct(tokens, at + 1, '$') {
            true => format!("${}", word(tokens, at + 2)),
            false => word(tokens, at + 1),
        };
        if word(tokens, at) == "fn" && !name.is_empty() {
            function(&name, &tokens[at..], problems);
        }
    }
}

/// Checks one function, whose tokens begin with its `fn`.
fn function(name: &str, tokens: &[TokenTree], problems: &mut Problems) {
    let first = tokens[0].span().start().line;
    let outside = outside_of_angles(tokens);
    let arguments = outside
        .iter()
        .find(|&&at| is_group(tokens, at, Delimiter::Parenthesis));
    let Some(TokenTree::Group(arguments)) = arguments.map(|&at| &tokens[at]) else {
        return;
    };
    let count = arguments_of(arguments.stream());
    if count > ARGUMENTS {
        problems.push((first, format!("{name} has {count} arguments")));
    }
    let end = outside
        .iter()
        .find(|&&at| is_punct(tokens, at, ';') || is_group(tokens, at, Delimiter::Brace));
    if let Some(TokenTree::Group(body)) = end.map(|&at| &tokens[at]) {
        let lines = body.span_close().end().line - first + 1;
        if lines > FUNCTION_LINES {
            problems.push((first, format!("{name} has {lines} lines")));
        }
    }
}

fn arguments_of(list: TokenStream) -> usize {
    let list: Vec<_> = list.into_iter().collect();
    let outside = outside_of_angles(&list);
    let commas = outside.iter().filter(|&&at| is_punct(&list, at, ','));
    let last = is_punct(&list, list.len().wrapping_sub(1), ',');
    commas.count() + usize::from(!list.is_empty() && !last)
}

/// The indices of the tokens that stand in no `<…>`.
fn outside_of_angles(tokens: &[TokenTree]) -> Vec<usize> {
    let mut depth = 0_usize;
    let mut outside = Vec::new();
    for at in 0..tokens.len() {
        let arrow = at > 0 && (is_punct(tokens, at - 1, '-') || is_punct(tokens, at - 1, '='));
        if is_punct(tokens, at, '<') {
            depth += 1;
        } else if is_punct(tokens, at, '>') && !arrow {
            depth = depth.saturating_sub(1);
        } else if depth == 0 {
            outside.push(at);
        }
    }
    outside
}

/// Finds `unsafe` without the permission, and the permission without `unsafe`.
fn permission(tokens: &[TokenTree]) -> Option<(usize, String)> {
    let (used, allowed) = (unsafe_word(tokens), unsafe_allowed(tokens));
    match (used, allowed) {
        (Some(line), None) => Some((
            line,
            "`unsafe` without `allow(unsafe_code)` in this file".into(),
        )),
        (None, Some(line)) => Some((
            line,
            "`allow(unsafe_code)` in a file without `unsafe`".into(),
        )),
        _ => None,
    }
}

/// The line of the first `unsafe`.
fn unsafe_word(tokens: &[TokenTree]) -> Option<usize> {
    tokens.iter().find_map(|token| match token {
        TokenTree::Ident(word) if *word == "unsafe" => Some(word.span().start().line),
        TokenTree::Group(group) => unsafe_word(&group.stream().into_iter().collect::<Vec<_>>()),
        _ => None,
    })
}

/// The line of the first `allow(unsafe_code)` or `expect(unsafe_code)`.
fn unsafe_allowed(tokens: &[TokenTree]) -> Option<usize> {
    tokens.iter().enumerate().find_map(|(at, token)| {
        let TokenTree::Group(group) = token else {
            return None;
        };
        let inside: Vec<_> = group.stream().into_iter().collect();
        let lint = at > 0 && ["allow", "expect"].contains(&word(tokens, at - 1).as_str());
        let named = (0..inside.len()).any(|at| word(&inside, at) == "unsafe_code");
        match lint && named {
            true => Some(group.span_open().start().line),
            false => unsafe_allowed(&inside),
        }
    })
}

/// The text with blanks in place of literals, so that every `//` in it begins a comment.
fn without_literals(text: &str) -> Vec<Vec<char>> {
    let mut lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
    blank(&tokens(text), &mut lines);
    lines
}

fn blank(tokens: &[TokenTree], lines: &mut [Vec<char>]) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                blank(&group.stream().into_iter().collect::<Vec<_>>(), lines);
            }
            TokenTree::Literal(literal) => {
                let (start, end) = (literal.span().start(), literal.span().end());
                // A comment of documentation is a literal, too.
                if lines[start.line - 1].get(start.column) == Some(&'/') {
                    continue;
                }
                for line in start.line..=end.line {
                    let chars = &mut lines[line - 1];
                    let from = if line == start.line { start.column } else { 0 };
                    let to = if line == end.line {
                        end.column
                    } else {
                        chars.len()
                    };
                    chars[from..to].fill(' ');
                }
            }
            _ => {}
        }
    }
}

/// Finds comments of Rust that are too wide.
fn comments(text: &str) -> Problems {
    let code = without_literals(text);
    let starts = code.iter().map(|line| {
        let line: String = line.iter().collect();
        line.find("//").map(|byte| line[..byte].chars().count())
    });
    wide_comments(text, starts, '/')
}

/// Finds comments of shell scripts and of TOML that are too wide.
fn hash_comments(text: &str) -> Problems {
    let starts = text.lines().map(|line| {
        let chars: Vec<_> = line.chars().collect();
        let quotes = |end: usize, quote| chars[..end].iter().filter(|&&one| one == quote).count();
        (0..chars.len()).find(|&at| {
            chars[at] == '#'
                && (at == 0 || chars[at - 1].is_whitespace())
                && quotes(at, '"') % 2 == 0
                && quotes(at, '\'') % 2 == 0
        })
    });
    wide_comments(text, starts, '#')
}

/// Finds lines that are too wide and have a comment, which begins at the column that `starts` has
/// for the line.
fn wide_comments(text: &str, starts: impl Iterator<Item = Option<usize>>, sign: char) -> Problems {
    let lines = text.lines().zip(starts).enumerate();
    lines
        .filter_map(|(index, (line, start))| {
            let width = line.chars().count();
            let comment: String = line.chars().skip(start?).collect();
            let comment = comment.trim_start_matches([sign, '!']).trim();
            let wide = width > COMMENT_COLUMNS && !is_unbreakable(comment);
            wide.then(|| (index + 1, format!("a comment ends at column {width}")))
        })
        .collect()
}

/// Finds lines of a document that are too wide.
fn document(text: &str) -> Problems {
    let mut problems = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        let width = line.chars().count();
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && width > DOCUMENT_COLUMNS && !is_unbreakable(line) {
            problems.push((index + 1, format!("a line ends at column {width}")));
        }
    }
    problems
}

/// Whether the line is a row of a table, the target of a link, or a single word.
fn is_unbreakable(line: &str) -> bool {
    let line = line.trim();
    let link = line.starts_with('[') && line.contains("]: ");
    let item = line.trim_start_matches(['-', '*', '>', ' ']);
    line.starts_with('|') || link || !item.contains(char::is_whitespace)
}

/// Runs the check on all files with one of these extensions that are in one of these directories of
/// the root.
fn check(extensions: &[&str], directories: &[&str], rule: impl Fn(&str) -> Problems) {
    let mut found = Vec::new();
    let all = files(root(), extensions, &|_| true);
    assert!(!all.is_empty());
    for file in all {
        let file = file.strip_prefix(root()).unwrap();
        if directories.is_empty() || directories.iter().any(|one| file.starts_with(one)) {
            let problems = rule(&fs::read_to_string(root().join(file)).unwrap());
            found.extend(
                problems
                    .iter()
                    .map(|(line, problem)| message(file, *line, problem)),
            );
        }
    }
    assert!(
        found.is_empty(),
        "{} in all:\n{}",
        found.len(),
        found.join("\n")
    );
}

fn message(file: &Path, line: usize, problem: &str) -> String {
    format!("{}:{line}: {problem}", file.display())
}

#[test]
fn functions_are_short_and_take_little() {
    check(&["rs"], &STRICT, |text| {
        let mut problems = Vec::new();
        functions(&tokens(text), &mut problems);
        problems
    });
}

#[test]
fn files_are_short() {
    check(&["rs"], &[], |text| {
        let lines = text.lines().count();
        let long = lines > FILE_LINES;
        long.then(|| (lines, format!("the file has {lines} lines")))
            .into_iter()
            .collect()
    });
}

#[test]
fn unsafe_is_opened_where_it_is_used() {
    check(&["rs"], &STRICT, |text| {
        permission(&tokens(text)).into_iter().collect()
    });
}

#[test]
fn comments_are_narrow() {
    check(&["rs"], &[], comments);
}

#[test]
fn comments_of_scripts_and_settings_are_narrow() {
    check(&["sh", "toml", ""], &[], hash_comments);
}

#[test]
fn documents_are_narrow() {
    check(&["md"], &[], document);
}

/// Tests of the checks on texts that are made up.
mod made_up {
    use super::*;

    fn functions_of(text: &str) -> Problems {
        let mut problems = Vec::new();
        functions(&tokens(text), &mut problems);
        problems
    }

    #[test]
    fn long_functions() {
        let function =
            |lines: usize| format!("/// A.\nfn f() {{\n{}}}", "g();\n".repeat(lines - 2));
        assert!(functions_of(&function(60)).is_empty());
        let long = [(2, "f has 61 lines".to_owned())];
        assert_eq!(functions_of(&function(61)), long);
        let nested = format!("m! {{ {} }}", function(61));
        assert_eq!(functions_of(&nested), long);
        let inner = format!("impl A {{ {} fn g() {{}} }}", function(61));
        assert_eq!(functions_of(&inner), long);
    }

    #[test]
    fn long_lists_of_arguments() {
        for six in [
            "fn f(&self, a: A, b: B, c: C, d: D, e: E) {}",
            "fn f<F: Fn(A, B) -> C, G>(a: (A, B), b: B<C, D>, c: C, d: D, e: fn(A, B) -> C, f: F,) {}",
            "type F = fn(A, B, C, D, E, F, G);",
        ] {
            assert!(functions_of(six).is_empty(), "{six}");
        }
        let seven = "fn $name(&self, a: A, b: B<C, D>, c: C, d: D, e: E, f: F);";
        assert_eq!(
            functions_of(seven),
            [(1, "$name has 7 arguments".to_owned())]
        );
    }

    #[test]
    fn permissions() {
        let of = |text| permission(&tokens(text)).map(|(line, _)| line);
        assert_eq!(
            of("#![allow(unsafe_code)] // why\nfn f() { unsafe { g() } }"),
            None
        );
        assert_eq!(of("/// unsafe\nfn f() { g(\"unsafe\") }"), None);
        assert_eq!(of("\nfn f() { m!(unsafe { g() }) }"), Some(2));
        assert_eq!(
            of("\n#![allow(missing_docs, unsafe_code)]\n// unsafe"),
            Some(2)
        );
    }

    #[test]
    fn wide_comments() {
        let words = "word ".repeat(25);
        let lines = |text: &str| {
            comments(text)
                .iter()
                .map(|(line, _)| *line)
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(&format!("\n// {words}")), [2]);
        assert_eq!(
            lines(&format!(
                "//! {words}\n/// {words}\nfn f() {{ g() }} // {words}"
            )),
            [1, 2, 3]
        );
        assert_eq!(
            lines(&format!("const A: &str = \"// {words}\"; // b c")),
            [1]
        );
        let strings =
            format!("const A: &str = \"https:// {words}\";\nconst B: &str = r\"\n// {words}\";");
        assert!(lines(&strings).is_empty());
        let whole = format!("/// | {words} |\n/// [a]: {words}\n// {}", "x".repeat(200));
        assert!(lines(&whole).is_empty());

        let script = format!("# {words}\necho '# {words}'\necho # {words}\necho ${{a#{words}}}");
        let lines: Vec<_> = hash_comments(&script)
            .iter()
            .map(|(line, _)| *line)
            .collect();
        assert_eq!(lines, [1, 3]);
    }

    #[test]
    fn wide_documents() {
        let words = "word ".repeat(30);
        let text = format!("{words}\n```\n{words}\n```\n- {words}\n| {words} |\n[a]: {words}");
        let lines: Vec<_> = document(&text).iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 5]);
    }
}
