//! Random bits for stochastic rounding.
#![forbid(unsafe_code)]

/// Elements that one block of random bits serves, 16 bits each.
pub(crate) const BLOCK: usize = 8;

/// Which random number it is: never where it is computed.
///
/// The 128-bit counter is (element / 8, slot, tensor, step), the key is the seed:
/// word 0 = low half of element / 8, word 1 = its high half with the slot in the top three bits,
/// word 2 = the tensor's place in the optimizer's list, word 3 = low half of the number of steps
/// applied before this one. The high half of that number is xored into the key's second word.
/// Element `i` takes 16 bits: the low half of word `(i % 8) / 2` if `i` is even, else the high one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) seed: u64,
    pub(crate) step: u64,
    pub(crate) tensor: u32,
    /// 0 for the parameter, 1 + number for a state array.
    pub(crate) slot: u32,
}

impl Key {
    /// The 16 bits of one element. One definition for all; the fast form makes blocks.
    pub(crate) fn bits(&self, element: u64) -> u16 {
        let words = self.block(element / BLOCK as u64);
        let lane = (element % BLOCK as u64) as usize;
        (words[lane / 2] >> (16 * (lane % 2))) as u16
    }

    /// The bits of elements `8·block ..`.
    #[inline(always)]
    pub(crate) fn block(&self, block: u64) -> [u32; 4] {
        let (counter, key) = self.counter(block);
        philox(counter, key)
    }

    /// The blocks `first ..`, word by word, in step with each other so that they share vectors.
    #[inline(always)]
    pub(crate) fn blocks<const N: usize>(&self, first: u64) -> [[u32; N]; 4] {
        let mut c = [[0u32; N]; 4];
        for lane in 0..N {
            let (counter, _) = self.counter(first + lane as u64);
            for word in 0..4 {
                c[word][lane] = counter[word];
            }
        }
        let (_, mut key) = self.counter(first);
        for _ in 0..10 {
            let mut next = [[0u32; N]; 4];
            for lane in 0..N {
                let a = u64::from(c[0][lane]) * 0xd251_1f53;
                let b = u64::from(c[2][lane]) * 0xcd9e_8d57;
                next[0][lane] = (b >> 32) as u32 ^ c[1][lane] ^ key[0];
                next[1][lane] = b as u32;
                next[2][lane] = (a >> 32) as u32 ^ c[3][lane] ^ key[1];
                next[3][lane] = a as u32;
            }
            c = next;
            key = bump(key);
        }
        c
    }

    #[inline(always)]
    fn counter(&self, block: u64) -> ([u32; 4], [u32; 2]) {
        let high = (block >> 32) as u32 | self.slot << 29;
        let key = [self.seed as u32, (self.seed >> 32) as u32 ^ (self.step >> 32) as u32];
        ([block as u32, high, self.tensor, self.step as u32], key)
    }
}

/// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11).
#[inline(always)]
pub(crate) fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xd251_1f53;
        let b = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = bump(key);
    }
    counter
}

/// The key of the next round.
#[inline(always)]
fn bump(key: [u32; 2]) -> [u32; 2] {
    [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' Random123 library.
    #[test]
    fn philox_gives_the_known_answers() {
        let zero = philox([0; 4], [0; 2]);
        assert_eq!(zero, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
        );
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn blocks_side_by_side_are_the_blocks_one_by_one() {
        let key = Key { seed: 0x0123_4567_89ab_cdef, step: 1 << 40 | 7, tensor: 21_000, slot: 3 };
        for first in [0u64, 8, (1 << 32) - 3, 1 << 40] {
            let wide = key.blocks::<8>(first);
            for lane in 0..8 {
                let block = key.block(first + lane as u64);
                assert_eq!(block, [0, 1, 2, 3].map(|word: usize| wide[word][lane]));
                let element = (first + lane as u64) * 8;
                assert_eq!(key.bits(element + 5), (block[2] >> 16) as u16);
            }
        }
    }
}
