//! Figures for people: tables for the terminal, pages with charts, sections of a Markdown document.

#[cfg(feature = "report")]
pub mod charts;
mod comparison;
#[cfg(feature = "report")]
pub mod document;
#[cfg(feature = "report")]
mod html;

pub use comparison::{Column, figures, shown_unit, table};
#[cfg(feature = "report")]
pub use html::{Page, distinct, escaped};
