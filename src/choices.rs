//! `choices!`: an enum whose values are written by name, in an option of the heap and on a command
//! line. The names, the list of them in the documentation and the parser come from one table.

/// Declares such an enum: each variant with its documentation and its name.
macro_rules! choices {
    (
        $(#[$about:meta])*
        pub enum $choice:ident {
            $(#[$first_about:meta])* $first:ident = $first_name:literal,
            $($(#[$variant_about:meta])* $variant:ident = $name:literal,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $choice {
            $(#[$first_about])* $first,
            $($(#[$variant_about])* $variant,)*
        }

        impl $choice {
            /// Every value, in the order in which the documentation lists them.
            pub const ALL: &[Self] = &[Self::$first, $(Self::$variant,)*];

            /// The names of all values, as the documentation lists them.
            pub(crate) const NAMES: &str = concat!($first_name $(, ", ", $name)*);

            /// The name of the value, as it is written in the option's variable.
            pub const fn name(self) -> &'static str {
                match self {
                    Self::$first => $first_name,
                    $(Self::$variant => $name,)*
                }
            }

            /// The value of this name; `None` if no value has it.
            pub fn parse(name: &[u8]) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name().as_bytes() == name)
            }
        }
    };
}

pub(crate) use choices;
