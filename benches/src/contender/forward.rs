//! An allocator of another crate as a type of this crate's users, which may then implement
//! `Contender` for the type.
#![allow(unsafe_code)] // the macro implements an unsafe trait

/// Implements `GlobalAlloc` for a tuple struct: every call goes to the struct's first field.
#[macro_export]
macro_rules! forward_global_alloc {
    ($name:ident) => {
        // SAFETY: the first field is an allocator, and every call goes to it unchanged.
        unsafe impl std::alloc::GlobalAlloc for $name {
            #[inline(always)]
            unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
                // SAFETY: `GlobalAlloc::alloc` has its caller promise a size other than 0, which is
                // what the inner allocator asks for.
                unsafe { std::alloc::GlobalAlloc::alloc(&self.0, layout) }
            }

            #[inline(always)]
            unsafe fn dealloc(&self, block: *mut u8, layout: std::alloc::Layout) {
                // SAFETY: `GlobalAlloc::dealloc` has its caller promise a live block of this
                // allocator with this layout; all of its blocks are the inner allocator's.
                unsafe { std::alloc::GlobalAlloc::dealloc(&self.0, block, layout) }
            }

            #[inline(always)]
            unsafe fn alloc_zeroed(&self, layout: std::alloc::Layout) -> *mut u8 {
                // SAFETY: `GlobalAlloc::alloc_zeroed` has its caller promise a size other than 0.
                unsafe { std::alloc::GlobalAlloc::alloc_zeroed(&self.0, layout) }
            }

            #[inline(always)]
            unsafe fn realloc(
                &self,
                block: *mut u8,
                layout: std::alloc::Layout,
                size: usize,
            ) -> *mut u8 {
                // SAFETY: `GlobalAlloc::realloc` has its caller promise a live block of this
                // allocator with this layout and a valid new size; the block is the inner
                // allocator's.
                unsafe { std::alloc::GlobalAlloc::realloc(&self.0, block, layout, size) }
            }
        }
    };
}
