//! A stand-in for `theap::Pages::{ALL, name, parse}`, until the library exports them. The rest of
//! the program asks for names here only, so that this file alone changes then.

use theap::Pages;

/// All page modes.
pub const ALL: [Pages; 5] = [
    Pages::Auto,
    Pages::Hugetlb,
    Pages::Hugetlb1g,
    Pages::Thp,
    Pages::Small,
];

/// The mode's name, as the option `pages` spells it.
pub const fn name(pages: Pages) -> &'static str {
    match pages {
        Pages::Auto => "auto",
        Pages::Hugetlb => "hugetlb",
        Pages::Hugetlb1g => "hugetlb-1g",
        Pages::Thp => "thp",
        Pages::Small => "small",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_option() {
        let row = theap::OPTIONS.iter().find(|row| row.name == "pages");
        assert_eq!(row.unwrap().values, ALL.map(name).join(", "));
    }
}
