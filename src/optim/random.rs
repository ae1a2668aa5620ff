//! Random bits for stochastic rounding.
#![forbid(unsafe_code)]

/// Elements that one block of random bits serves, 16 bits each.
pub(crate) const BLOCK: usize = 8;

/// Blocks (or vectors of them) computed side by side: each is a chain of twenty products, and a processor that waits for
/// one has the others. (On a server 4 take a fifth less time than 1, 2 a tenth.)
const CHAINS: usize = 4;

/// Which random number it is: never where it is computed.
///
/// The 128-bit counter is (element / 8, slot, tensor, step), the key is the seed:
/// word 0 = low half of element / 8, word 1 = its high half with the slot in the top three bits,
/// word 2 = the tensor's place in the optimizer's list, word 3 = low half of the number of steps
/// applied, this one included. The high half of that number is xored into the key's second word.
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
    #[cfg(test)]
    pub(crate) fn bits(&self, element: u64) -> u16 {
        let words = self.block(element / BLOCK as u64);
        let lane = (element % BLOCK as u64) as usize;
        (words[lane / 2] >> (16 * (lane % 2))) as u16
    }

    /// The bits of elements `8·block ..`.
    #[cfg(test)]
    pub(crate) fn block(&self, block: u64) -> [u32; 4] {
        let (counter, key) = self.counter(block);
        philox(counter, key)
    }

    /// The blocks `first ..`, as a loop that becomes vector code: of each block, words 0 and 1 as
    /// one u64, then words 2 and 3. In memory, on little-endian machines, that is 16 bits for each
    /// element in order. As many blocks as are a multiple of [`CHAINS`].
    ///
    /// State is kept in u64 whose high halves are not used: a 32×32-bit product needs its operands
    /// there, and moving them in and out would cost more than the product.
    #[inline(always)]
    pub(crate) fn blocks(&self, first: u64, to: &mut [[u64; 2]]) {
        const LOW: u64 = 0xffff_ffff;
        // Not constants to the compiler, which would make `b << 32` a second product, of 64 bits.
        let [m0, m1] = std::hint::black_box([0xd251_1f53u32, 0xcd9e_8d57]).map(u64::from);
        let slot = u64::from(self.slot << 29);
        let (_, key) = self.counter(first);
        let mut keys = [[0u64; 2]; 10];
        let mut next = key;
        for key in &mut keys {
            *key = [u64::from(next[0]), u64::from(next[1])];
            next = bump(next);
        }
        debug_assert!(to.len().is_multiple_of(CHAINS));
        let apart = to.len() / CHAINS;
        for lane in 0..apart {
            let mut chains: [[u64; 4]; CHAINS] = std::array::from_fn(|chain| {
                let block = first.wrapping_add((chain * apart + lane) as u64);
                [block, block >> 32 | slot, u64::from(self.tensor), self.step & LOW]
            });
            // Unrolled by hand: the loop over lanes is then the innermost one.
            macro_rules! round {
                ($($number:literal)*) => {$(
                    for chain in &mut chains {
                        let [c0, c1, c2, c3] = *chain;
                        let (a, b) = ((c0 & LOW) * m0, (c2 & LOW) * m1);
                        let (of_a, of_b) = ((a >> 32) ^ c3, (b >> 32) ^ c1);
                        *chain = [of_b ^ keys[$number][0], b, of_a ^ keys[$number][1], a];
                    }
                )*};
            }
            round!(0 1 2 3 4 5 6 7 8 9);
            for (chain, [c0, c1, c2, c3]) in chains.into_iter().enumerate() {
                to[chain * apart + lane] = [c0 & LOW | c1 << 32, c2 & LOW | c3 << 32];
            }
        }
    }

    #[inline(always)]
    fn counter(&self, block: u64) -> ([u32; 4], [u32; 2]) {
        let high = (block >> 32) as u32 | self.slot << 29;
        let key = [self.seed as u32, (self.seed >> 32) as u32 ^ (self.step >> 32) as u32];
        ([block as u32, high, self.tensor, self.step as u32], key)
    }
}

/// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11).
#[cfg(test)]
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
            let mut wide = [[0; 2]; 8];
            key.blocks(first, &mut wide);
            for (lane, wide) in wide.iter().enumerate() {
                let block = key.block(first + lane as u64);
                let word = |word: usize| (wide[word / 2] >> (32 * (word % 2))) as u32;
                assert_eq!(block, [word(0), word(1), word(2), word(3)]);
                let element = (first + lane as u64) * 8;
                assert_eq!(key.bits(element + 5), (block[2] >> 16) as u16);
            }
        }
    }
}
