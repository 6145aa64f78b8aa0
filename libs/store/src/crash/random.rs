//! Random sequences, longer and less even.

use super::common::Random;
use super::sequences::{Op, Sequence, Shape, TOPICS};
use crate::config::FlushMode;

pub(super) fn of(seed: u64) -> Sequence {
    let mut random = Random(seed);
    let flush = if random.below(2) == 0 { FlushMode::Sync } else { FlushMode::ASYNC };
    let segment_bytes = [4096, 8192, 16384][random.below(3) as usize];
    let is_even = random.below(2) == 0;
    let mut op = || match random.below(24) {
        letter @ 0..12 => {
            let count = 1 + random.below(6);
            let shapes = (0..count).map(|_| shape(&mut random, is_even)).collect();
            if letter < 7 { Op::Append(shapes) } else { Op::AppendAroundFlush(shapes) }
        }
        12..15 => Op::Flush,
        15..18 => Op::Maintain,
        18..20 => Op::Reopen,
        20..22 => Op::Kill,
        22 if random.below(2) == 0 => Op::Delete,
        22 => Op::BreakSync,
        _ => Op::Expire,
    };
    let then = (0..6).map(|_| op()).filter(|op| *op != Op::BreakSync).collect();
    let ops = (0..4).map(|_| op()).collect();
    let first = if random.below(2) == 0 { recycled(segment_bytes) } else { Vec::new() };
    Sequence { flush, segment_bytes, prefix: [first, then].concat(), ops }
}

/// Fills three segments and more, and lets them expire, so that the next ones are recycled.
fn recycled(segment_bytes: u64) -> Vec<Op> {
    let seven = Op::Append((0..7).map(|n| Shape::even(TOPICS[n % 2])).collect());
    let mut ops = vec![seven.clone(); 3 * segment_bytes as usize / 4096];
    ops.extend([Op::Flush, Op::Maintain, Op::Expire, Op::Maintain, seven]);
    ops
}

fn shape(random: &mut Random, is_even: bool) -> Shape {
    let topic = TOPICS[random.below(2) as usize];
    if is_even {
        return Shape::even(topic);
    }
    let keys = [None, Some("k all"), Some("all")][random.below(3) as usize];
    Shape { topic, queue_id: random.below(3) as i32, body_bytes: random.below(1500) as usize, keys }
}
