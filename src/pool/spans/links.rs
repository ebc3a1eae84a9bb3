//! The links of a queue lie in the metadata of its spans.

use super::queue::Links;
use crate::geometry::SpanId;
use crate::pool::metadata::Metadata;

impl Links for Metadata {
    fn links(&self, span: SpanId) -> (u32, u32) {
        let meta = self.span(span);
        (meta.next.get(), meta.prev.get())
    }

    fn set_next(&self, span: SpanId, next: u32) {
        self.span(span).next.set(next);
    }

    fn set_prev(&self, span: SpanId, prev: u32) {
        self.span(span).prev.set(prev);
    }
}
