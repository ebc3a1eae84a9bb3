//! Values on the command line that several commands take: sizes in bytes, numbers, lengths of time,
//! and `NAME=FILE`.

use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

/// The bytes of a size as theap's variables have it: `K` and `k` mean KiB, and so do `M`, `G` and
/// `T` for MiB, GiB and TiB.
///
/// # Errors
/// Fails if the text is no whole number with a known unit, or if the size does not fit.
pub fn bytes(text: &str) -> Result<usize> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: usize = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "m" | "MiB" => 1 << 20,
        "G" | "g" | "GiB" => 1 << 30,
        "T" | "t" | "TiB" => 1 << 40,
        unit => bail!("{unit} is no unit; give B, KiB, MiB, GiB or TiB"),
    };
    number::<usize>(digits)?
        .checked_mul(unit)
        .context("the size is too large")
}

/// A whole number.
///
/// # Errors
/// Fails if the text is none, or if the number does not fit.
pub fn number<T: FromStr>(text: &str) -> Result<T> {
    text.trim()
        .parse()
        .ok()
        .with_context(|| format!("{text:?} is no whole number"))
}

/// A length of time, more than nothing and at most `longest`, in the unit whose name is given.
///
/// # Errors
/// Fails if the text is none, with examples of what to give.
pub fn time(text: &str, unit: &str, longest: f64, example: u32) -> Result<f64> {
    let time = text.parse().unwrap_or(f64::NAN);
    ensure!(
        time > 0.0 && time <= longest,
        "give a number of {unit}, for example {example} or 0.5"
    );
    Ok(time)
}

/// The two parts of a text like `NAME=FILE`, which is the `form` that the error tells.
///
/// # Errors
/// Fails if the text has no equals sign, or nothing in front of it.
pub fn name_and_file(text: &str, form: &str) -> Result<(String, String)> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, file) = parts.with_context(|| format!("give {form}"))?;
    Ok((name.into(), file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_carry_units() {
        assert_eq!(bytes("4096").unwrap(), 4096);
        assert_eq!(bytes("512MiB").unwrap(), 512 << 20);
        for (power, units) in [
            (10, ["K", "k"]),
            (20, ["M", "m"]),
            (30, ["G", "g"]),
            (40, ["T", "t"]),
        ] {
            for unit in units {
                assert_eq!(bytes(&format!("3{unit}")).unwrap(), 3 << power);
            }
        }
        assert!(bytes("5MB").is_err());
        assert!(bytes("MiB").is_err());
        assert!(bytes("99999999999GiB").is_err());
    }
}
