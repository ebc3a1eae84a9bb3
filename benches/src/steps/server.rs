//! The server mix: what Google's servers allocate, as steps of a row.
//!
//! The mix is `Bravo` of the profiles that the TCMalloc project measured in Google's servers and
//! publishes in `tcmalloc/testing/empirical_distributions.cc`: how often the servers allocate a
//! size, and how many blocks of it are alive. The table here keeps the sizes with the most
//! allocations or the most memory (the odd ones between 16 and 32 bytes are folded into two). The
//! numbers of living blocks are scaled down so that they fit a short run.

use super::{Random, SEED, STEPS, Step};

/// Size in bytes, allocations a second, blocks alive.
const SERVER: [(u32, u32, u32); 39] = [
    (8, 100_758, 163_657),
    (16, 33_261, 366_425),
    (20, 114_348, 324_845),
    (24, 44_243, 972_751),
    (30, 167_859, 361_482),
    (32, 427_331, 2_149_933),
    (40, 99_018, 724_179),
    (48, 171_553, 1_384_247),
    (56, 53_662, 866_183),
    (64, 217_689, 1_468_748),
    (72, 66_236, 2_030_584),
    (80, 99_898, 481_580),
    (88, 98_145, 54_408),
    (96, 58_043, 297_617),
    (104, 34_591, 115_824),
    (112, 41_953, 225_069),
    (128, 61_098, 427_283),
    (160, 24_541, 124_217),
    (192, 16_363, 91_680),
    (224, 10_421, 35_155),
    (256, 16_763, 113_452),
    (296, 9_910, 158_243),
    (320, 12_487, 38_552),
    (384, 8_957, 14_756),
    (448, 6_671, 9_091),
    (504, 12_613, 10_248),
    (512, 20_567, 144_263),
    (640, 6_551, 18_931),
    (816, 4_378, 10_729),
    (1024, 19_588, 20_071),
    (1280, 2_194, 34_940),
    (1544, 4_325, 61_095),
    (2048, 2_378, 53_238),
    (8192, 21_364, 1_440_133),
    (16_384, 245, 108_921),
    (32_768, 525, 4_679),
    (65_536, 3_308, 1_892),
    (131_072, 128, 64),
    (262_144, 55, 33),
];

/// Living blocks of the server for each living block of the run.
const SCALE: u32 = 300;

/// Steps of the server mix, and the number of slots that they need. Every size has slots of its
/// own, one for each of its living blocks. So a block lives as many allocations as it does in the
/// server, scaled.
pub(crate) fn server() -> (Box<[Step]>, usize) {
    let mut random = Random::new(SEED);
    let slots = SERVER.map(|(_, _, live)| live.div_ceil(SCALE));
    let rates = SERVER.iter().map(|&(_, rate, _)| u64::from(rate)).sum();
    let step = |_| {
        let mut at = random.below(rates);
        let mut first = 0;
        for (&(size, rate, _), count) in SERVER.iter().zip(slots) {
            if at < u64::from(rate) {
                let slot = first + random.below(u64::from(count)) as u32;
                return Step { slot, size };
            }
            at -= u64::from(rate);
            first += count;
        }
        unreachable!("the number is below the sum of the rates")
    };
    ((0..4 * STEPS).map(step).collect(), server_blocks())
}

/// Mean size of the server's living blocks in bytes.
pub(crate) fn server_mean() -> usize {
    let total = |of: fn(&(u32, u32, u32)) -> u64| SERVER.iter().map(of).sum::<u64>();
    let bytes = total(|&(size, _, live)| u64::from(size) * u64::from(live));
    (bytes / total(|&(_, _, live)| live.into())) as usize
}

/// Blocks that the server mix has alive, once every slot is filled.
pub(crate) fn server_blocks() -> usize {
    let live = SERVER.iter().map(|&(_, _, live)| live.div_ceil(SCALE));
    live.sum::<u32>() as usize
}
