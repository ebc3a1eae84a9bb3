//! The links of a queue lie in the metadata of its spans.
#![allow(unsafe_code)] // Asks for the metadata of spans.

use super::queue::Links;
use crate::geometry::SpanId;
use crate::pool::metadata::Metadata;

impl Links for Metadata {
    fn links(&self, span: SpanId) -> (u32, u32) {
        // SAFETY: only spans of mapped SuperSlabs get into queues.
        let meta = unsafe { self.span(span) };
        (meta.next.get(), meta.prev.get())
    }

    fn set_next(&self, span: SpanId, next: u32) {
        // SAFETY: as for `links`.
        unsafe { self.span(span) }.next.set(next);
    }

    fn set_prev(&self, span: SpanId, prev: u32) {
        // SAFETY: as for `links`.
        unsafe { self.span(span) }.prev.set(prev);
    }
}
