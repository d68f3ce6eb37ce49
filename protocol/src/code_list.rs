//! One table, one enum: a closed list of codes that is at once wire code, log field and metric label.
//!
//! Invariant: codes run from 1 without a gap (0 means "none" on the wire), so a code is also an
//! index. A code, once given out, is never given to something else; the list only grows at its end,
//! together with the protocol's minor version.

/// Makes an enum of one-byte codes from a table of `Variant = code, "label", "text";` rows.
macro_rules! code_list {
    (
        $(#[$meta:meta])*
        $name:ident {
            $($variant:ident = $code:literal, $label:literal, $text:literal;)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum $name {
            $(
                #[doc = concat!("`", $label, "`: ", $text, ".")]
                $variant = $code,
            )+
        }

        impl $name {
            /// Every value, in the order of the codes.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// How many there are: the length of an array with one counter for each.
            pub const COUNT: usize = Self::ALL.len();

            /// The code on the wire, 1 or more.
            #[inline]
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The place in [`Self::ALL`], for arrays of [`Self::COUNT`] counters.
            #[inline]
            pub const fn index(self) -> usize {
                self as usize - 1
            }

            /// The name in logs and metrics, in kebab case.
            pub const fn label(self) -> &'static str {
                match self {
                    $($name::$variant => $label,)+
                }
            }

            /// What it means, for people: a clause without a capital and a full stop.
            pub const fn text(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)+
                }
            }

            /// The value with this wire code, if there is one.
            #[inline]
            pub const fn from_code(code: u8) -> Option<$name> {
                match code {
                    $($code => Some($name::$variant),)+
                    _ => None,
                }
            }
        }

        // `index` stands on this.
        const _: () = {
            let mut at = 0;
            while at < $name::COUNT {
                assert!($name::ALL[at] as usize == at + 1, "codes run from 1 without a gap");
                at += 1;
            }
        };

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}

pub(crate) use code_list;
