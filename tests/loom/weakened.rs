//! Makes one access after another weaker than it is in the source, and runs the model that must
//! notice.

use crate::{
    extents::*, heap_lock::*, inbox::*, shelf::*, slots::*, spans::*, stash::*, stats::*, stock::*,
};
use theap::sync::{Weakening, weaken};

/// An access: its file, the function, and a text in its line, which is the first line of the
/// function with this text. Then the way in which it is made weaker, and the model that must fail
/// then.
type Weakened = (&'static str, &'static str, &'static str, Weakening, fn());

const OWNERSHIP: &str = "src/pool/metadata/ownership.rs";
const SLOT_WORD: &str = "src/pool/supers/slot_word.rs";
const AVAIL: &str = "src/pool/supers/avail.rs";
const EXTENTS: &str = "src/pool/supers/extents.rs";
const HEAP_LOCK: &str = "src/pool/heap_lock.rs";
const INBOX: &str = "src/pool/spans/inbox.rs";
const STASH: &str = "src/pool/spans/stash.rs";
const STASHED: &str = "src/pool/spans/stashed.rs";
const CLAIMS: &str = "src/pool/pages/claims.rs";
const SHELF: &str = "src/pool/pages/shelf.rs";
const SPARE: &str = "src/pool/pages/spare.rs";
const RING: &str = "src/stats/ring.rs";
const BOARD: &str = "src/stats/board.rs";
const COUNTERS: &str = "src/stats/counters.rs";

#[rustfmt::skip]
const WEAKENED: &[Weakened] = &[
    (OWNERSHIP, "disown", "fetch_or(0", Weakening::Forgotten, one_remote_free_against_disowning),
    (OWNERSHIP, "disown", "fetch_or(0", Weakening::Forgotten, a_recycled_heap_takes_its_spans_back),
    (OWNERSHIP, "free_remote", "word.fetch_or", Weakening::Torn, threads_of_a_nursery_take_and_free),
    (OWNERSHIP, "free_remote", "pending.fetch_or", Weakening::Forgotten, one_remote_free_against_disowning),
    (OWNERSHIP, "retake", "compare_exchange(", Weakening::Torn, last_owner_takes_its_span_back_or_the_pool_gets_it),
    (OWNERSHIP, "retake", "compare_exchange(", Weakening::Torn, a_block_that_is_a_span_has_one_heir),
    (OWNERSHIP, "hand_out", "store(", Weakening::Relaxed, a_block_that_is_a_span_has_one_heir),
    (OWNERSHIP, "free_remote", "compare_exchange(", Weakening::Torn, last_owner_takes_its_span_back_or_the_pool_gets_it),
    (SLOT_WORD, "release", "fetch_or(bits", Weakening::Relaxed, slots_have_one_taker),
    (SLOT_WORD, "take(", "compare_exchange_weak", Weakening::Torn, slots_have_one_taker),
    (SLOT_WORD, "begin_purge_all", "compare_exchange(", Weakening::Torn, purge_takes_no_slot_in_use),
    (SLOT_WORD, "begin_purge_empty", "compare_exchange_weak", Weakening::Torn, empty_slots_are_purged_beside_a_taker),
    (SLOT_WORD, "end_purge", "fetch_or(bits", Weakening::Relaxed, empty_slots_are_purged_beside_a_taker),
    (AVAIL, "set(", "words[word].fetch_or", Weakening::Torn, one_room_is_never_forgotten),
    (AVAIL, "clear(", "words[word].fetch_and", Weakening::Torn, one_room_is_never_forgotten),
    (AVAIL, "clear_summary(", "words[word].load", Weakening::Forgotten, one_room_is_never_forgotten),
    (EXTENTS, "offer_whole(", "fence(", Weakening::Forgotten, neighbours_make_an_extent),
    (EXTENTS, "offer_hole(", "fence(", Weakening::Forgotten, a_hole_makes_an_extent),
    (EXTENTS, "withdraw(", "fence(", Weakening::Forgotten, an_extent_is_never_forgotten),
    (AVAIL, "set(", "words[word].fetch_or", Weakening::Torn, neighbours_of_a_word_make_an_extent),
    (AVAIL, "set(", "words[word].fetch_or", Weakening::Forgotten, a_run_is_taken_or_found_later),
    (SLOT_WORD, "take(", "compare_exchange_weak", Weakening::Torn, a_run_has_one_taker),
    (CLAIMS, "withdraw(", "fence(", Weakening::Forgotten, a_step_in_vain_leaves_holes_beside_a_third),
    (AVAIL, "set(", "words[word].fetch_or", Weakening::Forgotten, a_hole_outlives_a_claim_in_vain),
    (CLAIMS, "clear(", "fence(", Weakening::Forgotten, a_step_in_vain_leaves_holes),
    (AVAIL, "set(", "words[word].fetch_or", Weakening::Forgotten, a_hole_is_never_forgotten),
    (STASH, "put(", "compare_exchange(", Weakening::Relaxed, stash_loses_no_span),
    (STASH, "put(", "compare_exchange(", Weakening::Torn, stash_loses_no_span),
    (STASH, "take(", "swap(0", Weakening::Relaxed, stash_loses_no_span),
    (STASH, "take(", "swap(0", Weakening::Torn, stash_has_one_taker_for_each_span),
    (STASHED, "note(", "fence(", Weakening::Forgotten, a_stash_with_a_span_is_noted),
    (STASHED, "note(", "fetch_or", Weakening::Forgotten, a_stash_with_a_span_is_noted),
    (STASHED, "find<", "fence(", Weakening::Forgotten, a_stash_with_a_span_is_noted),
    (INBOX, "push(", "compare_exchange_weak", Weakening::Relaxed, inbox_loses_no_span),
    (INBOX, "push(", "compare_exchange_weak", Weakening::Torn, inbox_loses_no_span),
    (INBOX, "drain_all(", "swap(NIL", Weakening::Relaxed, inbox_loses_no_span),
    (INBOX, "drain_all(", "swap(NIL", Weakening::Torn, inbox_loses_no_span),
    (HEAP_LOCK, "own(", "compare_exchange(", Weakening::Torn, a_reclaimer_comes_between_steps),
    (HEAP_LOCK, "own(", "compare_exchange(", Weakening::Relaxed, a_reclaimer_comes_between_steps),
    (HEAP_LOCK, "leave(", "store(", Weakening::Relaxed, a_reclaimer_comes_between_steps),
    (HEAP_LOCK, "try_reclaim(", "compare_exchange(", Weakening::Torn, a_reclaimer_comes_between_steps),
    (HEAP_LOCK, "try_reclaim(", "compare_exchange(", Weakening::Relaxed, a_reclaimer_comes_between_steps),
    (HEAP_LOCK, "end_reclaim(", "swap(", Weakening::Relaxed, a_reclaimer_comes_between_steps),
    (HEAP_LOCK, "leave_closed(", "store(", Weakening::Forgotten, a_closed_heap_is_left_alone),
    (RING, "push(", "head.store", Weakening::Relaxed, ring_overwritten_while_it_is_read),
    (RING, "push(", "fence(", Weakening::Forgotten, ring_overwritten_while_it_is_read),
    (RING, "read(", "fence(", Weakening::Forgotten, ring_overwritten_while_it_is_read),
    (BOARD, "open(", "magic", Weakening::Relaxed, board_read_while_it_is_written),
    (BOARD, "heap_made(", "heaps.store", Weakening::Relaxed, board_read_while_it_is_written),
    (COUNTERS, "add(", ".store(", Weakening::Forgotten, board_read_while_it_is_written),
    (CLAIMS, "claim(", "compare_exchange(", Weakening::Torn, one_hole_has_one_taker),
    (CLAIMS, "claim(", "frontier.fetch_max", Weakening::Torn, claims_of_superslabs),
    (CLAIMS, "give_up(", "holes.fetch_add", Weakening::Forgotten, claims_of_superslabs),
    (CLAIMS, "change(", "compare_exchange(", Weakening::Forgotten, stock_is_taken_once_it_is_prepared),
    (CLAIMS, "change(", "compare_exchange(", Weakening::Torn, a_mark_raises_nothing),
    (CLAIMS, "change(", "compare_exchange(", Weakening::Torn, a_mark_that_goes_raises_nothing),
    (SHELF, "put(", ".compare_exchange(", Weakening::Relaxed, a_shelved_run_has_one_taker),
    (SHELF, "put(", ".compare_exchange(", Weakening::Torn, a_shelf_loses_no_run),
    (SHELF, "take(", ".compare_exchange(", Weakening::Relaxed, a_shelved_run_has_one_taker),
    (SHELF, "take(", ".compare_exchange(", Weakening::Torn, a_shelved_run_has_one_taker),
    (SHELF, "take_any(", "place.swap(", Weakening::Torn, a_shelved_run_has_one_taker),
    (SPARE, "put(", "compare_exchange(", Weakening::Relaxed, each_spare_superslab_has_one_taker),
    (SPARE, "take(", "compare_exchange(", Weakening::Relaxed, each_spare_superslab_has_one_taker),
    (SPARE, "take(", "compare_exchange(", Weakening::Torn, each_spare_superslab_has_one_taker),
    (SPARE, "take_all(", "swap(0", Weakening::Relaxed, each_spare_superslab_has_one_taker),
    (SPARE, "take_all(", "swap(0", Weakening::Torn, each_spare_superslab_has_one_taker),
    (SLOT_WORD, "publish_fresh(", ".store(", Weakening::Relaxed, stock_is_taken_once_it_is_prepared),
    (SLOT_WORD, "begin_purge_all", "compare_exchange(", Weakening::Torn, stock_is_given_back_or_taken),
    (SLOT_WORD, "release(", "fetch_or(bits", Weakening::Relaxed, stock_comes_back_and_goes),
    (AVAIL, "set(", "words[word].fetch_or", Weakening::Forgotten, stock_is_taken_once_it_is_prepared),
];

fn line_of(file: &str, function: &str, text: &str) -> u32 {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(path).expect(file);
    let start = source.find(&format!("fn {function}")).expect(function);
    let at = start + source[start..].find(text).expect(text);
    source[..=at].lines().count() as u32
}

#[test]
fn weakened_accesses_are_caught() {
    let missed: Vec<_> = WEAKENED
        .iter()
        .filter(|&&(file, function, text, how, model)| {
            let line = line_of(file, function, text);
            let run = move || {
                weaken(file, line, how);
                model();
            };
            thread_that(run).join().is_ok()
        })
        .map(|(file, function, text, how, _)| format!("{file}, {function} {text}: {how:?}"))
        .collect();
    assert!(missed.is_empty(), "no model notices {missed:#?}");
}

/// Starts a thread of its own, because the access stays weaker until the thread ends.
fn thread_that(run: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::Builder::new()
        .name("weakened".to_owned())
        .spawn(run)
        .unwrap()
}
