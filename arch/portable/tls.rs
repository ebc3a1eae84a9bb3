//! The thread slot as a `thread_local!` of the standard library.
//!
//! The value is constant-initialized and has no destructor, so an access never allocates, never
//! registers anything and never fails, also while the thread ends. In a library the access is a
//! call of `__tls_get_addr`, which the tuned twin avoids.

/// Defines the slot of [`thread_slot!`](crate::thread_slot) on the standard library, with the same
/// usage.
#[macro_export]
macro_rules! portable_thread_slot {
    ($(#[$meta:meta])* $vis:vis mod $name:ident: $type:ty = $empty:path;) => {
        $(#[$meta])*
        $vis mod $name {
            #[allow(unused_imports)]
            use super::*;
            extern crate std;

            std::thread_local! {
                static SLOT: ::core::cell::Cell<*mut $type> =
                    const { ::core::cell::Cell::new((&raw const $empty).cast_mut().cast()) };
            }

            /// The pointer in this thread's slot.
            #[inline(always)]
            pub fn get() -> *mut $type {
                SLOT.get()
            }

            /// Changes this thread's slot.
            #[inline(always)]
            pub fn set(value: *mut $type) {
                SLOT.set(value)
            }
        }
    };
}
