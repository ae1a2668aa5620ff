//! XXH64 (Collet, xxHash specification 0.1.1): a checksum of damage, not of malice.
#![forbid(unsafe_code)]

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

/// The hash of bytes that arrive in pieces.
pub(crate) struct Hash {
    lanes: [u64; 4],
    /// Bytes of an unfinished stripe.
    rest: [u8; 32],
    filled: usize,
    total: u64,
}

impl Hash {
    pub(crate) fn new() -> Self {
        let lanes = [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)];
        Self { lanes, rest: [0; 32], filled: 0, total: 0 }
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if self.filled > 0 {
            let take = (32 - self.filled).min(bytes.len());
            self.rest[self.filled..self.filled + take].copy_from_slice(&bytes[..take]);
            (self.filled, bytes) = (self.filled + take, &bytes[take..]);
            if self.filled < 32 {
                return;
            }
            let rest = self.rest;
            self.stripe(&rest);
            self.filled = 0;
        }
        let stripes = bytes.chunks_exact(32);
        let rest = stripes.remainder();
        for stripe in stripes {
            self.stripe(stripe);
        }
        self.rest[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
    }

    fn stripe(&mut self, stripe: &[u8]) {
        for (lane, word) in self.lanes.iter_mut().zip(stripe.chunks_exact(8)) {
            *lane = round(*lane, u64_of(word));
        }
    }

    pub(crate) fn finish(&self) -> u64 {
        let [a, b, c, d] = self.lanes;
        let mut hash = if self.total >= 32 {
            let turned = [a.rotate_left(1), b.rotate_left(7), c.rotate_left(12), d.rotate_left(18)];
            let sum = turned.iter().fold(0u64, |sum, &lane| sum.wrapping_add(lane));
            self.lanes
                .iter()
                .fold(sum, |hash, &lane| (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4))
        } else {
            P5
        };
        hash = hash.wrapping_add(self.total);
        let words = self.rest[..self.filled].chunks_exact(8);
        let mut rest = words.remainder();
        for word in words {
            let word = round(0, u64_of(word));
            hash = (hash ^ word).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        }
        if let Some((half, tail)) = rest.split_first_chunk::<4>() {
            hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(P1);
            hash = hash.rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
            rest = tail;
        }
        for &byte in rest {
            hash = (hash ^ u64::from(byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
        }
        hash = (hash ^ hash >> 33).wrapping_mul(P2);
        hash = (hash ^ hash >> 29).wrapping_mul(P3);
        hash ^ hash >> 32
    }
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

fn u64_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8], piece: usize) -> u64 {
        let mut hash = Hash::new();
        bytes.chunks(piece).for_each(|piece| hash.update(piece));
        hash.finish()
    }

    /// Values of the reference implementation.
    #[test]
    fn known_answers_in_any_pieces() {
        for piece in [1, 3, 8, 31, 32, 33, 1000] {
            assert_eq!(of(b"", piece), 0xef46_db37_51d8_e999);
            assert_eq!(of(b"a", piece), 0xd24e_c4f1_a98c_6e5b);
            assert_eq!(of(b"abc", piece), 0x44bc_2cf5_ad77_0999);
            let long = b"Nobody inspects the spammish repetition";
            assert_eq!(of(long, piece), 0xfbce_a83c_8a37_8bf1);
        }
    }
}
