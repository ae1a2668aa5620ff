//! `ldmatrix` and `mma.sync`, after the fragment maps of the PTX ISA: with g = lane / 4, t = lane % 4,
//!
//! - ldmatrix: lane i of the m-th eight has the address of row i of matrix m; a lane gets elements 2t
//!   and 2t + 1 of row g, or of column g with `.trans`;
//! - A (16 × 16): registers 0 to 3 are rows g, g + 8, g, g + 8 at columns 2t (+ 0, 0, 8, 8);
//! - B (16 × 8): registers 0, 1 are rows 2t (+ 0, 8) of column g;
//! - C and D (16 × 8): rows g, g, g + 8, g + 8 at columns 2t, 2t + 1.

use super::Launch;
use super::block::Block;
use super::unit::{Factor, Step, WIDTH, add_products};
use super::warp::{LANES, Vector, Warp};
use crate::memory::Word;
use crate::ptx::isa::{Address, Reg, Space};

impl Launch<'_> {
    #[allow(clippy::too_many_arguments)]
    pub fn matrix_load(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        mask: u32,
        transpose: bool,
        dst: &[Reg],
        address: Address,
    ) {
        self.whole_warp(block, warp, mask);
        let rows = 8 * dst.len();
        let named = mask & (u64::MAX >> (64 - rows)) as u32;
        let places = self.addresses(block, warp, named, Space::Shared, address, 16);
        let mut words = [[Word { bits: 0, defined: 0 }; 4]; LANES];
        for row in 0..rows {
            let Some((space, at)) = places[row] else { continue };
            self.load_words(block, warp, row, (space, at), 4, &mut words[row]);
        }
        for (m, dst) in dst.iter().enumerate() {
            let matrix = &words[8 * m..8 * m + 8];
            let mut out = Vector::splat(0);
            for lane in 0..LANES {
                let (g, t) = (lane / 4, lane % 4);
                let word = if transpose {
                    let half = |row: usize| {
                        let Word { bits, defined } = matrix[row][g / 2];
                        let odd = g as u32 % 2;
                        (bits >> (16 * odd) & 0xffff, defined >> (2 * odd) & 3)
                    };
                    let ((low, low_defined), (high, high_defined)) = (half(2 * t), half(2 * t + 1));
                    Word { bits: low | high << 16, defined: 0xf0 | low_defined | high_defined << 2 }
                } else {
                    matrix[g][t]
                };
                (out.bits[lane], out.defined[lane]) = (word.bits, word.defined);
            }
            warp.write(*dst, mask, &out);
        }
    }
}

/// A product of fragments; how terms are added is the unit's affair.
pub fn multiply(warp: &mut Warp, half: bool, dst: &[Reg; 4], a: &[Reg], b: &[Reg], c: &[Reg; 4]) {
    let mantissa_bits = if half { 10 } else { 7 };
    let mut finite = true;
    let mut factor = |bits: u64| {
        let factor = Factor::new(bits as u16, mantissa_bits);
        finite &= factor.is_finite();
        factor
    };
    let k = 8 * b.len();
    // Whether a row of A, or a column of B, is wholly defined.
    let (mut row_known, mut column_known) = ([true; 16], [true; 8]);
    let mut left = [[Factor::default(); 16]; 16]; // [row][k]
    for (i, reg) in a.iter().enumerate() {
        let v = &warp.registers[*reg as usize];
        for lane in 0..LANES {
            let (row, column) = (lane / 4 + 8 * (i % 2), 2 * (lane % 4) + 8 * (i / 2));
            left[row][column] = factor(v.bits[lane]);
            left[row][column + 1] = factor(v.bits[lane] >> 16);
            row_known[row] &= v.defined[lane] == 0xff;
        }
    }
    let mut right: [Step; 16] = Default::default();
    for (i, reg) in b.iter().enumerate() {
        let v = &warp.registers[*reg as usize];
        for lane in 0..LANES {
            let (row, column) = (2 * (lane % 4) + 8 * i, lane / 4);
            right[row].set(column, factor(v.bits[lane]));
            right[row + 1].set(column, factor(v.bits[lane] >> 16));
            column_known[column] &= v.defined[lane] == 0xff;
        }
    }
    let start = c.map(|operand| warp.read(operand));
    let mut sum = [[0.0_f32; 8]; 16];
    for lane in 0..LANES {
        for (i, v) in start.iter().enumerate() {
            sum[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2] =
                f32::from_bits(v.bits[lane] as u32);
        }
    }
    for (row, left) in sum.iter_mut().zip(&left) {
        for (left, right) in left[..k].chunks(WIDTH).zip(right.chunks(WIDTH)) {
            add_products(row, left, right, finite);
        }
    }
    for (i, dst) in dst.iter().enumerate() {
        let mut out = Vector::splat(0);
        for lane in 0..LANES {
            let (row, column) = (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2);
            out.bits[lane] = sum[row][column].to_bits().into();
            let known = row_known[row] && column_known[column] && start[i].defined[lane] == 0xff;
            out.defined[lane] = if known { 0xff } else { 0 };
        }
        warp.write(*dst, u32::MAX, &out);
    }
}
