//! Questions about a list of tokens.

use proc_macro2::{Delimiter, Spacing, TokenTree};

/// The word at an index, or nothing.
pub fn word(tokens: &[TokenTree], at: usize) -> String {
    match tokens.get(at) {
        Some(TokenTree::Ident(word)) => word.to_string().trim_start_matches("r#").to_owned(),
        _ => String::new(),
    }
}

/// Whether this sign is at an index.
pub fn is_punct(tokens: &[TokenTree], at: usize, what: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(mark)) if mark.as_char() == what)
}

/// Whether a group in these brackets is at an index.
pub fn is_group(tokens: &[TokenTree], at: usize, what: Delimiter) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Group(group)) if group.delimiter() == what)
}

/// Whether `::` is at an index.
pub fn is_path(tokens: &[TokenTree], at: usize) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(mark))
        if mark.as_char() == ':' && mark.spacing() == Spacing::Joint)
        && is_punct(tokens, at + 1, ':')
}
