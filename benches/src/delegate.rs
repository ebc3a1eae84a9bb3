//! A peer as a type of this crate's users, which may implement [`crate::Contender`] for it.

/// Implements `GlobalAlloc` for a tuple struct by its first field's.
#[macro_export]
macro_rules! delegate {
    ($name:ident) => {
        // SAFETY: passes everything on to an allocator.
        unsafe impl std::alloc::GlobalAlloc for $name {
            #[inline(always)]
            unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
                // SAFETY: the caller's promise is the inner allocator's precondition, here and below.
                unsafe { std::alloc::GlobalAlloc::alloc(&self.0, layout) }
            }

            #[inline(always)]
            unsafe fn dealloc(&self, block: *mut u8, layout: std::alloc::Layout) {
                // SAFETY: as above.
                unsafe { std::alloc::GlobalAlloc::dealloc(&self.0, block, layout) }
            }

            #[inline(always)]
            unsafe fn alloc_zeroed(&self, layout: std::alloc::Layout) -> *mut u8 {
                // SAFETY: as above.
                unsafe { std::alloc::GlobalAlloc::alloc_zeroed(&self.0, layout) }
            }

            #[inline(always)]
            unsafe fn realloc(
                &self,
                block: *mut u8,
                layout: std::alloc::Layout,
                size: usize,
            ) -> *mut u8 {
                // SAFETY: as above.
                unsafe { std::alloc::GlobalAlloc::realloc(&self.0, block, layout, size) }
            }
        }
    };
}
