//! theap's options on a command line. They are checked here, because the library would ignore a
//! wrong option and go on.

use anyhow::{Context, Result, ensure};
use clap::Args;
use theap::{OPTIONS, OptionRow};

use crate::arguments::bytes;

/// The variable of an option, and its value.
pub type Setting = (&'static str, String);

/// Options of theap; the other variables of the environment stay as they are.
#[derive(Args)]
#[group(requires = "command")]
pub struct Settings {
    /// Bytes that theap maps and touches at start, for example 512MiB; in the command itself, and
    /// not in the programs that it starts
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| setting("reserve", text))]
    reserve: Option<Setting>,
    /// Bytes of free memory that theap keeps instead of giving them back, for example 256MiB
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| setting("retain", text))]
    retain: Option<Setting>,
    /// Any option of theap, by its name or its variable, for example magazine=32K
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<Setting>,
}

impl Settings {
    /// The variables to set; a later one replaces an earlier one of the same name.
    pub fn variables(&self) -> impl Iterator<Item = &Setting> {
        self.reserve.iter().chain(&self.retain).chain(&self.set)
    }
}

fn assignment(text: &str) -> Result<Setting> {
    let (name, value) = text.split_once('=').context("give NAME=VALUE")?;
    setting(name, value)
}

/// The variable and the value of an option, which is given by its name or by its variable.
///
/// # Errors
/// Fails if theap has no such option, or if it does not take that value.
pub fn setting(name: &str, value: &str) -> Result<Setting> {
    let row = OPTIONS
        .iter()
        .find(|row| row.name == name || row.variable == name)
        .with_context(|| {
            let names: Vec<_> = OPTIONS.iter().map(|row| row.name).collect();
            format!("theap has no option {name}; it has {}", names.join(", "))
        })?;
    Ok((row.variable, checked(row, value)?))
}

/// The value as the library spells it. A user may write sizes in more ways than the library reads.
fn checked(row: &OptionRow, value: &str) -> Result<String> {
    if row.unit == "bytes" && value != "auto" {
        return Ok(bytes(value)?.to_string());
    }
    ensure!(
        row.accepts(value.as_bytes()),
        "{} takes {}",
        row.name,
        row.values
    );
    Ok(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_takes_its_default_and_no_nonsense() {
        for row in OPTIONS {
            let (variable, _) = setting(row.name, row.default).unwrap();
            assert_eq!(variable, row.variable);
            assert!(assignment(&format!("{}={}", row.variable, row.default)).is_ok());
            assert!(setting(row.name, "nonsense").is_err());
            assert!(setting(row.name, "").is_err());
        }
        assert!(setting("no-such", "1").is_err());
        assert!(assignment("pages").is_err());
        assert_eq!(setting("retain", "1MiB").unwrap().1, "1048576");
    }
}
