//! Makes a new input of those that were interesting.
//!
//! A few small changes at a time: where one more would be refused by the first check, two fewer may
//! get behind it.

use super::dice::Dice;

/// Changes to one input, at most.
const CHANGES: usize = 5;

/// Where numbers change sign, wrap, or mean "none", "all" or "too many".
const NUMBERS: [u64; 18] = [
    0,
    1,
    2,
    7,
    16,
    31,
    32,
    64,
    127,
    128,
    255,
    256,
    32_767,
    65_535,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// What text formats stumble over.
const TEXTS: [&str; 30] = [
    "\0",
    "\n",
    "\r\n",
    "\t",
    " ",
    "\"",
    "\\",
    "/",
    "..",
    "//",
    "%00",
    "%",
    "~0",
    "~1",
    ":",
    "=",
    ",",
    "-",
    "\u{feff}",
    "\u{202e}",
    "ß",
    "🦀",
    "[",
    "{",
    "]",
    "}",
    "null",
    "-0",
    "1e999",
    "99999999999999999999",
];

/// Times that a part is repeated, at most: deep nesting, long lists.
const REPEATS: usize = 4_096;

pub fn mutated(dice: &mut Dice, pool: &[Vec<u8>], words: &[Vec<u8>], longest: usize) -> Vec<u8> {
    let mut input = dice.any(pool).cloned().unwrap_or_default();
    let changes = match dice.one_in(2) {
        true => 0,
        false => dice.below(CHANGES),
    };
    for _ in 0..=changes {
        change(dice, &mut input, pool, words, longest);
        input.truncate(longest);
    }
    input
}

fn change(
    dice: &mut Dice,
    input: &mut Vec<u8>,
    pool: &[Vec<u8>],
    words: &[Vec<u8>],
    longest: usize,
) {
    match dice.below(16) {
        0 | 1 => {
            let at = dice.below(input.len());
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        2 => {
            let at = dice.below(input.len());
            let random = dice.next() as u8;
            if let Some(byte) = input.get_mut(at) {
                *byte = random;
            }
        }
        3 => {
            let part = dice.part(input.len());
            input.drain(part);
        }
        4 => {
            let at = dice.below(input.len() + 1);
            input.truncate(at);
        }
        5 => {
            // A part again, somewhere.
            let part = dice.part(input.len());
            let copy = input[part].to_vec();
            insert(dice, input, &copy);
        }
        6 => {
            // A part many times, in its place.
            let part = dice.part(input.len());
            let copy = input[part.clone()].to_vec();
            let room = longest.saturating_sub(input.len()) / copy.len().max(1);
            let times = match dice.below(3) {
                0 => dice.below(REPEATS.min(room) + 1),
                _ => dice.below(8.min(room) + 1),
            };
            input.splice(part.end..part.end, copy.repeat(times));
        }
        7 => {
            // What goes together with another input, at the same place or not.
            if let Some(other) = dice.any(pool) {
                let from = dice.below(other.len() + 1);
                let at = dice.below(input.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
        8 => {
            if let Some(other) = dice.any(pool) {
                let part = dice.part(other.len());
                let copy = other[part].to_vec();
                insert(dice, input, &copy);
            }
        }
        9 | 10 => {
            if let Some(word) = dice.any(words) {
                replace_or_insert(dice, input, word);
            }
        }
        11 => {
            if let Some(text) = dice.any(&TEXTS) {
                replace_or_insert(dice, input, text.as_bytes());
            }
        }
        12 => number(dice, input),
        13 => {
            // A number in text.
            let digits = input.iter().position(u8::is_ascii_digit);
            let mut number = dice.any(&NUMBERS).copied().unwrap_or(0).to_string();
            if dice.one_in(4) {
                number.insert(0, '-');
            }
            if let Some(at) = digits {
                let skip = dice.below(input.len() - at);
                let later = input[at + skip..].iter().position(u8::is_ascii_digit);
                let at = later.map_or(at, |later| at + skip + later);
                let rest = input[at..]
                    .iter()
                    .take_while(|b| b.is_ascii_digit())
                    .count();
                input.splice(at..at + rest, number.into_bytes());
            }
        }
        14 => varint(dice, input),
        _ => {
            // Two parts change places.
            let (one, other) = (dice.part(input.len()), dice.part(input.len()));
            let (first, second) = match one.start < other.start {
                true => (one, other),
                false => (other, one),
            };
            if first.end <= second.start {
                let (a, b) = (
                    input[first.clone()].to_vec(),
                    input[second.clone()].to_vec(),
                );
                input.splice(second, a);
                input.splice(first, b);
            }
        }
    }
}

fn insert(dice: &mut Dice, input: &mut Vec<u8>, part: &[u8]) {
    let at = dice.below(input.len() + 1);
    input.splice(at..at, part.iter().copied());
}

fn replace_or_insert(dice: &mut Dice, input: &mut Vec<u8>, part: &[u8]) {
    if dice.one_in(2) {
        return insert(dice, input, part);
    }
    let at = dice.below(input.len() + 1);
    let end = input.len().min(at + part.len());
    input.splice(at..end, part.iter().copied());
}

/// A binary number, of either order of bytes.
fn number(dice: &mut Dice, input: &mut [u8]) {
    let width = 1 << dice.below(4);
    let Some(last) = input.len().checked_sub(width) else {
        return;
    };
    let at = dice.below(last + 1);
    let place = &mut input[at..at + width];
    let mut wide = [0; 8];
    wide[8 - width..].copy_from_slice(place);
    let value = match dice.below(3) {
        0 => dice.any(&NUMBERS).copied().unwrap_or(0),
        1 => u64::from_be_bytes(wide)
            .wrapping_add(dice.below(8) as u64)
            .wrapping_sub(4),
        _ => last as u64 + 1,
    };
    let bytes = value.to_be_bytes();
    place.copy_from_slice(&bytes[8 - width..]);
    if dice.one_in(2) {
        place.reverse();
    }
}

/// As protobuf writes lengths and numbers.
fn varint(dice: &mut Dice, input: &mut Vec<u8>) {
    let mut value = dice.any(&NUMBERS).copied().unwrap_or(0);
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    let at = dice.below(input.len());
    let end = (at + 1).min(input.len());
    input.splice(at..end, bytes);
}
