//! A report in Markdown: its authors write the prose, and programs rewrite the sections between
//! markers.
//!
//! A section begins with the line `<!-- COMMAND: NAME -->` and ends with the line `<!-- end -->`. A
//! section that the report does not have yet is appended under its title.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::error::{Error, cannot};

/// The text between a pair of markers.
pub struct Section {
    /// The section's name in the markers.
    pub name: String,
    /// The heading that a new section gets.
    pub title: String,
    /// The text, in Markdown.
    pub body: String,
}

const END: &str = "<!-- end -->";

/// The directory of the report's charts: beside the report, with its name without the extension.
///
/// # Errors
/// Fails if the report's name has no extension, for then it would be the report itself.
pub fn charts_beside(path: &Path) -> Result<PathBuf, Error> {
    match path.extension() {
        Some(_) => Ok(path.with_extension("")),
        None => Err(Error::Setup(format!(
            "{}: give the report an extension, for example .md: its charts go to a directory whose name is \
             the report's without the extension",
            path.display()
        ))),
    }
}

/// Writes the sections of `command` into the report. A report that does not exist yet begins with
/// the heading `title`.
///
/// # Errors
/// Fails if a section's end is missing or the file cannot be read or written; the file is then as
/// it was.
pub fn write(path: &Path, command: &str, title: &str, sections: &[Section]) -> Result<(), Error> {
    let before = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("# {title}\n"),
        read => read.map_err(|error| cannot("read", path, &error))?,
    };
    let after = updated(before, command, sections)
        .map_err(|error| Error::Setup(format!("{}: {error}", path.display())))?;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|error| cannot("make", directory, &error))?;
    }
    fs::write(path, after).map_err(|error| cannot("write", path, &error))
}

fn updated(mut text: String, command: &str, sections: &[Section]) -> Result<String, Error> {
    for Section { name, title, body } in sections {
        let begin = format!("<!-- {command}: {name} -->\n");
        let Some(at) = text.find(&begin) else {
            text += &format!("\n## {title}\n\n{begin}\n{body}\n\n{END}\n");
            continue;
        };
        let from = at + begin.len();
        let Some(len) = text[from..].find(END) else {
            return Err(Error::Setup(format!("the section {name} has no {END}")));
        };
        text.replace_range(from..from + len, &format!("\n{body}\n\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(body: &str) -> [Section; 1] {
        [Section {
            name: "mid".into(),
            title: "Mid sizes".into(),
            body: body.into(),
        }]
    }

    #[test]
    fn prose_is_kept_and_tables_are_replaced() {
        let first = updated(
            "# Report\n\nWritten by hand.\n".into(),
            "evaluate",
            &section("| 1 |"),
        )
        .unwrap();
        let commented = first.clone() + "\nWhat it says: one.\n";
        let second = updated(commented.clone(), "evaluate", &section("| 2 |\n| 3 |")).unwrap();
        assert_eq!(second, commented.replace("| 1 |", "| 2 |\n| 3 |"));
        assert!(second.starts_with("# Report\n\nWritten by hand.\n\n## Mid sizes\n"));
        assert_eq!(
            updated(second.clone(), "evaluate", &section("| 2 |\n| 3 |")).unwrap(),
            second
        );
    }

    #[test]
    fn a_lost_end_is_no_licence_to_overwrite() {
        let text = "<!-- evaluate: mid -->\nand then prose\n";
        assert!(updated(text.into(), "evaluate", &section("| 1 |")).is_err());
    }
}
