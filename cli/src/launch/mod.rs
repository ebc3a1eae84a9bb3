//! `theap run`, and what every command needs that starts a program on theap: which program a
//! command names ([`program`]), where the library is ([`library`]), and theap's options as
//! variables of the environment ([`settings`]).

pub mod library;
pub mod peer;
pub mod program;
mod run;
pub mod settings;

pub use run::Run;
