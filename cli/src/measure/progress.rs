//! The bar that shows how far a command is. It stands on standard error and draws nothing where
//! that is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `length` steps; `unit` stands behind the number of steps.
pub fn bar(length: u64, unit: &str) -> ProgressBar {
    let template = format!("{{bar:24}} {{pos}}/{{len}}{unit} {{msg}}");
    let style = ProgressStyle::with_template(&template).expect("the template above is well formed");
    ProgressBar::new(length).with_style(style)
}

/// A bar of this many steps.
pub fn steps(steps: usize) -> ProgressBar {
    bar(steps as u64, "")
}
