//! The report: prose by its authors, and between markers what is written anew.
//!
//! A section begins with the line `<!-- evaluate: NAME -->` and ends with the line `<!-- end -->`. A section that the
//! report does not have yet is appended under its title.

use std::path::Path;
use std::{fs, io};

use anyhow::{Context, Result, bail};

/// What is written between a pair of markers.
pub struct Section {
    pub name: &'static str,
    pub title: &'static str,
    pub body: String,
}

const END: &str = "<!-- end -->";

/// Writes the sections into the report, which need not exist yet.
///
/// # Errors
/// Fails if a section's end is missing or the file cannot be read or written; it is then as it was.
pub fn write(path: &Path, sections: &[Section]) -> Result<()> {
    let before = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "# Evaluation\n".into(),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let after = updated(before, sections).with_context(|| format!("in {}", path.display()))?;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::write(path, after).with_context(|| format!("cannot write {}", path.display()))
}

fn updated(mut text: String, sections: &[Section]) -> Result<String> {
    for Section { name, title, body } in sections {
        let begin = format!("<!-- evaluate: {name} -->\n");
        let Some(at) = text.find(&begin) else {
            text += &format!("\n## {title}\n\n{begin}\n{body}\n\n{END}\n");
            continue;
        };
        let from = at + begin.len();
        let Some(len) = text[from..].find(END) else {
            bail!("the section {name} has no {END}");
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
            name: "mid",
            title: "Mid sizes",
            body: body.into(),
        }]
    }

    #[test]
    fn prose_is_kept_and_tables_are_replaced() {
        let first = updated("# Report\n\nWritten by hand.\n".into(), &section("| 1 |")).unwrap();
        let commented = first.clone() + "\nWhat it says: one.\n";
        let second = updated(commented.clone(), &section("| 2 |\n| 3 |")).unwrap();
        assert_eq!(second, commented.replace("| 1 |", "| 2 |\n| 3 |"));
        assert!(second.starts_with("# Report\n\nWritten by hand.\n\n## Mid sizes\n"));
        assert_eq!(
            updated(second.clone(), &section("| 2 |\n| 3 |")).unwrap(),
            second
        );
    }

    #[test]
    fn a_lost_end_is_no_licence_to_overwrite() {
        let text = "<!-- evaluate: mid -->\nand then prose\n";
        assert!(updated(text.into(), &section("| 1 |")).is_err());
    }
}
